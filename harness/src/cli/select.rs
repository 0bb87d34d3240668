//! Which images and cases a command is about.

use super::Stop;
use super::args::Selection;
use crate::arch::Arch;
use crate::image::spec::ImageSpec;
use crate::lab::{self, Lab};
use crate::scenario::expand::Case;

/// What `--image` takes for every image there is.
const ALL: &str = "all";

/// The images of those names, else the default ones; of those architectures, where some are named. An architecture without
/// a default image stands for all that it has.
pub(super) fn images(lab: &Lab, names: &[String], archs: &[Arch]) -> Result<Vec<ImageSpec>, Stop> {
    let known = lab.images();
    let has_default = |arch: Arch| known.iter().any(|image| image.default && image.arch == arch);
    let mut images: Vec<ImageSpec> = match names {
        [] => {
            let other = |arch: Arch| archs.contains(&arch) && !has_default(arch) && !lab.has_own_kernel();
            known.iter().filter(|image| image.default || other(image.arch)).cloned().collect()
        }
        names if names.iter().any(|name| name == ALL) => known.to_vec(),
        names => names.iter().map(|name| lab.image(name)).collect::<Result<_, _>>().map_err(Stop::usage)?,
    };
    images.retain(|image| archs.is_empty() || archs.contains(&image.arch));
    if images.is_empty() {
        return Err(Stop::usage("no image is like that\n`kmodlab image list` shows those there are"));
    }
    Ok(images)
}

/// The image of that name, or that of the kernel of the user's own.
pub(super) fn image(lab: &Lab, name: Option<&str>) -> Result<ImageSpec, Stop> {
    match name {
        Some(name) => lab.image(name).map_err(Stop::usage),
        None => images(lab, &[], &[])
            .map(|images| images.into_iter().next())?
            .ok_or_else(|| Stop::usage("no image is named")),
    }
}

/// The cases that a selection means.
pub(super) fn cases(lab: &Lab, selection: &Selection) -> Result<Vec<Case>, Stop> {
    let images = images(lab, &selection.targets.images, &selection.targets.archs)?;
    lab.cases(&selection.scenarios, &images).map_err(|error| match error {
        lab::Error::Scenarios(errors) => Stop::usage(format!("scenarios are wrong\n{errors}")),
        error => Stop::usage(crate::error::chain(&error)),
    })
}
