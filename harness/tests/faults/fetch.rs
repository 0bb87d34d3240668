//! Kernels and userland that cannot be fetched, or only in part. The archive is one of the test's own, behind programs that
//! stand for apt's: so that it holds still when it is to be killed, and needs no network.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fs_err as fs;
use kmodlab::image::cache::sha256_file;
use kmodlab::process::Command;
use kmodlab::work::Cancel;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::project::{Kmodlab, Project, prepared_cache};
use crate::signals::leftovers;
use crate::{IMAGE, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("fetch::no_network_is_an_error_that_names_the_way_out", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
            // Nothing listens on the port `discard`.
            let nowhere = project.run(&[]).cache(&project.path("cache"));
            let ended = nowhere.env("KMODLAB_DEBIAN_MIRROR", "http://127.0.0.1:9/debian").finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
            ended.expect_words(&[
                "Debian's packages cannot be fetched",
                "is the network there? `KMODLAB_DEBIAN_MIRROR` can name another mirror",
            ]);
            assert_eq!(leftovers(&project.path("cache")), Vec::<String>::new());
        }),
        trial("fetch::sigkill_in_a_download_leaves_nothing_that_is_used", || {
            let archive = Archive::new();
            fs::write(archive.dir.join("hold"), "").unwrap();
            let run = archive.fetch().start();
            run.wait_for_process("sleep 1000");
            let ended = run.end_by(Signal::KILL);
            assert_eq!(ended.code, None, "{ended:#?}");
            archive.expect_recovery();
        }),
        trial("fetch::sigint_in_a_download_leaves_nothing", || {
            let archive = Archive::new();
            fs::write(archive.dir.join("hold"), "").unwrap();
            let run = archive.fetch().start();
            run.wait_for_process("sleep 1000");
            let ended = run.end_by(Signal::INT);
            assert_eq!(ended.code, Some(130), "{ended:#?}");
            assert_eq!(leftovers(&archive.project.path("cache")), Vec::<String>::new());
            archive.expect_recovery();
        }),
        trial("fetch::sigkill_while_a_package_is_unpacked_leaves_nothing_that_is_used", || {
            let archive = Archive::new();
            let run = archive.fetch().start();
            run.wait_for_words("unpack busybox-static");
            run.signal(Signal::KILL);
            assert_eq!(run.finish().code, None);
            archive.expect_recovery();
        }),
        trial("fetch::a_download_that_is_cut_short_is_not_used", || {
            let archive = Archive::new();
            fs::write(archive.dir.join("cut"), "").unwrap();
            let ended = archive.fetch().finish();
            assert_eq!(ended.code, Some(125), "{ended:#?}");
            ended.expect_words(&[
                "the download of `busybox-static 1 amd64` has another checksum than the index says",
            ]);
            archive.expect_recovery();
        }),
        trial("fetch::a_damaged_package_is_fetched_again", || {
            let archive = Archive::new();
            assert_eq!(archive.fetch().finish().code, Some(0));
            let unpacked = archive.unpacked();
            fs::write(&unpacked, "no busybox").unwrap();
            let ended = archive.fetch().finish();
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            ended.expect_words(&[
                "cached `busybox-static 1 amd64` was altered: it is discarded and made anew",
            ]);
            assert_eq!(fs::read(unpacked).unwrap(), archive.busybox);
        }),
    ]
}

/// An archive that has one package, and a project whose cache lacks only that.
struct Archive {
    project: Project,
    dir: PathBuf,
    busybox: Vec<u8>,
}

impl Archive {
    fn new() -> Self {
        let project = Project::new();
        let dir = project.path("archive");
        let cache = project.cache(&["resolved", "packages", "initramfs"]);
        for (kind, wanted) in [("resolved", "linux-image-"), ("packages", "linux-")] {
            link_entries(&cache, kind, |label| label.starts_with(wanted));
        }
        let shared = entries("packages").into_iter();
        let busybox = shared.map(|(entry, label)| (entry.join("busybox"), label));
        let mut busybox = busybox.filter(|(file, label)| file.exists() && label.ends_with(" amd64"));
        let busybox = fs::read(busybox.next().expect("the image has a busybox").0).unwrap();
        let archive = Archive { project, dir, busybox };
        archive.build_package();
        archive.write_programs();
        archive
    }

    /// The package, big enough to be killed over, as dpkg-deb makes it.
    fn build_package(&self) {
        let tree = self.dir.join("tree");
        for folder in ["DEBIAN", "bin", "usr/share"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        let control = "Package: busybox-static\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\nDescription: none\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::write(tree.join("bin/busybox"), &self.busybox).unwrap();
        fs::write(tree.join("usr/share/ballast"), vec![0; 48 << 20]).unwrap();
        let mut build = Command::new("dpkg-deb");
        build
            .args(["-Zgzip", "-z1", "--root-owner-group", "--build"])
            .arg(&tree)
            .arg(self.dir.join("package.deb"));
        build.check(&Cancel::new().unwrap()).unwrap();
        fs::remove_dir_all(tree).unwrap();
    }

    fn write_programs(&self) {
        let dir = self.dir.display();
        let package = self.dir.join("package.deb");
        let mut stanza = String::from("Package: busybox-static\nVersion: 1\nArchitecture: amd64\n");
        let size = fs::metadata(&package).unwrap().len();
        writeln!(stanza, "SHA256: {}\nSize: {size}", sha256_file(&package).unwrap()).unwrap();
        let show = format!("#!/bin/sh\ncat <<'END'\n{stanza}END\n");
        // With `hold` it stops in the middle, once; with `cut` it ends there, once.
        let get = format!(
            "#!/bin/sh\ncase \" $* \" in *' download '*) ;; *) exit 0 ;; esac\n\
             if rm '{dir}/hold' 2>/dev/null; then head -c 100000 '{dir}/package.deb' >x.deb; exec sleep 1000; fi\n\
             if rm '{dir}/cut' 2>/dev/null; then head -c 100000 '{dir}/package.deb' >x.deb; exit 0; fi\n\
             cp '{dir}/package.deb' x.deb\n"
        );
        for (name, text) in [("apt-cache", show), ("apt-get", get)] {
            let file = self.dir.join("bin").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// `kmodlab image fetch`, which finds this archive.
    fn fetch(&self) -> Kmodlab {
        let path = std::env::var_os("PATH").unwrap();
        let path = std::iter::once(self.dir.join("bin")).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).unwrap();
        let fetch = self.project.kmodlab(&["image", "fetch", IMAGE]).cache(&self.project.path("cache"));
        fetch.env("PATH", path).env("KMODLAB_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    }

    /// The next time all goes well, and nothing of the last time is used or left.
    fn expect_recovery(&self) {
        let ended = self.fetch().finish();
        assert_eq!((ended.code, ended.says("warning")), (Some(0), 0), "{ended:#?}");
        ended.expect_words(&["unpack busybox-static amd64 ..."]);
        assert_eq!(fs::read(self.unpacked()).unwrap(), self.busybox);
        assert_eq!(leftovers(&self.project.path("cache")), Vec::<String>::new());
    }

    /// The busybox in the only entry that is no link.
    fn unpacked(&self) -> PathBuf {
        let entries = fs::read_dir(self.project.path("cache/packages")).unwrap();
        let mut own = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_dir());
        own.next().expect("it was unpacked").path().join("busybox")
    }
}

/// The entries of a kind in the shared cache, with their labels.
fn entries(kind: &str) -> Vec<(PathBuf, String)> {
    let label = |entry: &Path| {
        let manifest = fs::read(entry.join(".manifest.json")).ok()?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
        Some(manifest["label"].as_str()?.to_owned())
    };
    let paths = fs::read_dir(prepared_cache().join(kind)).unwrap().map(|entry| entry.unwrap().path());
    paths.filter_map(|path| label(&path).map(|label| (path, label))).collect()
}

fn link_entries(cache: &Path, kind: &str, wanted: impl Fn(&str) -> bool) {
    fs::create_dir(cache.join(kind)).unwrap();
    for (entry, _) in entries(kind).iter().filter(|(_, label)| wanted(label)) {
        symlink(entry, cache.join(kind).join(entry.file_name().unwrap())).unwrap();
    }
}
