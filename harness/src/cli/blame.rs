//! `kmodlab blame`

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use super::args::{Blame, Format};
use super::{Context, Stop, blame_guest, blame_live, exit, say};
use crate::blame::{Answer, Verdict};
use crate::report::{self, printable};
use crate::trace::dat::{self, ReadAt, Record, Recording};
use crate::trace::ledger::{Ledger, ModuleLedger};
use crate::work::Cancel;

/// What is printed with `--format json`.
#[derive(Serialize)]
struct Document<'a> {
    modules: &'a [Answer],
}

/// Says what holds a module, or every module of a trace.
pub(super) fn blame(context: &Context, args: &Blame) -> Result<u8, Stop> {
    if args.live {
        return blame_live::blame(context, args);
    }
    // The kernel writes `_` for `-` in a module's name.
    let module = args.module.as_ref().map(|name| name.trim_end_matches(".ko").replace('-', "_"));
    let answers = match (args.trace.as_deref(), &args.module) {
        (None, Some(module)) => vec![blame_guest::answer(context, args, module)?],
        (Some("-"), ..) => {
            read(&mut io::stdin().lock(), "standard input", module.as_deref(), &context.cancel)?
        }
        (Some(path), ..) => {
            let mut file =
                File::open(path).map_err(|error| Stop::usage(format!("cannot read `{path}`: {error}")))?;
            if is_recording(&file) {
                read_recording(&file, path, module.as_deref(), &context.cancel)?
            } else {
                read(&mut file, path, module.as_deref(), &context.cancel)?
            }
        }
        (None, ..) => {
            return Err(Stop::usage("name the module that is to be loaded"));
        }
    };
    match args.format {
        Format::Json => {
            let json = serde_json::to_string_pretty(&Document { modules: &answers });
            say(json.map_err(|error| Stop::error(&error))?);
        }
        Format::Human => print(&answers, module.is_some()),
    }
    // A trace that cannot tell must not pass for one that shows nothing.
    Ok(match answers.as_slice() {
        all if all.iter().any(|answer| answer.verdict.is_bad()) => 1,
        all if all.iter().any(|answer| answer.verdict == Verdict::Unclear) => exit::ERROR,
        _ => 0,
    })
}

/// Reads a trace to its end, or until the user interrupts, which ends a stream such as `trace_pipe`.
fn read<R: Read + AsFd>(
    from: &mut R,
    name: &str,
    module: Option<&str>,
    cancel: &Cancel,
) -> Result<Vec<Answer>, Stop> {
    let mut ledger = Ledger::new(module);
    let mut buffer = vec![0; 1 << 16];
    let mut first = true;
    loop {
        match chunk(from, &mut buffer, cancel) {
            Ok([]) => break,
            Ok(bytes) if std::mem::take(&mut first) && bytes.starts_with(dat::MAGIC) => {
                return Err(Stop::usage(format!(
                    "{name} is a recording of trace-cmd, which is not read from front to end\nname its file: kmodlab blame --trace FILE"
                )));
            }
            Ok(bytes) => ledger.push_bytes(bytes),
            Err(error) => return Err(Stop::usage(format!("cannot read `{name}`: {error}"))),
        }
    }
    answered(ledger.finish(), name, module)
}

/// A file of the machine's.
struct Disk<'f>(&'f File);

impl ReadAt for Disk<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }
}

/// Whether a file is a recording of trace-cmd. A pipe, which cannot be read here and there, is none.
fn is_recording(file: &File) -> bool {
    let mut magic = [0; dat::MAGIC.len()];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == dat::MAGIC
}

/// Reads a recording. Of a module that several tracefs instances recorded, the first one counts.
fn read_recording(
    file: &File,
    name: &str,
    module: Option<&str>,
    cancel: &Cancel,
) -> Result<Vec<Answer>, Stop> {
    let wrong = |error: dat::Error| Stop::usage(format!("cannot read `{name}`: {error}"));
    let mut recording = Recording::open(Disk(file)).map_err(wrong)?;
    let mut modules: Vec<ModuleLedger> = Vec::new();
    for buffer in 0..recording.buffers().count() {
        let mut ledger = Ledger::new(module);
        let mut records = 0_u32;
        let mut take = |record: Record<'_>| {
            ledger.push_record(&record);
            records = records.wrapping_add(1);
            !records.is_multiple_of(1 << 16) || !cancel.is_cancelled()
        };
        recording.read(buffer, &mut take).map_err(wrong)?;
        for module in ledger.finish() {
            if modules.iter().all(|known| known.name != module.name) {
                modules.push(module);
            }
        }
    }
    modules.sort_by(|one, other| one.name.cmp(&other.name));
    answered(modules, name, module)
}

/// The answers, of which there must be some.
fn answered(modules: Vec<ModuleLedger>, name: &str, module: Option<&str>) -> Result<Vec<Answer>, Stop> {
    let answers: Vec<Answer> = modules.into_iter().map(Answer::new).collect();
    match (answers.is_empty(), module) {
        (false, _) => Ok(answers),
        (true, Some(module)) => Err(Stop::usage(format!(
            "`{name}` has no event of a module `{module}`\nleave the name out to see which modules it has"
        ))),
        (true, None) => Err(Stop::usage(format!(
            "`{name}` has no module events\nenable them before the module is loaded: echo 1 > /sys/kernel/tracing/events/module/enable"
        ))),
    }
}

/// The next bytes; none at the end, and none once the user has interrupted.
pub(super) fn chunk<'b, R: Read + AsFd>(
    from: &mut R,
    buffer: &'b mut [u8],
    cancel: &Cancel,
) -> io::Result<&'b [u8]> {
    loop {
        {
            let mut fds =
                [PollFd::new(from, PollFlags::IN), PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        if cancel.is_cancelled() {
            return Ok(&[]);
        }
        match from.read(buffer) {
            Ok(length) => return Ok(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}

/// In full the module that was asked for, and otherwise those that are held; of the others a line.
fn print(answers: &[Answer], asked: bool) {
    let (full, short): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| asked || answer.verdict.is_bad());
    let mut first = true;
    for answer in full {
        if !std::mem::take(&mut first) {
            say("");
        }
        say(printable(&report::blame(answer)).trim_end());
    }
    if !first && !short.is_empty() {
        say("");
    }
    for answer in short {
        say(printable(&answer.sentence));
    }
}
