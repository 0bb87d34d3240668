//! Test modules: their sources, building them, and what their ELF files say.

mod build;
pub mod callers;
mod code;
mod lines;
mod source;

pub use build::{Builder, Built, COUNT_LINES, COVER_LINES, Headers};
pub use code::{Code, Function, Place, Section};
pub use lines::{Lines, NoLines, SourceLine};
pub use source::{Source, Sources};

/// Why a module could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such module.
    #[error("there is no module `{name}` in `{dir}`")]
    Unknown {
        /// Its name.
        name: String,
        /// Where it was looked for.
        dir: String,
    },
    /// Modules need each other in a circle.
    #[error("test module `{0}` needs itself, by way of what it needs")]
    Circle(String),
    /// kbuild failed.
    #[error("module `{module}` does not build for {image}\n{output}")]
    Build {
        /// The module.
        module: String,
        /// The kernel it was built for.
        image: String,
        /// The compiler's lines.
        output: String,
    },
    /// kbuild ended well and left no module.
    #[error("building `{module}` made no `{module}.ko`: its Kbuild must say `obj-m := {module}.o`")]
    NoOutput {
        /// The module.
        module: String,
    },
    /// The image's kernel came without headers.
    #[error(
        "there is nothing to build modules against for {image}\n\
         name the headers of its kernel with `--headers`, or its tree with `--kernel-tree`"
    )]
    NoHeaders {
        /// The image.
        image: String,
    },
    /// The compiler is missing.
    #[error(transparent)]
    Compiler(#[from] crate::image::compiler::Missing),
    /// A process could not be run.
    #[error(transparent)]
    Process(#[from] crate::process::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The kernel's sources could not be had.
    #[error(transparent)]
    Image(#[from] crate::image::prepare::Error),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] crate::image::cache::Error),
}
