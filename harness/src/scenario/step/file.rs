//! Steps as they stand in a file, where some keys exclude each other. The types of [`super`] are made from these.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{
    Action, Break, FileState, GuestPath, Origin, Plug, Read, Run, Spawn, Stop, Trace, WaitFor, Write,
};
use crate::scenario::expect::Expect;
use crate::scenario::model::Timeout;
use crate::scenario::words::Scalar;
use crate::yaml::{OneOrMany, ShortForm, Spanned, short_form};

/// One step: exactly one action, and what belongs to it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = one_action)]
pub(super) struct Step {
    /// What reports call the step; without it they show its action.
    #[serde(default)]
    name: Option<String>,
    /// The limit for this step, such as `10s`.
    #[serde(default)]
    timeout: Option<Timeout>,
    /// What is expected of the step, and of the guest after it.
    #[serde(default)]
    expect: Option<Expect>,
    /// Starts tracing in the case's own tracefs instance (a map), ends it (`stop`) or empties its buffer (`clear`).
    #[serde(default)]
    trace: Option<Trace>,
    /// Loads a module.
    #[serde(default)]
    load: Option<super::Load>,
    /// Removes a module.
    #[serde(default)]
    unload: Option<super::Unload>,
    /// Puts modules where the guest's `modprobe` and `insmod` find them, and loads nothing.
    #[serde(default)]
    push: Option<OneOrMany<super::ModuleRef>>,
    /// Runs a program and waits for its end. Unless `expect` says otherwise, it must exit with 0.
    #[serde(default)]
    run: Option<Run>,
    /// Starts a program that goes on in the background.
    #[serde(default)]
    spawn: Option<Spawn>,
    /// Sends a signal to a program started by `spawn`, and waits for its end.
    #[serde(default)]
    stop: Option<Stop>,
    /// Waits for the end of a program started by `spawn`. Unless `expect` says otherwise, it must exit with 0.
    #[serde(default)]
    wait_exit: Option<Spanned<String>>,
    /// Writes a file of the guest.
    #[serde(default)]
    write: Option<Write>,
    /// Reads a file of the guest.
    #[serde(default)]
    read: Option<Read>,
    /// Waits until something is so, up to the step's timeout.
    #[serde(default)]
    wait_for: Option<WaitFor>,
    /// Puts a breakpoint into the kernel or a test module; what called the function is for `backtrace` in `expect`.
    #[serde(default, rename = "break")]
    break_: Option<Break>,
    /// Plugs a device of QEMU's into the running guest.
    #[serde(default)]
    plug: Option<Plug>,
    /// Pulls a device that was plugged in out, and waits until it is gone.
    #[serde(default)]
    unplug: Option<Spanned<String>>,
    /// Checks expectations between steps.
    #[serde(default)]
    assert: Option<Box<Expect>>,
}

const ACTIONS: [&str; 15] = [
    "trace",
    "load",
    "unload",
    "push",
    "run",
    "spawn",
    "stop",
    "wait-exit",
    "write",
    "read",
    "wait-for",
    "break",
    "plug",
    "unplug",
    "assert",
];

fn one_action(schema: &mut Schema) {
    let one: Vec<_> = ACTIONS.iter().map(|action| serde_json::json!({ "required": [action] })).collect();
    schema.insert("oneOf".to_owned(), one.into());
}

impl TryFrom<Step> for super::Step {
    type Error = String;

    fn try_from(step: Step) -> Result<Self, String> {
        let actions = [
            step.trace.map(Action::Trace),
            step.load.map(Action::Load),
            step.unload.map(Action::Unload),
            step.push.map(Action::Push),
            step.run.map(Action::Run),
            step.spawn.map(Action::Spawn),
            step.stop.map(Action::Stop),
            step.wait_exit.map(Action::WaitExit),
            step.write.map(Action::Write),
            step.read.map(Action::Read),
            step.wait_for.map(Action::WaitFor),
            step.break_.map(Action::Break),
            step.plug.map(Action::Plug),
            step.unplug.map(Action::Unplug),
            step.assert.map(Action::Assert),
        ];
        let mut actions = actions.into_iter().flatten();
        let Some(action) = actions.next() else {
            return Err(format!("the step does nothing\nactions are `{}`", ACTIONS.join("`, `")));
        };
        if let Some(second) = actions.next() {
            return Err(format!(
                "the step has two actions, `{}` and `{}`\nmake it two steps",
                action.key(),
                second.key()
            ));
        }
        Ok(super::Step { name: step.name, timeout: step.timeout, expect: step.expect, action })
    }
}

/// Exactly one of the names.
fn module_ref(
    module: Option<Spanned<String>>,
    in_tree: Option<Spanned<String>>,
    kernel_source: Option<Spanned<String>>,
) -> Result<super::ModuleRef, String> {
    let named = [
        ("module", module, Origin::Test),
        ("in-tree", in_tree, Origin::InTree),
        ("kernel-source", kernel_source, Origin::Source),
    ];
    let mut named = named.into_iter().filter_map(|(key, name, origin)| Some((key, name?, origin)));
    match (named.next(), named.next()) {
        (Some((_, name, origin)), None) => Ok(super::ModuleRef { name, origin }),
        (Some((first, ..)), Some((second, ..))) => {
            Err(format!("both `{first}` and `{second}`\ngive one of them"))
        }
        _ => Err("no module is named\ngive `module`, `in-tree` or `kernel-source`".to_owned()),
    }
}

/// A module: the name of a test module, `in-tree` with the name of one of the image's kernel, or
/// `kernel-source` with the file of one that is built from that kernel's sources.
#[derive(Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("module"))]
pub(super) struct ModuleRef {
    /// A test module's name.
    #[serde(default)]
    module: Option<Spanned<String>>,
    /// The name of a module of the image's kernel.
    #[serde(default)]
    in_tree: Option<Spanned<String>>,
    /// The file of a module in the sources of the image's kernel: `samples/kprobes/kprobe_example.c`.
    #[serde(default)]
    kernel_source: Option<Spanned<String>>,
}

short_form!(ModuleRef, "module", "a module's name or a map");

impl TryFrom<ModuleRef> for super::ModuleRef {
    type Error = String;

    fn try_from(file: ModuleRef) -> Result<Self, String> {
        module_ref(file.module, file.in_tree, file.kernel_source)
    }
}

/// Loads a module: a test module (`module`), or one of the image's kernel (`in-tree`) after its dependencies,
/// or one built from that kernel's sources (`kernel-source`).
#[derive(Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("module"))]
pub(super) struct Load {
    /// A test module's name.
    #[serde(default)]
    module: Option<Spanned<String>>,
    /// The name of a module of the image's kernel.
    #[serde(default)]
    in_tree: Option<Spanned<String>>,
    /// The file of a module in the sources of the image's kernel: `samples/kprobes/kprobe_example.c`.
    #[serde(default)]
    kernel_source: Option<Spanned<String>>,
    /// Its parameters.
    #[serde(default)]
    params: BTreeMap<String, Scalar>,
    /// Whether version magic and symbol versions are not looked at.
    #[serde(default)]
    force: bool,
    /// The error that is expected instead of success, such as `ENOENT`.
    #[serde(default)]
    errno: Option<Spanned<String>>,
}

short_form!(Load, "module", "a module's name or a map");

impl TryFrom<Load> for super::Load {
    type Error = String;

    fn try_from(file: Load) -> Result<Self, String> {
        let module = module_ref(file.module, file.in_tree, file.kernel_source)?;
        Ok(super::Load { module, params: file.params, force: file.force, errno: file.errno })
    }
}

/// Removes a module.
#[derive(Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("module"))]
pub(super) struct Unload {
    /// A test module's name.
    #[serde(default)]
    module: Option<Spanned<String>>,
    /// The name of a module of the image's kernel.
    #[serde(default)]
    in_tree: Option<Spanned<String>>,
    /// The file of a module in the sources of the image's kernel: `samples/kprobes/kprobe_example.c`.
    #[serde(default)]
    kernel_source: Option<Spanned<String>>,
    /// Whether it goes although it is in use, on a kernel that has forced unloading.
    #[serde(default)]
    force: bool,
    /// The error that is expected instead of success. Linux refuses with EWOULDBLOCK (EAGAIN) a module that is in
    /// use, and with EBUSY one that is not live or has no exit function.
    #[serde(default)]
    errno: Option<Spanned<String>>,
}

short_form!(Unload, "module", "a module's name or a map");

impl TryFrom<Unload> for super::Unload {
    type Error = String;

    fn try_from(file: Unload) -> Result<Self, String> {
        let module = module_ref(file.module, file.in_tree, file.kernel_source)?;
        Ok(super::Unload { module, force: file.force, errno: file.errno })
    }
}

/// What a file should be: one of `exists`, `equals`, `contains`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct FileCondition {
    /// Which file.
    path: GuestPath,
    /// Whether it is there.
    #[serde(default)]
    exists: Option<bool>,
    /// What it holds, white space at the end aside.
    #[serde(default)]
    equals: Option<Scalar>,
    /// What it holds somewhere.
    #[serde(default)]
    contains: Option<Scalar>,
}

impl TryFrom<FileCondition> for super::FileCondition {
    type Error = String;

    fn try_from(file: FileCondition) -> Result<Self, String> {
        let exists = file.exists.map(|there| if there { FileState::Exists } else { FileState::Absent });
        let equals = file.equals.map(|text| FileState::Equals(text.0));
        let contains = file.contains.map(|text| FileState::Contains(text.0));
        let mut states = [exists, equals, contains].into_iter().flatten();
        match (states.next(), states.next()) {
            (Some(state), None) => Ok(super::FileCondition { path: file.path, state }),
            _ => Err("give exactly one of `exists`, `equals`, `contains`".to_owned()),
        }
    }
}

/// The schema of the type in a file stands for that of the type made from it.
macro_rules! schema_of {
    ($($type:ident)*) => {
        $(impl JsonSchema for super::$type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                $type::json_schema(generator)
            }
        })*
    };
}

schema_of!(Step ModuleRef Load Unload FileCondition);
