//! A project: its images, scenarios and test modules, and the cache that holds what is made of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::guest::errno;
use crate::image::builtin;
use crate::image::cache::{Cache, Entry};
use crate::image::own::OwnKernel;
use crate::image::prepare::Store;
use crate::image::spec::{self, ImageSpec, KernelSource};
use crate::module::Sources;
use crate::scenario::Context;
use crate::scenario::expand::{Case, Target, expand};
use crate::scenario::limits::Limit;
use crate::scenario::load::{FileErrors, LoadError, load, load_limits};
use crate::scenario::values::Values;
use crate::work::{Cancel, Watch, WorkEvent};
use crate::yaml::Spanned;

/// The folders that a project has. One without `images` has those that kmodlab comes with.
const FOLDERS: [&str; 2] = ["scenarios", "test-modules"];

/// Why a project cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no project here.
    #[error(
        "no folder with `scenarios` and `test-modules` in it, here or above\n\
         name one with `--root` or `KMODLAB_ROOT`"
    )]
    NoProject,
    /// The folder that was named is no project.
    #[error("`{}` has no folder `{missing}`", root.display())]
    Incomplete {
        /// The folder.
        root: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// The cache, or a folder, cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An image file is wrong, or an image unknown.
    #[error(transparent)]
    Image(#[from] spec::Error),
    /// Scenario files cannot be found.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Scenario files are wrong.
    #[error(transparent)]
    Scenarios(#[from] FileErrors),
}

/// A project that is open.
pub struct Lab {
    root: PathBuf,
    store: Store,
    /// Keeps the images that kmodlab comes with, where they are used.
    _images: Option<Entry>,
    images: Vec<ImageSpec>,
    sources: Sources,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

impl Lab {
    /// Opens the project at `root`, a folder with `scenarios`, `test-modules` and, unless it uses the images that kmodlab
    /// comes with, `images`; else the one that the working directory lies in, else the one that this program was
    /// built from; with the cache at `cache`, else where [`Cache::open`] says.
    ///
    /// # Errors
    ///
    /// Where there is no project, or one of its image files is wrong.
    pub fn open(
        root: Option<&Path>,
        cache: Option<&Path>,
        watch: Arc<dyn Watch>,
        cancel: Cancel,
    ) -> Result<Self, Error> {
        let root = match root {
            Some(root) => match FOLDERS.into_iter().find(|folder| !root.join(folder).is_dir()) {
                Some(missing) => return Err(Error::Incomplete { root: root.to_owned(), missing }),
                None => root.to_owned(),
            },
            None => find_root()?,
        };
        let cache = Cache::open(cache, Arc::clone(&watch))?;
        let own = root.join("images");
        let (dir, built_in) = match own.is_dir() {
            true => (own, None),
            false => {
                let entry = builtin::unpack(&cache, &cancel).map_err(io::Error::from)?;
                (entry.to_path_buf(), Some(entry))
            }
        };
        let store = Store::new(dir, cache);
        let images = store.images()?;
        let sources = Sources::read(&root.join("test-modules"))?;
        Ok(Lab { root, store, _images: built_in, images, sources, watch, cancel })
    }

    /// Adds the image of a kernel of the user's own, which then is the default one.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot be used: something is missing, does not fit together, or lacks an option that every guest
    /// needs. As [`ImageSpec::own`].
    pub fn add_kernel(&mut self, own: OwnKernel) -> Result<(), spec::Error> {
        let found = own.find()?;
        found.check_options()?;
        found.advice().into_iter().for_each(|advice| self.warn(advice));
        let spec = ImageSpec::own(own, &found, &self.images)?;
        self.images.retain(|image| image.name != spec.name);
        self.images.iter_mut().for_each(|image| image.image.default = false);
        self.images.push(spec);
        Ok(())
    }

    /// Whether there is a kernel of the user's own.
    pub fn has_own_kernel(&self) -> bool {
        self.images.iter().any(|image| matches!(image.kernel, KernelSource::Own(_)))
    }

    /// The project's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of scenarios.
    pub fn scenarios(&self) -> PathBuf {
        self.root.join("scenarios")
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        self.store.cache()
    }

    /// What prepares images.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Every image, by name.
    pub fn images(&self) -> &[ImageSpec] {
        &self.images
    }

    /// The image of that name.
    ///
    /// # Errors
    ///
    /// Where there is none; the error names those that there are.
    pub fn image(&self, name: &str) -> Result<ImageSpec, spec::Error> {
        let known = || self.images.iter().map(|image| image.name.clone()).collect();
        let found = self.images.iter().find(|image| image.name == name);
        found.cloned().ok_or_else(|| spec::Error::Unknown { name: name.to_owned(), known: known() })
    }

    /// The test modules.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Who is told of work.
    pub fn watch(&self) -> &dyn Watch {
        &*self.watch
    }

    /// The request to stop.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Tells the watcher of something that the user should know.
    pub fn warn(&self, text: String) {
        self.watch.work(WorkEvent::Warning(text));
    }

    /// The scenarios that `wanted` names, each on each of `images`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the scenarios' files, and names that match nothing.
    pub fn cases(&self, wanted: &[String], images: &[ImageSpec]) -> Result<Vec<Case>, Error> {
        let files = load(wanted, &self.scenarios())?;
        let modules: Vec<String> = self.sources.iter().map(|source| source.name.clone()).collect();
        let errnos: Vec<&str> = errno::names().collect();
        let context = Context { modules: &modules, errnos: &errnos };
        let targets: Vec<Target> = images
            .iter()
            .map(|image| Target {
                name: image.name.clone(),
                arguments: image.arguments(),
                values: values(image),
            })
            .collect();
        let limits = load_limits(&self.scenarios())?;
        let mut cases = expand(&files, &targets, context)?;
        for case in &mut cases {
            let of_case =
                |limit: &&Spanned<Limit>| limit.value.scenario.iter().any(|id| id.value == case.scenario_id);
            case.limits = limits.iter().filter(of_case).cloned().collect();
        }
        Ok(cases)
    }
}

fn values(image: &ImageSpec) -> Values {
    let own: BTreeMap<_, _> = image.values.clone();
    Values::new(&image.name, image.arch, own)
}

fn is_root(dir: &Path) -> bool {
    FOLDERS.iter().all(|folder| dir.join(folder).is_dir())
}

fn find_root() -> Result<PathBuf, Error> {
    let here = std::env::current_dir()?;
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let found = here.ancestors().chain(built_from).find(|dir| is_root(dir));
    found.map(Path::to_owned).ok_or(Error::NoProject)
}
