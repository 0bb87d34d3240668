//! `kmodlab image`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use indicatif::HumanBytes;

use super::args::{Image, Machine};
use super::{Context, Stop, run, say, select};
use crate::arch;
use crate::image::cache::{Listed, Unpacked};
use crate::lab::Lab;
use crate::run::pack as pack_cases;

/// Shows, fills or empties the cache.
pub(super) fn image(context: &Context, command: &Image) -> Result<u8, Stop> {
    let lab = context.lab()?;
    match command {
        Image::List => list(&lab)?,
        Image::Fetch { names, refresh } => fetch(&lab, names, *refresh)?,
        Image::Pack { file, names, machine } => pack(&lab, file, names, machine)?,
        Image::Unpack { file } => unpack(&lab, file)?,
        Image::Clean { unused_for } => clean(&lab, *unused_for)?,
    }
    Ok(0)
}

fn list(lab: &Lab) -> Result<(), Stop> {
    for image in lab.images() {
        let default = if image.default { "default" } else { "" };
        say(format_args!(
            "{:<12} {:<8} {:>4} MiB  {default:<8} {} ({})",
            image.name,
            image.arch.name,
            image.memory.mib(),
            image.description,
            image.kernel
        ));
    }
    for (_, why) in arch::GONE {
        say(format_args!("\n{why}"));
    }
    let entries = lab.cache().list().map_err(|error| Stop::error(&error))?;
    let total: u64 = entries.iter().map(|entry| entry.disk_bytes).sum();
    say(format_args!("\n{} in {}:", HumanBytes(total), lab.cache().root().display()));
    for Listed { kind, label, disk_bytes, last_used, .. } in &entries {
        let age = SystemTime::now().duration_since(*last_used).unwrap_or_default().as_secs() / 86400;
        say(format_args!(
            "{kind:<12} {:>10}  used {age:>3} days ago  {label}",
            HumanBytes(*disk_bytes).to_string()
        ));
    }
    Ok(())
}

fn fetch(lab: &Lab, names: &[String], refresh: bool) -> Result<(), Stop> {
    for spec in select::images(lab, names, &[])? {
        if refresh {
            lab.store().refresh(&spec, lab.watch(), lab.cancel()).map_err(|error| Stop::error(&error))?;
        }
        let image =
            lab.store().prepare(&spec, lab.watch(), lab.cancel()).map_err(|error| Stop::error(&error))?;
        say(format_args!("{:<12} kernel {}", spec.name, image.release));
        for package in &image.packages {
            say(format_args!("  {} {} {}", package.name, package.version, package.architecture));
        }
    }
    Ok(())
}

fn clean(lab: &Lab, unused_for: Duration) -> Result<(), Stop> {
    let cleaned = lab.cache().clean(None, unused_for).map_err(|error| Stop::error(&error))?;
    let freed: u64 = cleaned.removed.iter().map(|entry| entry.disk_bytes).sum();
    say(format_args!("removed {} entries, {}", cleaned.removed.len(), HumanBytes(freed)));
    for entry in &cleaned.in_use {
        say(format_args!("in use, and kept: {} {}", entry.kind, entry.label));
    }
    Ok(())
}

fn pack(lab: &Lab, file: &Path, names: &[String], machine: &Machine) -> Result<(), Stop> {
    let images = select::images(lab, names, &[])?;
    let cases = lab.cases(&[], &images).map_err(|error| Stop::usage(crate::error::chain(&error)))?;
    let entries =
        pack_cases(lab, &cases, run::options(machine), file).map_err(|error| Stop::error(&error))?;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &entries {
        *kinds.entry(entry.kind()).or_default() += 1;
    }
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let bytes = fs::metadata(file).map_err(|error| Stop::error(&error))?.len();
    say(format_args!("{}, {}: {}", file.display(), HumanBytes(bytes), kinds.join(", ")));
    Ok(())
}

fn unpack(lab: &Lab, file: &Path) -> Result<(), Stop> {
    let Unpacked { new, had } =
        lab.cache().unpack(file, lab.cancel()).map_err(|error| Stop::error(&error))?;
    say(format_args!("{new} entries unpacked, {had} were there"));
    Ok(())
}
