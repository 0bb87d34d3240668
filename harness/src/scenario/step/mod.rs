//! What is done in a guest.

mod file;

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};

use super::expect::{Expect, Num};
use super::model::Timeout;
use super::words::{Pattern, Scalar, Signal};
use crate::yaml::{OneOrMany, ShortForm, Spanned, short_form};

/// One step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "file::Step")]
pub struct Step {
    /// What reports call it.
    pub name: Option<String>,
    /// The limit for this step.
    pub timeout: Option<Timeout>,
    /// What is expected of it, and of the guest after it.
    pub expect: Option<Expect>,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant's type says what it does")]
pub enum Action {
    Trace(Trace),
    Load(Load),
    Unload(Unload),
    Push(OneOrMany<ModuleRef>),
    Run(Run),
    Spawn(Spawn),
    Stop(Stop),
    WaitExit(Spanned<String>),
    Write(Write),
    Read(Read),
    WaitFor(WaitFor),
    Break(Break),
    Plug(Plug),
    Unplug(Spanned<String>),
    Assert(Box<Expect>),
}

impl Action {
    /// The key under which it stands in a file.
    pub fn key(&self) -> &'static str {
        match self {
            Action::Trace(_) => "trace",
            Action::Load(_) => "load",
            Action::Unload(_) => "unload",
            Action::Push(_) => "push",
            Action::Run(_) => "run",
            Action::Spawn(_) => "spawn",
            Action::Stop(_) => "stop",
            Action::WaitExit(_) => "wait-exit",
            Action::Write(_) => "write",
            Action::Read(_) => "read",
            Action::WaitFor(_) => "wait-for",
            Action::Break(_) => "break",
            Action::Plug(_) => "plug",
            Action::Unplug(_) => "unplug",
            Action::Assert(_) => "assert",
        }
    }
}

/// What it does, in a few words: `load refmod`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())?;
        match self {
            Action::Trace(Trace::Start(start)) => {
                start.events.iter().try_for_each(|event| write!(f, " {event}"))
            }
            Action::Trace(Trace::Stop) => f.write_str(" stop"),
            Action::Trace(Trace::Clear) => f.write_str(" clear"),
            Action::Load(Load { module, .. }) | Action::Unload(Unload { module, .. }) => {
                write!(f, " {}", module.name.value)
            }
            Action::Push(modules) => {
                modules.iter().try_for_each(|module| write!(f, " {}", module.name.value))
            }
            Action::Run(Run { command, .. }) => write!(f, " {command}"),
            Action::Spawn(Spawn { name, .. }) | Action::Stop(Stop { name, .. }) | Action::WaitExit(name) => {
                write!(f, " {}", name.value)
            }
            Action::Write(Write { path, .. }) | Action::Read(Read { path, .. }) => write!(f, " {}", path.0),
            Action::WaitFor(WaitFor::File(condition)) => write!(f, " {}", condition.path.0),
            Action::WaitFor(WaitFor::Refcount { module, is }) => {
                write!(f, " {} to be used {is}", module.value)
            }
            Action::WaitFor(WaitFor::Log(pattern)) => write!(f, " the log: {pattern}"),
            Action::WaitFor(WaitFor::Loaded(module)) => write!(f, " {} to be loaded", module.value),
            Action::WaitFor(WaitFor::Gone(module)) => write!(f, " {} to be gone", module.value),
            Action::Break(Break { function, .. }) => write!(f, " {}", function.value.0),
            Action::Plug(Plug { name, .. }) | Action::Unplug(name) => write!(f, " {}", name.value),
            Action::Assert(_) => Ok(()),
        }
    }
}

/// What reports show of a command: its first line, not much of it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 60;
        let text = match self {
            Command::Shell(line) => line.trim().to_owned(),
            Command::Argv(argv) => argv.join(" "),
        };
        let line = text.lines().next().unwrap_or_default();
        let shown: String = line.chars().take(MOST).collect();
        let more = if shown.len() < text.len() { " ..." } else { "" };
        write!(f, "{shown}{more}")
    }
}

/// A module that a step names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "file::ModuleRef")]
pub struct ModuleRef {
    /// Its name; of a module from the kernel's sources, its file there.
    pub name: Spanned<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is a test module.
    Test,
    /// It came with the image's kernel.
    InTree,
    /// It is built from the sources of the image's kernel.
    Source,
}

/// Loads a module: the system call `finit_module`, or, for a module of the image's kernel, one call for each of its
/// dependencies before it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "file::Load")]
pub struct Load {
    /// Which.
    pub module: ModuleRef,
    /// Its parameters.
    pub params: BTreeMap<String, Scalar>,
    /// Whether version magic and symbol versions are not looked at.
    pub force: bool,
    /// The error that is expected instead of success.
    pub errno: Option<Spanned<String>>,
}

/// Removes a module: the system call `delete_module`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "file::Unload")]
pub struct Unload {
    /// Which.
    pub module: ModuleRef,
    /// Whether it goes although it is in use (`O_TRUNC`), on a kernel that has forced unloading.
    pub force: bool,
    /// The error that is expected instead of success.
    pub errno: Option<Spanned<String>>,
}

/// Starts tracing in the case's own tracefs instance (a map), ends it (`stop`) or empties its buffer (`clear`).
#[derive(Debug, Clone, PartialEq)]
pub enum Trace {
    /// Start.
    Start(TraceStart),
    /// Switch it off; the buffer stays.
    Stop,
    /// Empty the buffer.
    Clear,
}

/// What to trace.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TraceStart {
    /// Groups of events (`module`) or single events (`module/module_get`).
    pub events: OneOrMany<EventName>,
    /// A filter for each of `events`, as the kernel's documentation of event tracing has them: `name == "refmod"`.
    #[serde(default)]
    pub filter: Option<String>,
    /// A filter for a single event, in place of `filter`.
    #[serde(default)]
    pub event_filters: BTreeMap<EventName, String>,
    /// Triggers of single events: `stacktrace if name == "refmod"`.
    #[serde(default)]
    pub triggers: BTreeMap<EventName, OneOrMany<String>>,
    /// The buffer's size in KiB for each CPU.
    #[serde(default)]
    pub buffer_kb: Option<u32>,
    /// Options of the tracer, on or off: `stacktrace: true`.
    #[serde(default)]
    pub options: BTreeMap<String, bool>,
    /// The trace clock, such as `mono`.
    #[serde(default)]
    pub clock: Option<String>,
}

/// A group of events, or one event with its group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(inline)]
pub struct EventName(#[schemars(regex(pattern = "^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)?$"))] String);

impl EventName {
    /// The group.
    pub fn group(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The event, where it is one.
    pub fn event(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, event)| event)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let word =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match name.split('/').all(word) && name.matches('/').count() <= 1 {
            true => Ok(EventName(name)),
            false => Err(D::Error::custom(format_args!(
                "`{name}` is no event\nwrite a group such as `module`, or `module/module_get`"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Trace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TraceVisitor;

        impl<'de> Visitor<'de> for TraceVisitor {
            type Value = Trace;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`stop`, `clear` or a map")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Trace, E> {
                match word {
                    "stop" => Ok(Trace::Stop),
                    "clear" => Ok(Trace::Clear),
                    other => Err(E::unknown_variant(other, &["stop", "clear"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Trace, A::Error> {
                TraceStart::deserialize(MapAccessDeserializer::new(map)).map(Trace::Start)
            }
        }

        deserializer.deserialize_any(TraceVisitor)
    }
}

impl JsonSchema for Trace {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Trace".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let start = generator.subschema_for::<TraceStart>();
        json_schema!({
            "description": "`stop` ends tracing, `clear` empties the buffer, and a map starts tracing.",
            "anyOf": [{ "enum": ["stop", "clear"] }, start],
        })
    }
}

/// A program: a line for the guest's shell, or a list of the program and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// For `sh -c`.
    Shell(String),
    /// Without a shell.
    Argv(Vec<String>),
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;

        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a line for the shell or a list of arguments")
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Command, E> {
                match line.trim().is_empty() {
                    true => Err(E::custom("there is no command")),
                    false => Ok(Command::Shell(line.to_owned())),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut arguments: A) -> Result<Command, A::Error> {
                let mut argv = Vec::new();
                while let Some(argument) = arguments.next_element::<String>()? {
                    argv.push(argument);
                }
                match argv.first().is_none_or(String::is_empty) {
                    true => Err(A::Error::custom("there is no command")),
                    false => Ok(Command::Argv(argv)),
                }
            }
        }

        // A hint only: `true` and `[` are commands, too.
        deserializer.deserialize_str(CommandVisitor)
    }
}

impl JsonSchema for Command {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A line for the guest's shell, or a list of a program and its arguments.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": ["string", "number"] }, "minItems": 1 }],
        })
    }
}

/// Runs a program and waits for its end. Unless the step's expectations say otherwise, it must exit with 0.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("command"))]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// What it reads from its standard input.
    #[serde(default)]
    #[schemars(with = "Option<Scalar>")]
    pub stdin: Option<String>,
    /// What its environment has besides.
    #[serde(default)]
    pub env: BTreeMap<String, Scalar>,
    /// The directory it runs in.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Whether each line of its standard output is something measured, for reports to show: `time per call: 12.5 us`.
    #[serde(default)]
    pub figures: bool,
}

short_form!(Run, "command", "a command or a map");

/// Starts a program that goes on in the background, in a process group of its own.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spawn {
    /// What `stop` and `wait-exit` call it.
    pub name: Spanned<String>,
    /// What to run.
    pub run: Command,
    /// What it reads from its standard input.
    #[serde(default)]
    #[schemars(with = "Option<Scalar>")]
    pub stdin: Option<String>,
    /// What its environment has besides.
    #[serde(default)]
    pub env: BTreeMap<String, Scalar>,
    /// The directory it runs in.
    #[serde(default)]
    pub cwd: Option<String>,
}

/// Sends a signal to the process group of a program started by `spawn`, and waits for the program's end.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("name"))]
pub struct Stop {
    /// The program's name.
    pub name: Spanned<String>,
    /// The signal; TERM unless said.
    #[serde(default = "term")]
    pub signal: Signal,
}

short_form!(Stop, "name", "a program's name or a map");

fn term() -> Signal {
    Signal(crate::guest::Signal::TERM)
}

/// Writes a file of the guest.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Write {
    /// Where.
    pub path: GuestPath,
    /// What, to the byte: no newline is added.
    #[schemars(with = "Scalar")]
    pub text: String,
    /// Whether it goes after what is there.
    #[serde(default)]
    pub append: bool,
    /// The error that is expected instead of success.
    #[serde(default)]
    pub errno: Option<Spanned<String>>,
}

/// Reads a file of the guest; `content` among the step's expectations says what it should hold.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("path"))]
pub struct Read {
    /// Which.
    pub path: GuestPath,
    /// The error that is expected instead of success; ENOENT says that the file is absent.
    #[serde(default)]
    pub errno: Option<Spanned<String>>,
    /// Under what name it is kept, to the byte, among the case's artifacts: `trace.dat`.
    #[serde(default)]
    pub keep: Option<Spanned<FileName>>,
}

short_form!(Read, "path", "a path or a map");

/// A plain name of a file: letters, digits and `_`, and, but for the first, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(inline)]
pub struct FileName(#[schemars(regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))] pub String);

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        match !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(plain) {
            true => Ok(FileName(name)),
            false => Err(D::Error::custom(format_args!(
                "`{name}` is no plain name of a file\nwrite one such as `trace.dat`"
            ))),
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Puts a breakpoint into the kernel or a test module, with gdb at QEMU's own stub. It goes on with the steps; when the
/// breakpoint is hit, gdb notes the call chain for `backtrace`, takes the breakpoint out, and lets the guest go on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("function"))]
pub struct Break {
    /// The function.
    pub function: Spanned<FunctionName>,
    /// A test module that is loaded: only calls about it count, those whose first argument is its `struct module`.
    #[serde(default)]
    pub module: Option<Spanned<String>>,
}

short_form!(Break, "function", "a function's name or a map");

/// Plugs a device of QEMU's into the running guest, where the machine has a bus for it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plug {
    /// What `unplug` calls it.
    pub name: Spanned<String>,
    /// What QEMU calls it: `usb-audio`.
    pub device: String,
    /// Its properties: `{ audiodev: none }`.
    #[serde(default)]
    pub options: BTreeMap<String, Scalar>,
}

/// The name of a function of the kernel's or of a module.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct FunctionName(#[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_.]*$"))] pub String);

impl<'de> Deserialize<'de> for FunctionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        match begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            true => Ok(FunctionName(name)),
            false => Err(D::Error::custom(format_args!("`{name}` is no name of a function"))),
        }
    }
}

/// An absolute path in the guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(inline)]
pub struct GuestPath(#[schemars(regex(pattern = "^/"))] pub String);

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        match path.starts_with('/') && !path.contains('\0') {
            true => Ok(GuestPath(path)),
            false => Err(D::Error::custom(format_args!("`{path}` is no absolute path"))),
        }
    }
}

/// Waits until something is so, up to the step's timeout.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WaitFor {
    /// A module's use count, as `lsmod` shows it.
    Refcount {
        /// The module.
        module: Spanned<String>,
        /// The count.
        is: Num,
    },
    /// A file of the guest.
    File(FileCondition),
    /// A line of the kernel log, among those since the case began.
    Log(Pattern),
    /// A module that is loaded and live.
    Loaded(Spanned<String>),
    /// A module that is not loaded.
    Gone(Spanned<String>),
}

/// What a file should be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "file::FileCondition")]
pub struct FileCondition {
    /// Which.
    pub path: GuestPath,
    /// What it should be.
    pub state: FileState,
}

/// What [`FileCondition`] waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It holds this, white space at the end aside.
    Equals(String),
    /// It holds this somewhere.
    Contains(String),
}
