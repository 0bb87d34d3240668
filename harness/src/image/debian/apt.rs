//! Debian's archive, through `apt-get` with directories of its own: neither root nor the host's apt state is touched.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Error, MIRROR, Package};
use crate::image::cache::{Cache, Scratch, sha256_file};
use crate::image::spec::DebianName;
use crate::process::{self, Command};
use crate::work::{Cancel, Watch, Work};

/// An index takes so much, with apt's cache of it. Where apt-get meets a full disk it may wait for ever.
const INDEX_BYTES: u64 = 128 << 20;
/// A package, and what is unpacked from it, come to so many times its size.
const UNPACKED: u64 = 4;
/// How long apt may make no progress; its own time limits are shorter.
const STALLED: Duration = Duration::from_secs(180);

/// What apt takes to be installed: what packages depend on only for their maintainer scripts, which nobody runs here, and
/// that would bring Perl.
const INSTALLED: &str = "Package: debconf\nStatus: install ok installed\nVersion: 999\nArchitecture: all\n\
    Multi-Arch: foreign\nProvides: debconf-2.0\nMaintainer: nobody\nDescription: a stand-in\n\n";

/// The keys that the archive signs its indexes with, as the package `debian-archive-keyring` has them.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Which of a suite's indexes: that of packages or that of their sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Index {
    Packages,
    Sources,
}

/// One suite of the archive, for an architecture and the host's own, its index fetched.
pub(super) struct Archive<'a> {
    cache: Cache,
    dir: Scratch,
    suite: String,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
}

/// What the index says of one package.
pub(super) struct Stanza {
    pub(super) package: Package,
    depends: String,
}

impl<'a> Archive<'a> {
    /// Fetches an index of `suite` for the architectures.
    pub(super) fn open(
        cache: &Cache,
        suite: &str,
        index: Index,
        architectures: &[&str],
        watch: &'a dyn Watch,
        cancel: &'a Cancel,
    ) -> Result<Self, Error> {
        let mirror = mirror(cancel)?;
        if !Path::new(KEYRING).exists() {
            return Err(Error::NoKeyring { path: KEYRING });
        }
        let (kind, targets, of) = match index {
            Index::Packages => ("deb", "Packages", architectures.join(", ")),
            Index::Sources => ("deb-src", "Sources", "sources".to_owned()),
        };
        let label = format!("Debian's index of {suite} for {of}");
        cache.require(&label, INDEX_BYTES * architectures.len() as u64)?;
        let dir = cache.scratch()?;
        for sub in
            ["lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d"]
        {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("status"), INSTALLED)?;
        let source = format!("{kind} [signed-by={KEYRING} targets={targets}] {mirror} {suite} main\n");
        fs::write(dir.join("etc/sources.list"), source)?;
        fs::write(dir.join("apt.conf"), configuration(&dir, architectures)?)?;
        let archive = Archive { cache: cache.clone(), dir, suite: suite.to_owned(), watch, cancel };
        let _work = Work::begin(watch, format!("update {label}"));
        let mut update = archive.command("apt-get");
        update.arg("update");
        archive.run(update, &|_| ())?;
        Ok(archive)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.dir.join("apt.conf")).arg("-qq");
        command
    }

    /// What the index says of a package: of that very version, or of the newest.
    pub(super) fn show(
        &self,
        name: &str,
        architecture: &str,
        version: Option<&str>,
    ) -> Result<Stanza, Error> {
        let version = version.map(|version| format!("={version}")).unwrap_or_default();
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions"]).arg(format!("{name}:{architecture}{version}"));
        let output = command.output(self.cancel)?;
        let stanza = String::from_utf8_lossy(&output.stdout).into_owned();
        Stanza::parse(&stanza).filter(|_| output.status.success()).ok_or_else(|| Error::NoPackage {
            package: format!("{name}{version}"),
            architecture: architecture.to_owned(),
            suite: self.suite.clone(),
        })
    }

    /// What the index of sources says of the sources that a package is built from: of that very version, or of the newest. Its checksum is
    /// that of the `.dsc` file, which has those of the other files; the size is that of all of them.
    pub(super) fn show_source(&self, name: &str, version: Option<&str>) -> Result<Package, Error> {
        let mut command = self.command("apt-cache");
        command.args(["showsrc", "--only-source", name]);
        let output = command.output(self.cancel)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.split("\n\n").filter_map(source_stanza);
        let found = found.filter(|package| version.is_none_or(|version| package.version == version)).last();
        found.filter(|_| output.status.success()).ok_or_else(|| Error::NoPackage {
            package: version.map_or(name.to_owned(), |version| format!("{name}={version}")),
            architecture: SOURCE.to_owned(),
            suite: self.suite.clone(),
        })
    }

    /// Downloads the files of sources into a directory, where apt checks them against the index; gives the `.dsc` file.
    pub(super) fn download_source(&self, package: &Package, dir: &Path) -> Result<PathBuf, Error> {
        let Package { name, version, size, sha256, .. } = package;
        self.cache.require(&package.to_string(), size.saturating_mul(UNPACKED))?;
        let work = Work::begin(self.watch, format!("download the sources of {name}"));
        let mut command = self.command("apt-get");
        command
            .args(["source", "--download-only", "--only-source"])
            .arg(format!("{name}={version}"))
            .dir(dir);
        self.run(command, &|part| work.progress((*size as f64 * part) as u64, *size))?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "dsc") && sha256_file(&path)? == *sha256
            {
                return Ok(path);
            }
        }
        Err(Error::Checksum { package: package.to_string() })
    }

    /// Of the packages that have that name, or it and a further number (`linux-kbuild-6.12.90+deb12`), the newest.
    pub(super) fn newest(&self, name: &str, architecture: &str) -> Result<Stanza, Error> {
        let mut command = self.command("apt-cache");
        command.arg("pkgnames").arg(name);
        let output = command.check(self.cancel)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let further = |found: &&str| {
            found.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let numbers = |name: &str| -> Vec<u32> {
            name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
        };
        let newest = text.lines().filter(further).max_by_key(|name| numbers(name));
        self.show(newest.unwrap_or(name), architecture, None)
    }

    /// Packages, and everything that they depend on, as apt resolves it.
    pub(super) fn closure(&self, names: &[DebianName], architecture: &str) -> Result<Vec<Package>, Error> {
        // Says which one there is not.
        for name in names {
            self.show(name, architecture, None)?;
        }
        let mut command = self.command("apt-get");
        command.args(["--simulate", "--no-install-recommends", "install"]);
        command.args(names.iter().map(|name| format!("{name}:{architecture}")));
        let output = command.check(self.cancel).map_err(|error| match error {
            process::Error::Failed { output, .. } => {
                Error::Unresolved { packages: names.iter().map(ToString::to_string).collect(), output }
            }
            error => error.into(),
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let package = |(name, version): (&str, &str)| {
            Ok(self.show(name.split(':').next().unwrap_or(name), architecture, Some(version))?.package)
        };
        text.lines().filter_map(installed).map(package).collect()
    }

    /// Downloads a package into an empty directory, and checks it.
    pub(super) fn download(&self, package: &Package, dir: &Path) -> Result<PathBuf, Error> {
        self.cache.require(&package.to_string(), package.size.saturating_mul(UNPACKED))?;
        let work = Work::begin(self.watch, format!("download {} {}", package.name, package.architecture));
        let mut command = self.command("apt-get");
        let Package { name, version, architecture, .. } = package;
        command.arg("download").arg(format!("{name}:{architecture}={version}")).dir(dir);
        self.run(command, &|part| work.progress((package.size as f64 * part) as u64, package.size))?;
        let file = fs::read_dir(dir)?.next().transpose()?.map(|entry| entry.path());
        match file {
            Some(file) if sha256_file(&file)? == package.sha256 => Ok(file),
            _ => Err(Error::Checksum { package: package.to_string() }),
        }
    }

    /// Runs apt-get to its end; `progress` is told how much of the work is done, from 0 to 1.
    fn run(&self, mut command: Command, progress: &dyn Fn(f64)) -> Result<(), Error> {
        command.args(["-o", "APT::Status-Fd=1"]);
        let line = command.line();
        let errors = self.dir.join("errors");
        let mut process =
            command.spawn(Stdio::piped(), Stdio::from(fs::File::create(&errors)?.into_file()))?;
        if let Some(out) = process.take_stdout() {
            let mut last = None;
            read_lines(fs::File::from_parts(out.into(), "apt-get"), self.cancel, &mut |line| {
                let Some(percent) = percent(line).filter(|percent| last != Some(*percent)) else {
                    return false;
                };
                last = Some(percent);
                progress(percent / 100.0);
                true
            })?;
        }
        let status = process.wait()?;
        let output = process::tail(&String::from_utf8_lossy(&fs::read(&errors)?), 20);
        match status.success() {
            true => Ok(()),
            false => Err(process::Error::Failed { program: line, status, output }.into()),
        }
    }
}

/// The architecture that packages of sources are said to have.
const SOURCE: &str = "source";

/// Reads a paragraph of the index of sources: deb-src-control(5).
fn source_stanza(text: &str) -> Option<Package> {
    let field = |name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned()))
    };
    let files = text.lines().skip_while(|line| !line.starts_with("Checksums-Sha256:")).skip(1);
    let mut dsc = None;
    let mut total = 0;
    for line in files.take_while(|line| line.starts_with(' ')) {
        let mut words = line.split_whitespace();
        let (sha256, size, file) = (words.next()?, words.next()?, words.next()?);
        total += size.parse::<u64>().ok()?;
        if file.ends_with(".dsc") {
            dsc = Some(sha256.to_owned());
        }
    }
    Some(Package {
        name: field("Package")?,
        version: field("Version")?,
        architecture: SOURCE.to_owned(),
        sha256: dsc?,
        size: total,
    })
}

/// Calls `line` with each line that comes, until the end. It says whether the line shows progress.
fn read_lines(mut from: fs::File, cancel: &Cancel, line: &mut dyn FnMut(&str) -> bool) -> Result<(), Error> {
    let mut pending = Vec::new();
    let mut last_progress = Instant::now();
    loop {
        if last_progress.elapsed() >= STALLED {
            return Err(Error::Stalled { seconds: STALLED.as_secs() });
        }
        let (cancelled, ready) = wait(&from, cancel)?;
        if cancelled {
            return Err(process::Error::Cancelled.into());
        }
        if !ready {
            continue;
        }
        let mut buffer = [0; 4096];
        let count = io::Read::read(&mut from, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        pending.extend_from_slice(buffer.get(..count).unwrap_or_default());
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let text: Vec<u8> = pending.drain(..=end).collect();
            if line(String::from_utf8_lossy(&text).trim_end()) {
                last_progress = Instant::now();
            }
        }
    }
}

/// Waits for some seconds at most: whether the request to stop came, and whether there is something to read.
fn wait(from: &fs::File, cancel: &Cancel) -> io::Result<(bool, bool)> {
    let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
    let mut fds = [
        PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok((false, false)),
        Err(errno) => Err(errno.into()),
        Ok(_) => {
            let [cancelled, ready] = fds.map(|fd| !fd.revents().is_empty());
            Ok((cancelled, ready))
        }
    }
}

/// The progress in a line of apt's, `dlstatus:<item>:<per cent>:<text>` (apt's README.progress-reporting).
fn percent(line: &str) -> Option<f64> {
    let mut fields = line.strip_prefix("dlstatus:")?.split(':');
    fields.nth(1)?.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

/// The package, and its version, that a line of apt's simulation says is installed: `Inst libc6 (2.36-9 Debian:12/x [armhf])`.
fn installed(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    Some((name, rest.split(' ').next()?))
}

/// What apt is told: apt.conf(5). The host's own configuration is read before it, so that its proxies serve.
fn configuration(dir: &Path, architectures: &[&str]) -> Result<String, Error> {
    let dir = dir.to_str().filter(|dir| !dir.contains(['"', '\n', '\\']));
    let dir = dir.ok_or_else(|| io::Error::other("the cache's path has characters that apt cannot take"))?;
    let mut text = String::from(
        "#clear APT::Update;\n#clear APT::Architectures;\nAPT::Update::Error-Mode \"any\";\nAPT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\nAcquire::GzipIndexes \"false\";\nDebug::NoLocking \"1\";\nDir::Etc::SourceParts \"-\";\n",
    );
    for (name, path) in [
        ("Dir::State", ""),
        ("Dir::State::Lists", "/lists"),
        ("Dir::State::status", "/status"),
        ("Dir::Cache", ""),
        ("Dir::Cache::archives", "/archives"),
        // Containers turn these off, and each call would parse the index anew.
        ("Dir::Cache::pkgcache", "/pkgcache.bin"),
        ("Dir::Cache::srcpkgcache", "/srcpkgcache.bin"),
        ("Dir::Etc", "/etc"),
        ("Dir::Etc::SourceList", "/etc/sources.list"),
    ] {
        let _ = writeln!(text, "{name} \"{dir}{path}\";");
    }
    let first = architectures.first().unwrap_or(&"");
    let _ = writeln!(text, "APT::Architecture \"{first}\";");
    for architecture in architectures {
        let _ = writeln!(text, "APT::Architectures:: \"{architecture}\";");
    }
    Ok(text)
}

/// The mirror that the environment names, else one that the host's apt uses for Debian's main archive.
///
/// # Errors
///
/// Where neither names one.
pub fn mirror(cancel: &Cancel) -> Result<String, Error> {
    if let Some(mirror) = std::env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty()) {
        return match mirror.contains(|c: char| c.is_whitespace() || c.is_control() || c == '[') {
            true => Err(Error::BadMirror { mirror }),
            false => Ok(mirror),
        };
    }
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(ORIGIN)", "Created-By: Packages"]);
    let targets = command.check(cancel)?;
    main_archive(&String::from_utf8_lossy(&targets.stdout)).ok_or(Error::NoMirror)
}

/// The first of apt's index targets that belongs to Debian's main archive.
fn main_archive(targets: &str) -> Option<String> {
    let uri = |line: &str| match line.split('|').collect::<Vec<_>>()[..] {
        [uri, release, "Debian"] if !release.contains("-security") && !release.contains('/') => {
            Some(uri.trim_end_matches('/').to_owned())
        }
        _ => None,
    };
    targets.lines().find_map(uri)
}

/// Debian's name of the host's architecture.
pub(super) fn host_architecture(cancel: &Cancel) -> Result<String, Error> {
    let mut command = Command::new("dpkg");
    command.arg("--print-architecture");
    let output = command.check(cancel)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Stanza {
    /// Reads a paragraph of the index.
    fn parse(text: &str) -> Option<Stanza> {
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            text.lines().take_while(|line| !line.is_empty()).find_map(value)
        };
        let package = Package {
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
            sha256: field("SHA256")?,
            size: field("Size")?.parse().ok()?,
        };
        Some(Stanza { package, depends: field("Depends").unwrap_or_default() })
    }

    /// The first package that it depends on and whose name is so; with its version where only one will do.
    pub(super) fn dependency(&self, matches: impl Fn(&str) -> bool) -> Option<(String, Option<String>)> {
        let dependency = |text: &str| {
            let mut words = text.split_whitespace();
            let name = words.next()?.split(':').next()?.to_owned();
            let version = (words.next() == Some("(=")).then(|| words.next()).flatten();
            Some((name, version.map(|version| version.trim_end_matches(')').to_owned())))
        };
        self.depends.split([',', '|']).filter_map(dependency).find(|(name, _)| matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_main_archive_and_no_other() {
        let targets = "\
https://other.example/apt/|stable|Other
http://mirror.example/debian-security/|bookworm-security|Debian
http://mirror.example/security/|buster/updates|Debian
http://mirror.example/ubuntu/|noble|Ubuntu
http://mirror.example/some/debian/|bookworm|Debian
http://mirror.example/debian2/|bookworm|Debian
";
        assert_eq!(main_archive(targets).unwrap(), "http://mirror.example/some/debian");
        assert_eq!(main_archive(targets.split_once("/some").unwrap().0), None);
        assert_eq!(main_archive(""), None);
    }

    #[test]
    fn sources_are_read_from_their_index() {
        let text = "Package: busybox\nBinary: busybox, udhcpc\nVersion: 1:1.35.0-4\nFiles:\n 9709 2321 busybox_1.dsc\n\
            Checksums-Sha256:\n 9c01 2321 busybox_1.dsc\n faee 2480624 busybox_1.orig.tar.bz2\nDirectory: pool/main\n";
        let package = source_stanza(text).unwrap();
        assert_eq!(package.to_string(), "busybox 1:1.35.0-4 source");
        assert_eq!((package.sha256.as_str(), package.size), ("9c01", 2_482_945));
        assert_eq!(source_stanza(&text.replace("busybox_1.dsc", "busybox_1.txt")), None);
        assert_eq!(source_stanza(""), None);
    }

    #[test]
    fn progress_is_read_from_status_lines() {
        assert_eq!(percent("dlstatus:1:20.5:Retrieving file 1 of 1 (4s remaining)"), Some(20.5));
        for line in
            ["pmstatus:x:20:y", "dlstatus:1", "dlstatus:1:x:y", "dlstatus:1:1e9:y", "dlstatus:1:NaN:y"]
        {
            assert_eq!(percent(line), None, "{line}");
        }
    }

    #[test]
    fn what_would_be_installed_is_read() {
        assert_eq!(
            installed("Inst libtraceevent1 (1:1.7.1-1 Debian:12.15/oldstable [armhf]) []"),
            Some(("libtraceevent1", "1:1.7.1-1"))
        );
        for line in ["Conf libc6 (2.36-9 Debian:12 [armhf])", "Inst libc6", "", "Remv x (1)"] {
            assert_eq!(installed(line), None, "{line}");
        }
    }

    #[test]
    fn a_paragraph_of_the_index_is_read() {
        let text = "Package: linux-headers-6.1.0-50-amd64\nSource: linux\nVersion: 6.1.176-1\nArchitecture: amd64\n\
                    Depends: linux-headers-6.1.0-50-common (= 6.1.176-1), linux-kbuild-6.1 (>= 6.1.176-1), gcc:any | cc\n\
                    Size: 1480\nSHA256: 45ab\nDescription: x\n Size: 7\n\nPackage: other\n";
        let stanza = Stanza::parse(text).unwrap();
        assert_eq!(stanza.package.to_string(), "linux-headers-6.1.0-50-amd64 6.1.176-1 amd64");
        assert_eq!((stanza.package.size, stanza.package.sha256.as_str()), (1480, "45ab"));
        let dependency = |suffix: &str| stanza.dependency(|name| name.ends_with(suffix));
        assert_eq!(
            dependency("-common").unwrap(),
            ("linux-headers-6.1.0-50-common".into(), Some("6.1.176-1".into()))
        );
        assert_eq!(dependency("-6.1").unwrap(), ("linux-kbuild-6.1".into(), None));
        assert_eq!(dependency("gcc").unwrap(), ("gcc".into(), None));
        assert_eq!(dependency("other"), None);
        assert!(Stanza::parse("").is_none());
    }

    #[test]
    fn a_path_that_apt_would_misread_is_refused() {
        assert!(configuration(Path::new("/a\"b"), &["amd64"]).is_err());
        let text = configuration(Path::new("/a b"), &["armhf", "amd64"]).unwrap();
        assert!(text.contains("Dir::State::Lists \"/a b/lists\";\n"), "{text}");
        assert!(text.ends_with(
            "APT::Architecture \"armhf\";\nAPT::Architectures:: \"armhf\";\nAPT::Architectures:: \"amd64\";\n"
        ));
    }
}
