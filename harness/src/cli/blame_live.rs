//! `kmodlab blame --live`: this machine's own kernel.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::system::{delete_module, finit_module};
use serde::Serialize;

use super::args::{Blame, Format};
use super::blame::chunk;
use super::{Context, Stop, complain, say};
use crate::blame::Answer;
use crate::holders::{Holder, Host, SCANNER, Scan, collect};
use crate::report::{self, printable};
use crate::trace::ledger::Ledger;

/// Where tracefs is mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// How instances of this command begin; the process's id follows.
const INSTANCE: &str = "kmodlab-live-";
/// What is printed with `--format json`.
#[derive(Serialize)]
struct Document {
    module: String,
    use_count: i64,
    holders: Vec<Holder>,
    scan: Option<Scan>,
    traced: Option<Answer>,
}

/// Says what holds a module now, then watches until the user interrupts, and says what it came to.
pub(super) fn blame(context: &Context, args: &Blame) -> Result<u8, Stop> {
    let Some(module) = args.module.as_ref().map(|name| name.trim_end_matches(".ko").replace('-', "_")) else {
        return Err(Stop::usage("--live needs a module\nsee which are in use: lsmod"));
    };
    use_count(&module)?;
    let instance = Instance::new().map_err(|error| {
        Stop::error(&io::Error::other(format!(
            "cannot trace: {error}\nrun it as root, with tracefs mounted: mount -t tracefs tracefs {}",
            TRACEFS[0]
        )))
    })?;
    // Watching begins before the look, so that nothing is missed in between.
    let io = |error: io::Error| Stop::error(&error);
    let mut pipe = instance.watch(&module).map_err(io)?;
    if module != SCANNER {
        sweep_scanner();
    }
    let scanner = Scanner { file: args.refscan.as_deref() };
    let mut document = Document {
        use_count: use_count(&module)?,
        holders: collect(&module, &mut Host),
        scan: scanner.scan(&module)?,
        traced: None,
        module,
    };
    let human = args.format == Format::Human;
    if human {
        print(&document);
    }
    let mut ledger = Ledger::new(Some(&document.module));
    let mut take = |bytes: &[u8]| {
        ledger.push_bytes(bytes);
        if human {
            say(printable(String::from_utf8_lossy(bytes).trim_end()));
        }
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        match chunk(&mut pipe, &mut buffer, &context.cancel).map_err(io)? {
            [] => break,
            bytes => take(bytes),
        }
    }
    // What was traced up to the interrupt.
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        take(buffer.get(..length).unwrap_or_default());
    }
    // An instance whose pipe is open cannot be removed.
    drop(pipe);
    instance.remove().map_err(io)?;
    // Who took what is joined with who has it in the end. A module that has gone meanwhile is held by nothing.
    document.use_count = use_count(&document.module).unwrap_or(0);
    if let Some(answer) = ledger.finish().into_iter().next().map(Answer::new) {
        let scan = if document.use_count == 0 { None } else { scanner.scan(&document.module)? };
        document.traced = Some(match scan {
            Some(scan) => answer.with_scan(&scan),
            None => answer.with_holders(&collect(&document.module, &mut Host)),
        });
    }
    if human {
        if let Some(answer) = &document.traced {
            say(printable(report::blame(answer).trim_end()));
        }
    } else {
        say(serde_json::to_string_pretty(&document).map_err(|error| Stop::error(&error))?);
    }
    Ok(u8::from(document.use_count != 0))
}

/// The module's use count, as `lsmod` shows it.
fn use_count(module: &str) -> Result<i64, Stop> {
    let path = format!("/sys/module/{module}/refcnt");
    let count = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    count.ok_or_else(|| {
        Stop::usage(format!("no module `{module}` is loaded that could be removed\nsee which are: lsmod"))
    })
}

/// The test module that scans the kernel, as far as there is one.
struct Scanner<'a> {
    /// A build of it for the running kernel.
    file: Option<&'a Path>,
}

impl Scanner<'_> {
    /// What it says of a module; None where it is not loaded and no file of it was given. It is left as it was found.
    fn scan(&self, module: &str) -> Result<Option<Scan>, Stop> {
        let parameter = format!("/sys/module/{SCANNER}/parameters/module");
        if let Ok(before) = fs::read_to_string(&parameter) {
            let scan = fs::write(&parameter, module).ok().and_then(|()| read_scan());
            let _ = fs::write(&parameter, before.trim_end());
            return Ok(scan);
        }
        let Some(file) = self.file else { return Ok(None) };
        let refused = |error: &dyn std::fmt::Display| {
            Stop::usage(format!(
                "cannot load `{}`: {error}\nit must be `{SCANNER}`, built for the running kernel",
                file.display()
            ))
        };
        let opened = File::open(file).map_err(|error| refused(&error))?;
        let params = format!("module={module} loader={}", std::process::id());
        let params = CString::new(params).map_err(|error| refused(&error))?;
        finit_module(&opened, &params, 0).map_err(|error| refused(&error))?;
        let scan = read_scan();
        let name = CString::new(SCANNER).map_err(|error| refused(&error))?;
        // Nobody else has had time to use it; without it nothing is lost but tidiness.
        let _ = delete_module(&name, 0);
        scan.map(Some).ok_or_else(|| refused(&"it gives no scan"))
    }
}

/// Removes the scanner that a process loaded for its look and was killed before it could remove it. One that somebody
/// loaded to keep, or that is in use, stays.
fn sweep_scanner() {
    let loader = fs::read_to_string(format!("/sys/module/{SCANNER}/parameters/loader"));
    let loader = loader.ok().and_then(|text| text.trim().parse::<u32>().ok()).filter(|pid| *pid != 0);
    let left = loader.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
    if left && CString::new(SCANNER).is_ok_and(|name| delete_module(&name, 0).is_ok()) {
        complain(&format!("removed `{SCANNER}`, which a look that was killed had left loaded"));
    }
}

fn read_scan() -> Option<Scan> {
    Scan::parse(&fs::read_to_string(format!("/proc/{SCANNER}")).ok()?).ok()
}

fn print(document: &Document) {
    let Document { module, use_count, holders, scan, .. } = document;
    say(format_args!("use count of `{module}`: {use_count}"));
    let shown = scan.as_ref().map_or(holders, |scan| &scan.holders);
    for holder in shown {
        say(format_args!("  {}", printable(&holder.to_string())));
    }
    match scan.as_ref().map(Scan::left_over) {
        Some(Some(count)) if count != 0 => say(format_args!("  left over: {count}, which no holder shows")),
        None if *use_count != 0 && shown.is_empty() => say("  no user of it shows outside the kernel"),
        _ => {}
    }
    say("watching until Ctrl-C");
}

/// A tracefs instance of our own, so that nobody's tracing is disturbed. Dropped, it is removed.
struct Instance {
    dir: Option<PathBuf>,
}

impl Instance {
    fn new() -> io::Result<Self> {
        let instances = TRACEFS.iter().map(|root| Path::new(root).join("instances"));
        let instances = instances.into_iter().find(|dir| dir.is_dir());
        let instances = instances.ok_or_else(|| io::Error::other("no tracefs"))?;
        sweep(&instances);
        let dir = instances.join(format!("{INSTANCE}{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Instance { dir: Some(dir) })
    }

    /// Starts tracing the module's events with their stacks; gives what to read them from.
    fn watch(&self, module: &str) -> io::Result<File> {
        let dir = self.dir.as_deref().unwrap_or(Path::new("/nonexistent"));
        let filter = format!("name == \"{module}\"");
        let events = dir.join("events/module");
        fs::write(events.join("filter"), &filter)?;
        for event in ["module_get", "module_put"] {
            fs::write(events.join(event).join("trigger"), format!("stacktrace if {filter}"))?;
        }
        fs::write(events.join("enable"), "1")?;
        // Not to wait for more once the user has interrupted.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        File::options().read(true).custom_flags(nonblocking).open(dir.join("trace_pipe"))
    }

    fn remove(mut self) -> io::Result<()> {
        self.dir.take().map_or(Ok(()), fs::remove_dir)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Removes the instances of processes that were killed.
fn sweep(instances: &Path) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(INSTANCE));
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
