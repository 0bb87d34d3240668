//! What trace-cmd compresses: sections as a whole, and trace data in chunks.

use std::io::Read;

use super::Error;

/// What every zstd frame begins with. Versions of trace-cmd before 3.1.3 left it out (`ZSTD_f_zstd1_magicless`).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Not.
    None,
    Zlib,
    Zstd,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Result<Self, Error> {
        match name {
            "none" => Ok(Algorithm::None),
            "zlib" => Ok(Algorithm::Zlib),
            "zstd" => Ok(Algorithm::Zstd),
            other => Err(Error::Compression(other.chars().take(40).collect())),
        }
    }

    /// Decompresses a block that has `length` bytes then; `at` is its place, for errors.
    pub(super) fn unpack(self, packed: &[u8], length: usize, at: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let limit = length as u64 + 1;
        let read = match self {
            Algorithm::None => packed.take(limit).read_to_end(&mut bytes),
            Algorithm::Zlib => flate2::read::ZlibDecoder::new(packed).take(limit).read_to_end(&mut bytes),
            Algorithm::Zstd => {
                let magic = if packed.starts_with(&ZSTD) { &[][..] } else { &ZSTD[..] };
                zstd::Decoder::new(magic.chain(packed))
                    .and_then(|decoder| decoder.take(limit).read_to_end(&mut bytes))
            }
        };
        match read {
            Ok(read) if read == length => Ok(bytes),
            _ => Err(Error::Malformed { what: "compressed data", at }),
        }
    }
}
