//! The kernel's tests of tracing, its `tools/testing/selftests/ftrace`. Each test of the suite is a case of its own, so
//! that each gets a guest as it was after the boot.
//!
//! The suite's own words for a result (its `ftracetest`) are kept as the reason of the subtest. PASS and XFAIL pass;
//! UNSUPPORTED, UNTESTED and UNRESOLVED skip; FAIL fails. A test says UNRESOLVED where the kernel or the machine lacks
//! what it needs, and the suite itself counts that as no failure (its option `--fail-unresolved` would).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;

use crate::scenario::expand::Case;
use crate::scenario::step::{Action, Command, GuestPath, ModuleRef, Origin, Run, Step, Write};
use crate::scenario::{ConfigName, Machine, Requires, Scenario, Timeout};
use crate::yaml::{OneOrMany, Position, Spanned};

/// Where the suite is in the kernel's sources.
pub const FOLDER: &str = "tools/testing/selftests/ftrace";
/// Its tests, below that.
const TESTS: &str = "test.d";
/// Runs a test in a guest.
const SCRIPT: &str = include_str!("ftrace.sh");
/// Where the suite lies in a guest.
const IN_GUEST: &str = "/run/ftrace";
/// Some tests do thousands of system calls, which take minutes under emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// The suite of a kernel.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Its folder, as a tar archive.
    archive: String,
    tests: Vec<Test>,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    /// Its file in the suite's folder.
    path: String,
    title: String,
    /// The line that has the title.
    line: u32,
    /// The modules that it loads, as files of the kernel's sources: the kernel's own samples, which few kernels come with.
    modules: Vec<String>,
}

impl Suite {
    /// Reads the suite in a kernel's sources.
    ///
    /// # Errors
    ///
    /// Where it is not there, cannot be read, or has a file that is no text.
    pub fn read(sources: &Path) -> io::Result<Self> {
        let folder = sources.join(FOLDER);
        let mut files = Vec::new();
        collect(&folder, Path::new(""), &mut files)?;
        let modules = modules(sources)?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut tests = Vec::new();
        for path in files {
            let content = fs::read(folder.join(&path))?;
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            archive.append_data(&mut header, &path, &*content)?;
            let name = path.to_string_lossy();
            if path.starts_with(TESTS) && name.ends_with(".tc") {
                tests.push(Test::of(&name, &String::from_utf8_lossy(&content), &modules));
            }
        }
        let archive = String::from_utf8(archive.into_inner()?)
            .map_err(|_| io::Error::other(format!("`{}` has a file that is no text", folder.display())))?;
        Ok(Suite { archive, tests })
    }

    /// The tests whose path in the suite's folder has one of `patterns` in it, or all where there are none, as cases on
    /// `image`, which `arguments` of `kmodlab` choose.
    pub fn cases(&self, patterns: &[String], image: &str, arguments: &str) -> Vec<Case> {
        let wanted = |test: &&Test| {
            patterns.is_empty() || patterns.iter().any(|pattern| test.path.contains(pattern.as_str()))
        };
        self.tests.iter().filter(wanted).map(|test| self.case(test, image, arguments)).collect()
    }

    fn case(&self, test: &Test, image: &str, arguments: &str) -> Case {
        let id = test.path.replacen(TESTS, "ftrace", 1);
        Case {
            id: format!("{id}@{image}"),
            scenario_id: id,
            image: image.to_owned(),
            path: PathBuf::from(FOLDER).join(&test.path),
            again: format!("selftest ftrace {} {arguments}", test.path),
            seed: None,
            limits: Vec::new(),
            scenario: Arc::new(self.scenario(test)),
        }
    }

    fn scenario(&self, test: &Test) -> Scenario {
        let archive = format!("{IN_GUEST}.tar");
        let unpack = ["tar", "-x", "-f", &archive, "-C", IN_GUEST];
        let test_argv = ["sh", "-c", SCRIPT, "sh", &test.path];
        let write = Write {
            path: GuestPath(archive.clone()),
            text: self.archive.clone(),
            append: false,
            errno: None,
        };
        let mut steps = vec![
            step("put the suite into the guest", Action::Write(write)),
            step("make its folder", run(&["mkdir", IN_GUEST], None)),
            step("unpack it", run(&unpack, None)),
        ];
        if !test.modules.is_empty() {
            let module = |file: &String| ModuleRef { name: file.clone().into(), origin: Origin::Source };
            let modules = test.modules.iter().map(module).collect();
            steps.push(step("make modules ready for modprobe", Action::Push(OneOrMany(modules))));
        }
        steps.push(step(&test.path, run(&test_argv, Some(IN_GUEST))));
        let at = Position { line: test.line, column: 1, length: 0 };
        Scenario {
            name: Spanned { value: test.title.clone(), at },
            description: None,
            covers: Vec::new(),
            requires: Requires {
                config: OneOrMany(vec![ConfigName("FTRACE".to_owned())]),
                ..Requires::default()
            },
            machine: Machine::default(),
            packages: OneOrMany::default(),
            timeout: Some(Timeout(LIMIT)),
            steps: Spanned { value: steps.into_iter().map(|value| Spanned { value, at }).collect(), at },
            expect: None,
        }
    }
}

impl Test {
    /// Reads a test's file. `modules` are the modules that there are, by name.
    fn of(path: &str, text: &str, modules: &BTreeMap<String, String>) -> Self {
        let title = |(line, text): (u32, &str)| {
            let title = text.strip_prefix('#')?.trim_start().strip_prefix("description:")?.trim();
            Some((line, title.to_owned()))
        };
        let (line, title) = (1..).zip(text.lines()).find_map(title).unwrap_or((1, path.to_owned()));
        let loaded = text.split("modprobe ").skip(1).filter_map(|rest| {
            let name = rest.split(|c: char| c.is_whitespace() || c == ';').next()?;
            modules.get(name).cloned()
        });
        let modules: BTreeSet<String> = loaded.collect();
        Test { path: path.to_owned(), title, line, modules: modules.into_iter().collect() }
    }
}

/// The files below `dir`, by their paths in `root`, in an order that is always the same.
fn collect(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(dir))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = dir.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => collect(root, &path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// The modules in a kernel's sources, by name, with their files. Those with assembler are left out: they build for the
/// architectures only that it is written for.
fn modules(sources: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = Vec::new();
    for dir in ["samples", "kernel", "lib"].iter().filter(|dir| sources.join(dir).is_dir()) {
        collect(sources, Path::new(dir), &mut files)?;
    }
    let mut modules = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "c")) {
        let assembler = fs::read_to_string(sources.join(file)).map_or(true, |text| text.contains("asm ("));
        if let (Some(name), Some(module), false) = (file.file_stem(), file.parent(), assembler) {
            modules.insert(name.to_string_lossy().into_owned(), module.to_string_lossy().into_owned());
        }
    }
    Ok(modules)
}

fn run(argv: &[&str], cwd: Option<&str>) -> Action {
    Action::Run(Run {
        command: Command::Argv(argv.iter().map(|&word| word.to_owned()).collect()),
        stdin: None,
        env: Default::default(),
        cwd: cwd.map(str::to_owned),
        figures: false,
    })
}

fn step(name: &str, action: Action) -> Step {
    Step { name: Some(name.to_owned()), timeout: Some(Timeout(LIMIT)), expect: None, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_is_a_case() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        fs::create_dir_all(folder.join("test.d/kprobe")).unwrap();
        fs::create_dir_all(folder.join("samples")).unwrap();
        for (file, text) in [("samples/x/a-b.c", "module_init(x);"), ("lib/c.c", "asm (\"nop\");")] {
            let module = dir.path().join(file);
            fs::create_dir_all(&module).unwrap();
            fs::write(module.join(module.file_name().unwrap()), text).unwrap();
        }
        for (name, text) in [
            ("ftracetest", "#!/bin/sh\n"),
            ("samples/pass.tc", "# description: pass-case\n"),
            ("test.d/functions", "LOCALHOST=127.0.0.1\n"),
            ("test.d/kprobe/b.tc", "#!/bin/sh\n# description: Some title\n"),
            ("test.d/kprobe/a.tc", "no title\nif ! modprobe a-b; then\nmodprobe c\nmodprobe $MOD\n"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        let suite = Suite::read(dir.path()).unwrap();
        let cases = suite.cases(&[], "arm", "");
        let shown: Vec<_> =
            cases.iter().map(|case| (case.id.as_str(), case.scenario.name.as_str())).collect();
        assert_eq!(
            shown,
            [("ftrace/kprobe/a.tc@arm", "test.d/kprobe/a.tc"), ("ftrace/kprobe/b.tc@arm", "Some title")]
        );
        assert_eq!(cases[1].scenario.name.at.line, 2);
        assert_eq!(cases[0].scenario.modules(Origin::Source), ["samples/x/a-b.c"]);
        assert!(cases[1].scenario.modules(Origin::Source).is_empty());
        let Action::Write(write) = &cases[0].scenario.steps[0].action else { panic!() };
        let mut archive = tar::Archive::new(write.text.as_bytes());
        assert_eq!(archive.entries().unwrap().count(), 5);
        let some = suite.cases(&["kprobe/b".to_owned(), "other".to_owned()], "arm", "--image arm");
        assert_eq!(
            some.iter().map(|case| case.again.as_str()).collect::<Vec<_>>(),
            ["selftest ftrace test.d/kprobe/b.tc --image arm"]
        );
        assert!(suite.cases(&["samples".to_owned()], "arm", "").is_empty());
        fs::write(folder.join("image"), [0xff]).unwrap();
        assert!(Suite::read(dir.path()).is_err());
    }
}
