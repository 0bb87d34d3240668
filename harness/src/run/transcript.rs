//! What a case captured, and writing it down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use fs_err as fs;
use serde::Serialize;

use super::check::Output;
use crate::console::LogRecord;
use crate::guest::proto::Ending;
use crate::guest::{Guest, Streams};
use crate::process::shell_quote;
use crate::vm::{self, Boot, Machine, Memory, Wiring};

/// What each step gave.
#[derive(Debug, Default, Serialize)]
pub(super) struct Transcript {
    steps: Vec<StepRecord>,
    /// Files that steps kept, by name.
    #[serde(skip)]
    files: BTreeMap<String, Vec<u8>>,
    /// What gdb said.
    #[serde(skip)]
    pub(super) gdb: String,
}

/// What one step gave.
#[derive(Debug, Serialize)]
pub(super) struct StepRecord {
    step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

impl StepRecord {
    fn new(step: &str, output: &Output) -> Self {
        let mut record = StepRecord {
            step: step.to_owned(),
            pid: None,
            ending: None,
            stdout: None,
            stderr: None,
            content: None,
            kept: None,
        };
        match output {
            Output::Nothing => {}
            Output::Program(finished) | Output::Stopped(finished) => {
                record.pid = Some(finished.pid);
                record.ending = Some(match finished.ending {
                    Ending::Exited(status) => format!("exit {status}"),
                    Ending::Signalled(signal) => format!("signal {signal}"),
                });
                record.stdout = Some(finished.stdout.text());
                record.stderr = Some(finished.stderr.text());
            }
            Output::Content(content) => record.content = Some(content.text()),
            Output::Kept(name, _) => record.kept = Some(name.clone()),
        }
        record
    }
}

impl Transcript {
    /// Adds what a step gave.
    pub(super) fn add(&mut self, step: &str, output: &Output) {
        self.steps.push(StepRecord::new(step, output));
        if let Output::Kept(name, content) = output {
            self.files.insert(name.clone(), content.bytes());
        }
    }
}

/// The kernel log as `dmesg` shows it.
pub(super) fn log_text(records: &[LogRecord]) -> String {
    records.iter().fold(String::new(), |mut text, record| {
        let _ = writeln!(text, "<{}>[{:>12.6}] {}", record.level, record.time.as_secs_f64(), record.text);
        text
    })
}

/// The last lines of the kernel log, or of the console where that is empty.
pub(super) fn log_tail(streams: &Streams, lines: usize) -> Vec<String> {
    let records = streams.records();
    if records.is_empty() {
        return last_lines(&streams.console_text(), lines);
    }
    let last = &records[records.len().saturating_sub(lines)..];
    last_lines(&log_text(last), lines)
}

/// The last lines of a text.
pub(super) fn last_lines(text: &str, lines: usize) -> Vec<String> {
    crate::process::tail(text, lines).lines().map(str::to_owned).collect()
}

/// Writes a case's artifacts: `console.log`, `kernel.log`, `trace.log`, `transcript.json`, `gdb.log` where there was a
/// breakpoint, `qemu.sh`, which boots the same guest by hand, and in `files` those that steps kept.
pub(super) fn write_artifacts(
    dir: &Path,
    guest: &Guest,
    transcript: &Transcript,
    machine: &Machine,
    boot: &Boot,
) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let streams = guest.streams();
    fs::write(dir.join("console.log"), streams.console_text())?;
    let mut log = log_text(&streams.records());
    if streams.log_cut() > 0 {
        let _ = writeln!(log, "[kmodlab: {} bytes of the log were cut]", streams.log_cut());
    }
    fs::write(dir.join("kernel.log"), log)?;
    fs::write(dir.join("trace.log"), streams.whole_trace())?;
    fs::write(dir.join("transcript.json"), serde_json::to_vec_pretty(transcript)?)?;
    if !transcript.gdb.is_empty() {
        fs::write(dir.join("gdb.log"), &transcript.gdb)?;
    }
    if !transcript.files.is_empty() {
        fs::create_dir_all(dir.join("files"))?;
    }
    for (name, content) in &transcript.files {
        fs::write(dir.join("files").join(name), content)?;
    }
    write_script(&dir.join("qemu.sh"), machine, boot)
}

fn write_script(path: &Path, machine: &Machine, boot: &Boot) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let args = machine.args(vm::Start::Kernel(boot), Memory::Anonymous, Wiring::Terminal);
    let mut script = String::from(
        "#!/bin/sh\n\
         # Boots the guest of this case with its serial port on the terminal. C-a x ends QEMU, C-a c is its monitor.\n",
    );
    let _ = write!(script, "exec {}", machine.arch.qemu);
    for arg in args {
        let arg = shell_quote(&arg.to_string_lossy());
        let glue = if arg.starts_with('-') { " \\\n    " } else { " " };
        let _ = write!(script, "{glue}{arg}");
    }
    script.push('\n');
    fs::write(path, script)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
