//! `kmodlab module`

use std::path::Path;

use super::args::Module;
use super::{Context, Stop, say, select};
use crate::lab::Lab;
use crate::module::{Builder, Sources};
use crate::run::headers;

/// Builds or lists test modules.
pub(super) fn module(context: &Context, command: &Module) -> Result<u8, Stop> {
    let lab = context.lab()?;
    match command {
        Module::List => {
            for source in lab.sources().iter() {
                let needs = if source.needs.is_empty() {
                    String::new()
                } else {
                    format!(" needs {}", source.needs.join(" "))
                };
                say(format_args!("{:<20}{needs}", source.name));
            }
        }
        Module::Build { modules, images } => build(&lab, modules, images)?,
    }
    Ok(0)
}

fn build(lab: &Lab, modules: &[String], images: &[String]) -> Result<(), Stop> {
    let watch = lab.watch();
    for spec in select::images(lab, images, &[])? {
        let image = lab.store().prepare(&spec, watch, lab.cancel()).map_err(|error| Stop::error(&error))?;
        let builder = Builder::new(lab.cache(), headers(&image), watch, lab.cancel())
            .map_err(|error| Stop::error(&error))?;
        let all: Vec<String> = lab.sources().iter().map(|source| source.name.clone()).collect();
        for name in if modules.is_empty() { &all } else { modules } {
            let built = if Path::new(name).is_dir() {
                let sources = Sources::single(Path::new(name)).map_err(|error| Stop::error(&error))?;
                let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
                names
                    .iter()
                    .map(|name| builder.build(&sources, name))
                    .collect::<Result<Vec<_>, _>>()
                    .map(|all| all.concat())
            } else {
                builder.build(lab.sources(), name)
            };
            if let Some(module) = built.map_err(|error| Stop::error(&error))?.last() {
                say(module.ko().display());
            }
        }
    }
    Ok(())
}
