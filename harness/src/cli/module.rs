//! `kmodlab module`

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use super::args::{self, Format, Module};
use super::{Context, Stop, say, select};
use crate::image::depmod::decompress;
use crate::lab::Lab;
use crate::module::callers::{Call, Callers, Direction, Owner};
use crate::module::{Builder, Built, Sources};
use crate::report::printable;
use crate::run::headers;

/// Builds or lists test modules.
pub(super) fn module(context: &Context, command: &Module) -> Result<u8, Stop> {
    match command {
        Module::List => {
            let lab = context.lab()?;
            for source in lab.sources().iter() {
                let needs = if source.needs.is_empty() {
                    String::new()
                } else {
                    format!(" needs {}", source.needs.join(" "))
                };
                say(format_args!("{:<20}{needs}", source.name));
            }
        }
        Module::Build { names, images, kernel } => {
            build(&context.lab_with(kernel, images)?, names, images)?;
        }
        Module::Callers { module, images, kernel, format } => {
            callers(context, module, images, kernel, *format)?;
        }
    }
    Ok(0)
}

fn build(lab: &Lab, modules: &[String], images: &[String]) -> Result<(), Stop> {
    let all: Vec<String> = lab.sources().iter().map(|source| source.name.clone()).collect();
    for_images(lab, images, |_, builder| {
        for name in if modules.is_empty() { &all } else { modules } {
            if let Some(file) = built(lab, builder, name)? {
                say(file.display());
            }
        }
        Ok(())
    })
}

/// Does something for each of the images, with what builds modules for it.
fn for_images(
    lab: &Lab,
    images: &[String],
    mut each: impl FnMut(&str, &Builder<'_>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let watch = lab.watch();
    for spec in select::images(lab, images, &[])? {
        let image = lab.store().prepare(&spec, watch, lab.cancel()).map_err(|error| Stop::error(&error))?;
        let builder = headers(&image)
            .and_then(|headers| Builder::new(lab.cache(), headers, watch, lab.cancel()))
            .map_err(|error| Stop::error(&error))?;
        each(&spec.name, &builder)?;
    }
    Ok(())
}

/// Builds a test module, or the module in a folder; gives its file.
fn built(lab: &Lab, builder: &Builder<'_>, name: &str) -> Result<Option<PathBuf>, Stop> {
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
    Ok(built.map_err(|error| Stop::error(&error))?.last().map(Built::ko))
}

/// What `callers` prints with `--format json`, one for each file.
#[derive(Serialize)]
struct Document {
    image: Option<String>,
    #[serde(flatten)]
    callers: Callers,
}

fn callers(
    context: &Context,
    module: &str,
    images: &[String],
    kernel: &args::KernelChoice,
    format: Format,
) -> Result<(), Stop> {
    let mut documents = Vec::new();
    // A file needs no project.
    if Path::new(module).is_file() {
        documents.push(Document { image: None, callers: read(Path::new(module))? });
    } else {
        let lab = context.lab_with(kernel, images)?;
        for_images(&lab, images, |image, builder| {
            if let Some(file) = built(&lab, builder, module)? {
                documents.push(Document { image: Some(image.to_owned()), callers: read(&file)? });
            }
            Ok(())
        })?;
    }
    if format == Format::Json {
        let json = serde_json::to_string_pretty(&documents).map_err(|error| Stop::error(&error))?;
        say(json);
        return Ok(());
    }
    for document in &documents {
        let image = document.image.as_ref().map(|image| format!(" for {image}")).unwrap_or_default();
        say(format_args!("{}{image}", printable(module)));
        print(&document.callers);
    }
    Ok(())
}

fn read(file: &Path) -> Result<Callers, Stop> {
    let wrong = |error: &dyn std::fmt::Display| {
        Stop::usage(format!("cannot read `{}` as a kernel module: {error}", file.display()))
    };
    let bytes = fs::read(file).map_err(|error| wrong(&error))?;
    let elf = decompress(bytes).map_err(|error| wrong(&error))?;
    Callers::of(&elf).map_err(|error| wrong(&error))
}

fn print(callers: &Callers) {
    for Call { function, offset, callee, direction } in &callers.calls {
        let verb = match direction {
            Direction::Take => "takes",
            Direction::Give => "gives",
        };
        say(printable(&format!("  {verb}  {function}+{offset:#x} calls {callee}")));
    }
    for Owner { table, offset } in &callers.owners {
        say(printable(&format!("  owner  {table}+{offset:#x}: the kernel counts its users")));
    }
    for function in &callers.users {
        say(printable(&format!("  self   {function} uses THIS_MODULE")));
    }
    if *callers == Callers::default() {
        say("  nothing: no code of it touches a use count");
    }
}
