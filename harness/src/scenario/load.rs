//! Finds scenario files and reads them: the only part of [`super`] that touches files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::limits::{self, Limit};
use crate::yaml::{self, Diagnostic, Spanned, nearest};

/// A scenario file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the folder of scenarios, without `.yaml`: `module/in-use`.
    pub id: String,
    /// Where it is, as it was found.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// What is wrong with the files, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileErrors(pub Vec<(File, Vec<Diagnostic>)>);

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self
            .0
            .iter()
            .map(|(file, diagnostics)| yaml::render(&file.path.to_string_lossy(), &file.text, diagnostics))
            .collect();
        f.write_str(shown.join("\n").trim_end())
    }
}

impl std::error::Error for FileErrors {}

/// Scenarios cannot be found or read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Files are there but are no scenarios.
    #[error("{0}")]
    Files(FileErrors),
    /// The file of what kernels cannot do is wrong.
    #[error("{0}")]
    Limits(FileErrors),
    /// Nothing has a name like that.
    #[error("no scenario matches `{name}`{hint}")]
    NoMatch {
        /// The name.
        name: String,
        /// Empty, or a line that begins with a line break.
        hint: String,
    },
    /// A folder without scenarios.
    #[error("no scenarios in `{}`", .0.display())]
    NoScenarios(PathBuf),
    /// Two files would have the same name in reports.
    #[error("`{}` and `{}` are both the scenario `{id}`\nrename one of them", first.display(), second.display())]
    Duplicate {
        /// The name.
        id: String,
        /// A file.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
}

/// Reads the scenarios that `wanted` names: files, folders, or parts of ids of those in the folder `root`. With nothing
/// wanted, all of `root`. They come in the order of their ids.
///
/// # Errors
///
/// A file cannot be read, is no text, or has the id of another; a name matches nothing.
pub fn load(wanted: &[String], root: &Path) -> Result<Vec<File>, LoadError> {
    let mut paths = BTreeSet::new();
    if wanted.is_empty() {
        paths.extend(folder(root)?);
    }
    for name in wanted {
        let path = Path::new(name);
        if path.is_dir() {
            paths.extend(folder(path)?);
        } else if path.is_file() {
            paths.insert(path.to_owned());
        } else {
            paths.extend(matching(name, root)?);
        }
    }
    read_all(paths, root)
}

/// What kernels and machines cannot do, as the file for it in the folder of scenarios says; nothing where there is none.
///
/// # Errors
///
/// The file cannot be read, or something is wrong with it.
pub fn load_limits(root: &Path) -> Result<Vec<Spanned<Limit>>, LoadError> {
    let path = root.join(limits::FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let known: Vec<String> = folder(root)?.iter().map(|path| id(path, root)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let read = yaml::utf8(&bytes).map_err(|error| vec![error]).and_then(|text| limits::read(text, &known));
    let file = File { id: id(&path, root), path, text };
    read.map_err(|errors| LoadError::Limits(FileErrors(vec![(file, errors)])))
}

/// The files of a folder and the folders in it. Links to folders are not followed, so that there is no circle.
fn folder(folder: &Path) -> Result<BTreeSet<PathBuf>, LoadError> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml")
                && entry.file_name() != limits::FILE
            {
                found.insert(path);
            }
        }
    }
    if found.is_empty() {
        return Err(LoadError::NoScenarios(folder.to_owned()));
    }
    Ok(found)
}

/// The files of `root` whose ids contain `name`.
fn matching(name: &str, root: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let all = folder(root)?;
    let ids: Vec<_> = all.iter().map(|path| id(path, root)).collect();
    let found: Vec<_> =
        all.iter().zip(&ids).filter(|(_, id)| id.contains(name)).map(|(path, _)| path.clone()).collect();
    if found.is_empty() {
        let names = ids.iter().flat_map(|id| [id.as_str(), id.rsplit('/').next().unwrap_or(id)]);
        let hint = nearest(name, names).map(|near| format!("\ndid you mean `{near}`?")).unwrap_or_default();
        return Err(LoadError::NoMatch { name: name.to_owned(), hint });
    }
    Ok(found)
}

/// A scenario's id: its path below `root`, or, elsewhere, below the last folder named `scenarios`, or its name alone.
fn id(path: &Path, root: &Path) -> String {
    let absolute = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (path, root) = (absolute(path).with_extension(""), absolute(root));
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let below = match path.strip_prefix(&root) {
        Ok(inner) => inner.iter().count(),
        Err(_) => parts.iter().rev().position(|part| part == "scenarios").unwrap_or(1).max(1),
    };
    parts.into_iter().rev().take(below).rev().collect::<Vec<_>>().join("/")
}

fn read_all(paths: BTreeSet<PathBuf>, root: &Path) -> Result<Vec<File>, LoadError> {
    let mut files = BTreeMap::<String, (PathBuf, File)>::new();
    let mut errors = FileErrors::default();
    for path in paths {
        let id = id(&path, root);
        let real = fs::canonicalize(&path)?;
        if let Some((first, file)) = files.get(&id) {
            if *first == real {
                continue;
            }
            return Err(LoadError::Duplicate { id, first: file.path.clone(), second: path });
        }
        let bytes = fs::read(&path)?;
        let (text, error) = match yaml::utf8(&bytes) {
            Ok(text) => (text.to_owned(), None),
            Err(error) => (String::from_utf8_lossy(&bytes).into_owned(), Some(error)),
        };
        let file = File { id: id.clone(), path, text };
        errors.0.extend(error.map(|error| (file.clone(), vec![error])));
        files.insert(id, (real, file));
    }
    match errors.0.is_empty() {
        true => Ok(files.into_values().map(|(_, file)| file).collect()),
        false => Err(LoadError::Files(errors)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::{fixture, rstest};
    use tempfile::TempDir;

    use super::*;

    #[fixture]
    fn tree() -> TempDir {
        let tree = tempfile::tempdir().unwrap();
        for path in
            ["scenarios/module/in-use.yaml", "scenarios/module/load.yaml", "scenarios/probe/list.yaml"]
        {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "name: x\n").unwrap();
        }
        fs::write(tree.path().join("scenarios/schema.json"), "{}").unwrap();
        fs::write(tree.path().join("scenarios/limits.yaml"), "[]\n").unwrap();
        fs::create_dir_all(tree.path().join("empty")).unwrap();
        fs::write(tree.path().join("alone.yaml"), "name: x\n").unwrap();
        tree
    }

    /// Words that begin with `./` are paths in the tree, others are names.
    fn ids(tree: &TempDir, wanted: &[&str]) -> Result<Vec<String>, String> {
        let in_tree = |name: &&str| match name.strip_prefix("./") {
            Some(path) => tree.path().join(path).to_string_lossy().into_owned(),
            None => (*name).to_owned(),
        };
        let wanted: Vec<_> = wanted.iter().map(in_tree).collect();
        let files = load(&wanted, &tree.path().join("scenarios"));
        let tree = tree.path().to_string_lossy().into_owned();
        files
            .map(|files| files.into_iter().map(|file| file.id).collect())
            .map_err(|error| error.to_string().replace(&tree, "."))
    }

    #[rstest]
    #[case(&[], &["module/in-use", "module/load", "probe/list"])]
    #[case(&["module"], &["module/in-use", "module/load"])]
    #[case(&["in-use", "probe/"], &["module/in-use", "probe/list"])]
    #[case(&["./scenarios/module"], &["module/in-use", "module/load"])]
    #[case(&["./scenarios/probe/list.yaml", "list", "./scenarios/probe"], &["probe/list"])]
    #[case(&["./alone.yaml"], &["alone"])]
    fn scenarios_are_found(tree: TempDir, #[case] wanted: &[&str], #[case] expected: &[&str]) {
        assert_eq!(ids(&tree, wanted).unwrap(), expected);
    }

    #[rstest]
    #[case(&["in-us2"], "no scenario matches `in-us2`\ndid you mean `in-use`?")]
    #[case(&["lorem"], "no scenario matches `lorem`")]
    #[case(&["./empty"], "no scenarios in `./empty`")]
    fn what_is_not_there_is_told(tree: TempDir, #[case] wanted: &[&str], #[case] expected: &str) {
        assert_eq!(ids(&tree, wanted).unwrap_err(), expected);
    }

    #[rstest]
    fn limits_are_of_scenarios_that_there_are(tree: TempDir) {
        let root = tree.path().join("scenarios");
        let limits = |text: &str| {
            fs::write(root.join("limits.yaml"), text).unwrap();
            load_limits(&root).map(|limits| limits.len()).map_err(|error| error.to_string())
        };
        let text = "- scenario: module/load\n  on: { arch: arm, reason: CONFIG_X }\n  ends: fail\n";
        assert_eq!(limits(text), Ok(1));
        let error = limits(&text.replace("module/load", "module/laod")).unwrap_err();
        assert!(
            error.contains("limits.yaml:1:13\n") && error.contains("did you mean `module/load`?"),
            "{error}"
        );
        fs::remove_file(root.join("limits.yaml")).unwrap();
        assert_eq!(load_limits(&root).unwrap().len(), 0);
    }

    #[rstest]
    fn two_files_of_one_id_are_refused(tree: TempDir) {
        fs::create_dir_all(tree.path().join("other/scenarios/module")).unwrap();
        fs::write(tree.path().join("other/scenarios/module/load.yaml"), "name: x\n").unwrap();
        let error = ids(&tree, &["load", "./other/scenarios"]).unwrap_err();
        let expected = "`./other/scenarios/module/load.yaml` and `./scenarios/module/load.yaml` are both the scenario \
                        `module/load`\nrename one of them";
        assert_eq!(error, expected);
    }

    #[rstest]
    fn a_file_that_is_no_text_is_refused(tree: TempDir) {
        fs::write(tree.path().join("scenarios/module/load.yaml"), b"name: \xff\n").unwrap();
        let error = ids(&tree, &["load"]).unwrap_err();
        assert!(error.starts_with("error: not UTF-8\n --> ./scenarios/module/load.yaml:1:7\n"), "{error}");
    }
}
