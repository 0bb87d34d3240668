//! Compressed data, told apart by its first bytes.

use std::io::{self, Read};

/// What decompressed data may come to, as a bound on what a hostile or broken file can cost.
pub const LIMIT: u64 = 512 << 20;

/// A way of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// gzip (RFC 1952).
    Gzip,
    /// The .xz container.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4's legacy frame, which the kernel uses: a magic, then blocks of up to 8 MiB, each after its size.
    Lz4,
    /// The .lzma container, whose first bytes are properties: 0x5d, and a dictionary size.
    Lzma,
}

impl Format {
    /// Every format with its magic number.
    pub const ALL: [(Format, &[u8]); 5] = [
        (Format::Gzip, b"\x1f\x8b\x08"),
        (Format::Xz, b"\xfd7zXZ\0"),
        (Format::Zstd, b"\x28\xb5\x2f\xfd"),
        (Format::Lz4, b"\x02\x21\x4c\x18"),
        (Format::Lzma, b"\x5d\0\0"),
    ];

    /// The format of data that begins so.
    pub fn of(data: &[u8]) -> Option<Format> {
        Format::ALL.iter().find(|(_, magic)| data.starts_with(magic)).map(|(format, _)| *format)
    }
}

/// Decompresses one stream; what follows it is ignored. `LIMIT` bytes are the most it may come to.
///
/// # Errors
///
/// Where the data is broken, or too long decompressed.
pub fn decompress(format: Format, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match format {
        Format::Gzip => read_bounded(flate2::read::GzDecoder::new(data), &mut out)?,
        Format::Xz => read_bounded(liblzma::bufread::XzDecoder::new(data), &mut out)?,
        Format::Zstd => {
            read_bounded(zstd::stream::read::Decoder::with_buffer(data)?.single_frame(), &mut out)?
        }
        Format::Lzma => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(LIMIT)?;
            read_bounded(liblzma::bufread::XzDecoder::new_stream(data, stream), &mut out)?;
        }
        Format::Lz4 => lz4_legacy(data, &mut out)?,
    }
    Ok(out)
}

fn read_bounded(mut reader: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    reader.by_ref().take(LIMIT).read_to_end(out)?;
    match reader.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(too_long()),
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is more than {} MiB decompressed", LIMIT >> 20))
}

/// Blocks up to the end of the data, or up to what can be no block: the kernel's build appends the decompressed size.
fn lz4_legacy(data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    const BLOCK: usize = 8 << 20;
    let mut rest = data.get(4..).unwrap_or_default();
    while let Some((size, after)) = rest.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        let Some((block, after)) = after.split_at_checked(size) else { break };
        let end = out.len();
        if end + BLOCK > LIMIT as usize {
            return Err(too_long());
        }
        out.resize(end + BLOCK, 0);
        let written = lz4_flex::block::decompress_into(block, out.get_mut(end..).unwrap_or_default())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        out.truncate(end + written);
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compress(format: Format, data: &[u8]) -> Vec<u8> {
        match format {
            Format::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Format::Xz => liblzma::encode_all(data, 1).unwrap(),
            Format::Zstd => zstd::encode_all(data, 1).unwrap(),
            Format::Lzma => {
                let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
                let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Format::Lz4 => {
                let mut out = vec![2, 0x21, 0x4c, 0x18];
                for block in data.chunks(8 << 20) {
                    let block = lz4_flex::block::compress(block);
                    out.extend((block.len() as u32).to_le_bytes());
                    out.extend(block);
                }
                out
            }
        }
    }

    #[test]
    fn every_format_is_recognised_and_read_though_something_follows() {
        let data: Vec<u8> = (0..9_000_000_u32).map(|n| (n / 1000) as u8).collect();
        for (format, _) in Format::ALL {
            let mut packed = compress(format, &data);
            assert_eq!(Format::of(&packed), Some(format));
            packed.extend((data.len() as u32).to_le_bytes());
            assert!(decompress(format, &packed).unwrap() == data, "{format:?}");
        }
        assert_eq!(Format::of(b"\x7fELF"), None);
    }

    #[test]
    fn broken_data_is_an_error_or_short_and_no_panic() {
        for (format, magic) in Format::ALL {
            assert!(decompress(format, magic).map_or(true, |out| out.is_empty()), "{format:?}");
            let mut packed = compress(format, &[7; 3000]);
            for at in (4..packed.len()).step_by(3) {
                packed[at] ^= 0x55;
                let _ = decompress(format, &packed);
                packed[at] ^= 0x55;
            }
            for end in (0..packed.len()).step_by(5) {
                let _ = decompress(format, &packed[..end]);
            }
        }
    }
}
