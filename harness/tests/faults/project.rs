//! Projects made for one test, and the command run on them.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use fs_err as fs;
use kmodlab::image::cache::Cache;
use kmodlab::process::{Command, Process};
use kmodlab::work::Unwatched;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{self, Found};
use crate::{IMAGE, common};

/// A folder with images, scenarios and the test module `fault`.
pub(crate) struct Project {
    dir: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in(common::kept()).unwrap();
        for folder in ["images", "scenarios", "test-modules"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let image = format!("images/{IMAGE}.yaml");
        fs::copy(common::repository().join(&image), dir.path().join(&image)).unwrap();
        let project = Project { dir };
        project.module("fault")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Adds one of the modules that lie beside these tests.
    fn module(self, name: &str) -> Self {
        let source = common::repository().join("harness/tests/faults/modules").join(name);
        symlink(source, self.path("test-modules").join(name)).unwrap();
        self
    }

    /// Adds a scenario: what comes behind its name.
    pub(crate) fn scenario(self, name: &str, rest: &str) -> Self {
        fs::write(self.path(&format!("scenarios/{name}.yaml")), format!("name: {name}\n{rest}")).unwrap();
        self
    }

    /// Adds to the image's kernel arguments.
    pub(crate) fn kernel_argument(self, argument: &str) -> Self {
        let file = self.path(&format!("images/{IMAGE}.yaml"));
        let text = fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_once("\ncmdline: [").unwrap();
        fs::write(file, format!("{before}\ncmdline: [{argument}, {after}")).unwrap();
        self
    }

    /// A command on this project.
    pub(crate) fn kmodlab(&self, args: &[&str]) -> Kmodlab {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
        command.arg("--root").arg(self.dir.path()).args(args);
        command.env("XDG_STATE_HOME", self.path("state"));
        Kmodlab { command }
    }

    /// `kmodlab run` on all scenarios, reporting as JSON too.
    pub(crate) fn run(&self, args: &[&str]) -> Kmodlab {
        self.kmodlab(
            &[&["run", "--format", "json", "--artifacts", self.path("artifacts").to_str().unwrap()], args]
                .concat(),
        )
    }

    /// A cache of this test's own. What is prepared of the image is that of the shared cache, but for the kinds in `own`, of
    /// which it has none.
    pub(crate) fn cache(&self, own: &[&str]) -> PathBuf {
        let cache = self.path("cache");
        fs::create_dir(&cache).unwrap();
        link_prepared(&cache, own);
        cache
    }
}

/// Links the kinds of entries that an image is prepared from, without those in `own`, into a cache.
pub(crate) fn link_prepared(cache: &Path, own: &[&str]) {
    for kind in ["resolved", "packages", "kernels", "agents", "initramfs", "kvm"] {
        let source = prepared_cache().join(kind);
        if !own.contains(&kind) && source.exists() {
            symlink(source, cache.join(kind)).unwrap();
        }
    }
}

/// The cache that all tests share, in which the image is prepared.
pub(crate) fn prepared_cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let ended = Project::new().kmodlab(&["image", "fetch", IMAGE]).finish();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        Cache::open(None, Arc::new(Unwatched)).unwrap().root().to_owned()
    })
}

/// The command, not started yet.
pub(crate) struct Kmodlab {
    command: Command,
}

/// The command under way.
pub(crate) struct Running {
    process: Process,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: [JoinHandle<Vec<u8>>; 2],
}

/// The command, over.
pub(crate) struct Ended {
    /// Its exit code; nothing if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The bytes of both.
    pub(crate) raw: Vec<u8>,
}

impl Kmodlab {
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn cache(mut self, cache: &Path) -> Self {
        self.command.arg("--cache").arg(cache);
        self
    }

    pub(crate) fn start(self) -> Running {
        let mut process = self.command.spawn(Stdio::piped(), Stdio::piped()).unwrap();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            read(process.take_stdout().unwrap(), Arc::default()),
            read(process.take_stderr().unwrap(), Arc::clone(&stderr)),
        ];
        Running { process, stderr, readers }
    }

    pub(crate) fn finish(self) -> Ended {
        self.start().finish()
    }

    /// Runs it with its standard output into a file.
    pub(crate) fn finish_into(self, file: &str) -> Ended {
        let stdout = fs::File::options().write(true).open(file).unwrap().into_file();
        let mut process = self.command.spawn(stdout.into(), Stdio::piped()).unwrap();
        let raw = read(process.take_stderr().unwrap(), Arc::default()).join().unwrap();
        let stderr = String::from_utf8_lossy(&raw).into_owned();
        Ended { code: process.wait().unwrap().code(), stdout: String::new(), stderr, raw }
    }
}

fn read(from: OwnedFd, seen: Arc<Mutex<Vec<u8>>>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut from = std::fs::File::from(from);
        let mut buffer = [0; 4096];
        loop {
            let count = from.read(&mut buffer).unwrap();
            let mut seen = seen.lock().unwrap();
            if count == 0 {
                return seen.clone();
            }
            seen.extend_from_slice(&buffer[..count]);
        }
    })
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    fn wait_until<T>(&self, what: &str, find: impl FnMut() -> Option<T>) -> T {
        let found = processes::wait_until(self.id(), what, find);
        found.unwrap_or_else(|error| panic!("{error}\n{}", self.said()))
    }

    /// Waits until it has said `words` so many times on standard error.
    pub(crate) fn wait_for_times(&self, words: &str, times: usize) {
        self.wait_until(words, || (self.said().matches(words).count() >= times).then_some(()));
    }

    /// Waits until it has said `words` on standard error.
    pub(crate) fn wait_for_words(&self, words: &str) {
        self.wait_until(words, || self.said().contains(words).then_some(()));
    }

    /// Waits for a process that descends from it and whose command line contains `words`.
    pub(crate) fn wait_for_process(&self, words: &str) -> Found {
        let find =
            || processes::descendants(self.id()).into_iter().find(|child| child.command.contains(words));
        self.wait_until(words, find)
    }

    /// Sends a signal, and sees that nothing that it had started goes on.
    pub(crate) fn end_by(self, signal: Signal) -> Ended {
        let family = processes::descendants(self.id());
        assert!(!family.is_empty(), "nothing was under way\n{}", self.said());
        self.signal(signal);
        let ended = self.finish();
        processes::expect_gone(&family);
        ended
    }

    pub(crate) fn finish(mut self) -> Ended {
        let status = self.process.wait().unwrap();
        let [stdout, stderr] = self.readers.map(|reader| reader.join().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: status.code(),
            stdout: text(&stdout),
            stderr: text(&stderr),
            raw: [stdout, stderr].concat(),
        }
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Ended {
    /// The JSON report.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self:#?}"))
    }

    /// The only case of the report.
    pub(crate) fn case(&self) -> Case {
        let report = self.report();
        assert_eq!(report["cases"].as_array().map(Vec::len), Some(1), "{self:#?}");
        Case(report["cases"][0].clone())
    }

    /// The only case, which must have passed.
    pub(crate) fn expect_pass(&self) -> Case {
        assert_eq!(self.code, Some(0), "{self:#?}");
        let case = self.case();
        assert_eq!(case.outcome(), "pass", "{self:#?}");
        case
    }

    /// How often standard error says `words`.
    pub(crate) fn says(&self, words: &str) -> usize {
        self.stderr.matches(words).count()
    }

    /// Fails unless standard error says `words`.
    pub(crate) fn expect_words(&self, words: &[&str]) {
        for words in words {
            assert!(self.stderr.contains(words), "it does not say `{words}`: {self:#?}");
        }
    }
}

/// A case of a JSON report.
#[derive(Debug)]
pub(crate) struct Case(Value);

impl Case {
    pub(crate) fn outcome(&self) -> &str {
        self.0["outcome"].as_str().unwrap()
    }

    pub(crate) fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// How the guest came up; nothing if it did not.
    pub(crate) fn start(&self) -> Option<&str> {
        self.0["start"]["kind"].as_str()
    }

    /// Milliseconds that the case took.
    pub(crate) fn ms(&self) -> u64 {
        self.0["ms"].as_u64().unwrap()
    }
}
