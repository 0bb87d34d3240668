//! The images that kmodlab comes with, for projects that have none of their own.

use fs_err as fs;

use super::cache::{Cache, Entry, Error, KeyBuilder};
use crate::work::Cancel;

/// The files of the folder `images`, by their paths in it: made by `build.rs`.
const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// The images as files, in the cache.
///
/// # Errors
///
/// Where they cannot be written there.
pub fn unpack(cache: &Cache, cancel: &Cancel) -> Result<Entry, Error> {
    let key = KeyBuilder::new("the images that kmodlab comes with");
    let key = FILES.iter().fold(key, |key, (name, content)| key.part(name, content)).finish();
    cache.entry("images", &key, cancel, |dir| {
        for (name, content) in FILES {
            let file = dir.join(name);
            fs::create_dir_all(file.parent().unwrap_or(dir))?;
            fs::write(file, content)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::image::spec::ImageSpec;
    use crate::work::Unwatched;

    #[test]
    fn they_are_those_of_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path()), Arc::new(Unwatched)).unwrap();
        let unpacked = unpack(&cache, &Cancel::new().unwrap()).unwrap();
        let images = |dir: &Path| -> Vec<_> {
            ImageSpec::read_all(dir).unwrap().into_iter().map(|image| (image.name, image.image)).collect()
        };
        assert_eq!(images(&unpacked), images(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../images")));
    }
}
