//! What cases start from, in a file for other machines.

use std::path::Path;

use super::{Options, Runner, accel, host};
use crate::image::cache::{Entry, PackError};
use crate::lab::Lab;
use crate::scenario::expand::Case;
use crate::work::Unwatched;

/// The kinds of entries that say something of this machine alone.
const LOCAL: [&str; 2] = [accel::KIND, host::KIND];

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that the cases need cannot be made.
    #[error("{image} cannot be made ready: {reason}")]
    Unready {
        /// The image.
        image: String,
        /// Why not.
        reason: String,
    },
    /// The file could not be written.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Makes everything ready that `cases` start from, where the cache has it not: kernels, modules, and, unless
/// [`Options::cold`], snapshots; then packs it into `file`. Gives what is packed.
///
/// # Errors
///
/// Where something cannot be made, or the file not be written.
pub fn pack(lab: &Lab, cases: &[Case], options: Options, file: &Path) -> Result<Vec<Entry>, Error> {
    lab.cache().record();
    let runner = Runner::new(lab, options, &Unwatched);
    let mut images: Vec<&str> = cases.iter().map(|case| case.image.as_str()).collect();
    images.sort_unstable();
    images.dedup();
    for image in images {
        let of_image: Vec<&Case> = cases.iter().filter(|case| case.image == image).collect();
        let unready = |reason| Error::Unready { image: image.to_owned(), reason };
        runner.prepare(image, &of_image).map_err(unready)?;
    }
    let mut entries = lab.cache().recorded();
    entries.retain(|entry| !LOCAL.contains(&entry.kind()));
    lab.cache().pack(&entries, file, lab.cancel())?;
    Ok(entries)
}
