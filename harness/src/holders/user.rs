//! What the kernel shows to user space about who uses a module.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::unescape;
use super::{Holder, Kind, Task};

/// How files are read, so that the same look serves this machine, a guest, and a record. What is not there, or may
/// not be read, is None or empty: processes come and go while they are looked at.
pub trait Files {
    /// A file's text.
    fn read(&mut self, path: &str) -> Option<String>;
    /// The names in a directory.
    fn list(&mut self, path: &str) -> Vec<String>;
    /// What a symbolic link says.
    fn link(&mut self, path: &str) -> Option<String>;
    /// The name of a socket's protocol, as `/proc/net/protocols` has it, by the descriptor's path in `/proc`: the
    /// attribute `system.sockprotoname` (`sockfs_xattr_get()` in the kernel's `net/socket.c`).
    fn protocol(&mut self, path: &str) -> Option<String>;
}

/// Looks for what uses a module: dependents, open devices and mappings of them, sockets of its protocols, mounts, and
/// network interfaces.
///
/// A device belongs to the module by its driver (`driver`), or, where the kernel shows none, by a name in
/// `/proc/devices` or `/proc/misc` that is the module's (`name`). A reference that shows in no file is not found.
pub fn collect(module: &str, files: &mut impl Files) -> Vec<Holder> {
    let module = &module.replace('-', "_");
    let drivers = drivers(module, files);
    let devices = devices(module, &drivers, files);
    let mut holders: Vec<Holder> = files
        .list(&format!("/sys/module/{module}/holders"))
        .iter()
        .map(|name| Holder { references: Some(1), ..Holder::new(Kind::Dependent, "symbols", Some(name)) })
        .collect();
    let protocols = protocols(&files.read("/proc/net/protocols").unwrap_or_default(), module);
    holders.extend(tasks(&devices, &protocols, files));
    holders.extend(mounts(&files.read("/proc/mounts").unwrap_or_default(), module, &devices));
    for name in files.list("/sys/class/net") {
        let driver = files.read(&format!("/sys/class/net/{name}/device/uevent"));
        if driver.is_some_and(|text| value(&text, "DRIVER").is_some_and(|name| drivers.contains(name))) {
            holders
                .push(Holder { references: Some(0), ..Holder::new(Kind::Interface, "driver", Some(&name)) });
        }
    }
    // Sockets that no process has, or none whose descriptors may be read.
    let seen: BTreeSet<String> = sockets_of(&holders).map(str::to_owned).collect();
    let unseen = protocols.into_iter().filter(|(name, count)| *count > 0 && !seen.contains(name));
    holders.extend(unseen.map(|(name, _)| Holder::new(Kind::Socket, "protocol", Some(&name))));
    holders
}

/// The names of the module's drivers; the directory has them as `BUS:NAME`.
fn drivers(module: &str, files: &mut impl Files) -> BTreeSet<String> {
    let names = files.list(&format!("/sys/module/{module}/drivers"));
    names.iter().filter_map(|name| Some(name.split_once(':')?.1.to_owned())).collect()
}

/// The paths of the module's devices, and by what each is the module's.
fn devices(
    module: &str,
    drivers: &BTreeSet<String>,
    files: &mut impl Files,
) -> BTreeMap<String, &'static str> {
    let numbers = files.read("/proc/devices").unwrap_or_default();
    let misc = files.read("/proc/misc").unwrap_or_default();
    let mut found = BTreeMap::new();
    for class in ["char", "block"] {
        for number in files.list(&format!("/sys/dev/{class}")) {
            let place = format!("/sys/dev/{class}/{number}");
            let Some(about) = files.read(&format!("{place}/uevent")) else { continue };
            let Some(name) = value(&about, "DEVNAME") else { continue };
            let driver = files.read(&format!("{place}/device/uevent"));
            let via = match driver.as_deref().and_then(|text| value(text, "DRIVER")) {
                Some(driver) if drivers.contains(driver) => "driver",
                Some(_) => continue,
                None if is_named(module, class, &number, &numbers, &misc) => "name",
                None => continue,
            };
            found.insert(format!("/dev/{name}"), via);
        }
    }
    found
}

/// Whether a device number is registered under the module's name.
fn is_named(module: &str, class: &str, number: &str, numbers: &str, misc: &str) -> bool {
    let Some((major, minor)) = number.split_once(':') else { return false };
    let heading = if class == "char" { "Character devices:" } else { "Block devices:" };
    let section =
        numbers.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.is_empty());
    let entry = |line: &str| line.trim().split_once(' ').map(|(n, name)| (n.to_owned(), name.to_owned()));
    let same = |name: &str| name.replace('-', "_") == module;
    section.filter_map(entry).any(|(n, name)| {
        n == major
            && (same(&name)
                || class == "char"
                    && name == "misc"
                    && misc.lines().filter_map(entry).any(|(n, name)| n == minor && same(&name)))
    })
}

/// The value of `NAME=VALUE` in a device's `uevent`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// What processes have of the module's devices and protocols.
fn tasks(
    devices: &BTreeMap<String, &'static str>,
    protocols: &BTreeMap<String, i64>,
    files: &mut impl Files,
) -> Vec<Holder> {
    let mut holders = Vec::new();
    if devices.is_empty() && protocols.is_empty() {
        return holders;
    }
    let mut pids: Vec<u32> = files.list("/proc").iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let comm = files.read(&format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
        let mut found = descriptors(pid, devices, protocols, files);
        let maps = files.read(&format!("/proc/{pid}/maps")).unwrap_or_default();
        found.extend(maps.lines().filter_map(|line| mapping(line, devices)));
        let task = Some(Task { pid, comm });
        holders.extend(found.into_iter().map(|holder| Holder { task: task.clone(), ..holder }));
    }
    holders
}

fn descriptors(
    pid: u32,
    devices: &BTreeMap<String, &'static str>,
    protocols: &BTreeMap<String, i64>,
    files: &mut impl Files,
) -> Vec<Holder> {
    let mut fds: Vec<u32> =
        files.list(&format!("/proc/{pid}/fd")).iter().filter_map(|name| name.parse().ok()).collect();
    fds.sort_unstable();
    let mut holders = Vec::new();
    for fd in fds {
        let entry = format!("/proc/{pid}/fd/{fd}");
        let Some(path) = files.link(&entry) else { continue };
        let holder = if let Some(via) = devices.get(&path) {
            Holder::new(Kind::File, via, Some(&path))
        } else if !protocols.is_empty() && path.starts_with("socket:") {
            let name = files.protocol(&entry).filter(|name| protocols.contains_key(name));
            let Some(name) = name else { continue };
            Holder::new(Kind::Socket, "protocol", Some(&name))
        } else {
            continue;
        };
        holders.push(Holder { fd: Some(fd), ..holder });
    }
    holders
}

/// A line of `/proc/PID/maps`: `START-END PERMISSIONS OFFSET DEVICE INODE   PATH`.
fn mapping(line: &str, devices: &BTreeMap<String, &'static str>) -> Option<Holder> {
    let path = line.get(line.find('/')?..)?;
    let holder = Holder::new(Kind::Mapping, devices.get(path)?, Some(path));
    Some(Holder { place: line.split(' ').next().map(str::to_owned), ..holder })
}

/// `SOURCE TARGET TYPE …`, as `/proc/mounts` has them.
fn mounts(text: &str, module: &str, devices: &BTreeMap<String, &'static str>) -> Vec<Holder> {
    let mut holders = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').map(unescape);
        let (Some(source), Some(target), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let vias = [
            (kind.replace('-', "_") == module).then_some("filesystem"),
            devices.contains_key(&source).then_some("disk"),
        ];
        for via in vias.into_iter().flatten() {
            holders
                .push(Holder { place: Some(target.clone()), ..Holder::new(Kind::Mount, via, Some(&source)) });
        }
    }
    holders
}

/// The protocols of the module, and how many sockets each has, -1 where it does not count them; the layout is that of
/// `proto_seq_printf()` in the kernel's `net/core/sock.c`.
fn protocols(text: &str, module: &str) -> BTreeMap<String, i64> {
    let rows = text.lines().skip(1).filter_map(|line| {
        // A name may have spaces in it, so that columns are counted from the one that is `yes` or `no` behind them.
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = words.iter().rposition(|word| *word == module)?;
        let name = words.get(..at.checked_sub(6)?)?.join(" ");
        Some((name, words.get(at.checked_sub(5)?)?.parse().ok()?))
    });
    rows.collect()
}

fn sockets_of(holders: &[Holder]) -> impl Iterator<Item = &str> {
    let sockets = holders.iter().filter(|holder| holder.kind == Kind::Socket);
    sockets.filter_map(|holder| holder.name.as_deref())
}
