//! What the types cannot say: names that must exist, steps that must have gone before, expectations that must have
//! something to look at.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use super::Scenario;
use super::expect::{BlameExpect, Expect};
use super::step::{self, Action, ModuleRef, Origin, Step, Trace, WaitFor};
use super::values::Values;
use crate::holders::SCANNER;
use crate::yaml::{self, Diagnostic, Kind, Node, Position, Spanned, nearest};

/// The names that scenarios may use.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The test modules.
    pub modules: &'a [String],
    /// The error numbers' names, such as `ENOENT`.
    pub errnos: &'a [&'a str],
}

/// Reads a scenario as one image sees it.
///
/// # Errors
///
/// All that is wrong with it, in the order of the text.
pub fn read(text: &str, values: &Values, context: Context<'_>) -> Result<Scenario, Vec<Diagnostic>> {
    let (tree, mut diagnostics) = yaml::parse(text);
    let Some(mut tree) = tree else { return Err(diagnostics) };
    diagnostics.extend(values.substitute(&mut tree));
    let decoded = yaml::decode::<Scenario>(&tree);
    diagnostics.extend(decoded.diagnostics);
    empty_maps(&tree, &mut diagnostics);
    let complete = diagnostics.is_empty();
    if let Some(scenario) = &decoded.value {
        let mut checker = Checker { diagnostics, complete, ..Checker::new(scenario, context) };
        checker.scenario(scenario);
        diagnostics = checker.diagnostics;
    }
    match decoded.value {
        Some(scenario) if diagnostics.is_empty() => Ok(scenario),
        _ => {
            diagnostics.sort();
            diagnostics.dedup();
            Err(diagnostics)
        }
    }
}

/// No map of the format says anything by being empty.
fn empty_maps(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Null | Kind::Scalar(_) => {}
        Kind::Seq(nodes) => nodes.iter().for_each(|node| empty_maps(node, diagnostics)),
        Kind::Map(entries) if entries.is_empty() => {
            if !diagnostics.iter().any(|known| known.at == node.at) {
                diagnostics
                    .push(Diagnostic::new(node.at, "the map is empty\nleave it out, or say what is meant"));
            }
        }
        Kind::Map(entries) => entries.iter().for_each(|entry| empty_maps(&entry.value, diagnostics)),
    }
}

/// Where an expectation stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Below a step whose program has ended.
    Program,
    /// Below a step that has read a file.
    Read,
    /// Below any other step.
    Step,
    /// At the end of the scenario.
    End,
}

struct Checker<'a> {
    context: Context<'a>,
    diagnostics: Vec<Diagnostic>,
    /// Whether nothing was cut out of the scenario; if something was, what seems to be missing may have been there.
    complete: bool,
    /// Whether the scenario uses modules of the image's kernel, whose names are not known here.
    of_kernel: bool,
    /// Programs, and whether they still run.
    programs: HashMap<String, (Position, bool)>,
    traced: bool,
    /// Whether there was a breakpoint.
    broken: bool,
    /// The devices that are plugged in.
    plugged: HashSet<String>,
}

impl<'a> Checker<'a> {
    fn new(scenario: &Scenario, context: Context<'a>) -> Self {
        let of_kernel = scenario.steps.iter().any(|step| match &step.action {
            Action::Load(load) => load.module.origin != Origin::Test,
            Action::Unload(unload) => unload.module.origin != Origin::Test,
            Action::Push(modules) => modules.iter().any(|module| module.origin != Origin::Test),
            _ => false,
        });
        Checker {
            context,
            diagnostics: Vec::new(),
            complete: true,
            of_kernel,
            programs: HashMap::new(),
            traced: false,
            broken: false,
            plugged: HashSet::new(),
        }
    }

    fn error(&mut self, at: Position, message: impl AsRef<str>) {
        self.diagnostics.push(Diagnostic::new(at, message));
    }

    fn scenario(&mut self, scenario: &Scenario) {
        let start = Position { line: 1, column: 1, length: 0 };
        if scenario.name.at.line == 0 {
            self.missing(start, "name", "it says what the scenario shows");
        } else if scenario.name.trim().is_empty() || scenario.name.trim().contains('\n') {
            self.error(scenario.name.at, "a name is one line of text");
        }
        if scenario.steps.at.line == 0 {
            self.missing(start, "steps", "a scenario does at least one thing");
        } else if scenario.steps.is_empty() && self.complete {
            self.error(scenario.steps.at, "there are no steps\na scenario does at least one thing");
        }
        self.twice(&scenario.covers);
        self.twice(&scenario.packages.0);
        for step in &scenario.steps.value {
            self.step(step);
        }
        let kept = scenario.steps.iter().filter_map(|step| match &step.action {
            Action::Read(read) => read.keep.clone(),
            _ => None,
        });
        self.twice(&kept.collect::<Vec<_>>());
        if let Some(Spanned { value: expect, .. }) = &scenario.expect {
            self.expect(expect, Place::End);
        }
    }

    /// A key that was there but wrong is no longer there, and already told.
    fn missing(&mut self, at: Position, key: &str, hint: &str) {
        if self.complete {
            self.error(at, format!("the key `{key}` is missing\n{hint}"));
        }
    }

    fn twice<T: PartialEq + Display>(&mut self, list: &[Spanned<T>]) {
        for (index, item) in list.iter().enumerate() {
            if list.iter().take(index).any(|earlier| earlier == item) {
                self.error(item.at, format!("`{}` is there twice", item.value));
            }
        }
    }

    fn step(&mut self, step: &Spanned<Step>) {
        self.action(&step.action, step.at);
        let place = match &step.action {
            Action::Run(_) | Action::Stop(_) | Action::WaitExit(_) => Place::Program,
            Action::Read(read) if read.errno.is_none() => Place::Read,
            _ => Place::Step,
        };
        if let Some(expect) = &step.expect {
            self.expect(expect, place);
        }
    }

    fn action(&mut self, action: &Action, at: Position) {
        match action {
            Action::Trace(Trace::Start(_)) => self.traced = true,
            Action::Trace(_) if !self.traced && self.complete => {
                self.error(at, "nothing is traced yet\nstart with `trace: { events: … }`");
            }
            Action::Load(load) => {
                self.module(&load.module);
                self.errno(load.errno.as_ref());
            }
            Action::Unload(unload) => {
                self.module(&unload.module);
                self.errno(unload.errno.as_ref());
            }
            Action::Push(modules) => modules.iter().for_each(|module| self.module(module)),
            Action::Spawn(spawn) => self.spawn(&spawn.name),
            Action::Stop(stop) => self.ended(&stop.name),
            Action::WaitExit(name) => self.ended(name),
            Action::Write(write) => self.errno(write.errno.as_ref()),
            Action::Read(read) => {
                self.errno(read.errno.as_ref());
                if let (Some(_), Some(keep)) = (&read.errno, &read.keep) {
                    self.error(keep.at, "both `errno` and `keep`\nwhat cannot be read cannot be kept");
                }
            }
            Action::WaitFor(
                WaitFor::Refcount { module, .. } | WaitFor::Loaded(module) | WaitFor::Gone(module),
            ) => {
                self.loaded_name(module);
            }
            Action::Break(step::Break { module, .. }) => {
                self.broken = true;
                if let Some(name) = module
                    && !self.context.modules.contains(name)
                {
                    self.unknown("test module", name, self.context.modules.iter().map(String::as_str));
                }
            }
            Action::Plug(plug) => self.plug(&plug.name),
            Action::Unplug(name) => self.unplug(name),
            Action::Assert(expect) => self.expect(expect, Place::Step),
            Action::Trace(_) | Action::Run(_) | Action::WaitFor(_) => {}
        }
    }

    fn module(&mut self, module: &ModuleRef) {
        let name = &module.name;
        match module.origin {
            Origin::Test if !self.context.modules.contains(name) => {
                self.unknown("test module", name, self.context.modules.iter().map(String::as_str));
            }
            Origin::Source
                if !name.ends_with(".c") || name.split('/').any(|part| ["", ".", ".."].contains(&part)) =>
            {
                let hint = "write it like `samples/kprobes/kprobe_example.c`";
                self.error(
                    name.at,
                    format!("`{}` is no module's file in a kernel's sources\n{hint}", name.value),
                );
            }
            _ => {}
        }
    }

    /// A module that is looked at may also be one that came with a module of the image's kernel.
    fn loaded_name(&mut self, name: &Spanned<String>) {
        if !self.of_kernel && !self.context.modules.contains(name) {
            self.unknown("test module", name, self.context.modules.iter().map(String::as_str));
        }
    }

    fn errno(&mut self, name: Option<&Spanned<String>>) {
        if let Some(name) = name
            && !self.context.errnos.contains(&name.as_str())
        {
            self.unknown("errno", name, self.context.errnos.iter().copied());
        }
    }

    fn unknown<'n>(&mut self, what: &str, name: &Spanned<String>, known: impl Iterator<Item = &'n str>) {
        let hint = nearest(name, known).map(|near| format!("\ndid you mean `{near}`?")).unwrap_or_default();
        self.error(name.at, format!("unknown {what} `{}`{hint}", name.value));
    }

    fn spawn(&mut self, name: &Spanned<String>) {
        if let Some((first, _)) = self.programs.get(&name.value) {
            let message =
                format!("a program `{}` was spawned already\nit is on line {}", name.value, first.line);
            self.error(name.at, message);
            return;
        }
        self.programs.insert(name.value.clone(), (name.at, true));
    }

    fn ended(&mut self, name: &Spanned<String>) {
        match self.programs.get_mut(&name.value) {
            Some((_, running)) if *running => *running = false,
            Some(_) => self.error(name.at, format!("the program `{}` has ended already", name.value)),
            None if self.complete => {
                let known: Vec<_> = self.programs.keys().cloned().collect();
                let hint = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("start it before this with `spawn: {{ name: {}, run: … }}`", name.value),
                };
                self.error(name.at, format!("no program `{}` was spawned\n{hint}", name.value));
            }
            None => {}
        }
    }

    fn plug(&mut self, name: &Spanned<String>) {
        if self.plugged.contains(&name.value) {
            self.error(name.at, format!("a device `{}` is plugged in already", name.value));
        }
        self.plugged.insert(name.value.clone());
    }

    fn unplug(&mut self, name: &Spanned<String>) {
        if !self.plugged.remove(&name.value) && self.complete {
            let hint = format!("plug it in before this with `plug: {{ name: {}, device: … }}`", name.value);
            self.error(name.at, format!("no device `{}` is plugged in\n{hint}", name.value));
        }
    }

    fn expect(&mut self, expect: &Expect, place: Place) {
        let program = [
            ("exit", expect.exit.as_ref().map(|it| it.at)),
            ("signal", expect.signal.as_ref().map(|it| it.at)),
            ("stdout", expect.stdout.as_ref().map(|it| it.at)),
            ("stderr", expect.stderr.as_ref().map(|it| it.at)),
        ];
        let content = [("content", expect.content.as_ref().map(|it| it.at))];
        let end = [
            ("splats", expect.splats.as_ref().map(|it| it.at)),
            ("taint", expect.taint.as_ref().map(|it| it.at)),
            ("ktap", expect.ktap.as_ref().map(|it| it.at)),
        ];
        self.misplaced(
            &program,
            place == Place::Program,
            "it belongs to a step `run`, `stop` or `wait-exit`",
        );
        self.misplaced(&content, place == Place::Read, "it belongs to a step `read` without `errno`");
        self.misplaced(&end, place == Place::End, "it belongs to the `expect` at the end of the scenario");
        if let (Some(_), Some(signal)) = (&expect.exit, &expect.signal) {
            self.error(signal.at, "both `exit` and `signal`\na program ends with one of them");
        }
        if let Some(trace) = &expect.trace
            && !self.traced
            && self.complete
        {
            self.error(trace.at, "nothing was traced\nput a step `trace: { events: … }` before");
        }
        if let Some(backtrace) = &expect.backtrace
            && !self.broken
            && self.complete
        {
            self.error(backtrace.at, "there was no breakpoint\nput a step `break: FUNCTION` before");
        }
        for name in expect.modules.keys() {
            self.loaded_name(name);
        }
        for (name, blame) in &expect.blame {
            self.loaded_name(name);
            self.blame(name, blame);
        }
    }

    fn blame(&mut self, name: &Spanned<String>, blame: &BlameExpect) {
        if blame.speaks_of_the_trace() && !self.traced && self.complete {
            self.error(
                name.at,
                "nothing was traced\nput a step `trace: { events: module }` before the module is loaded",
            );
        }
        if blame.needs_scan() && !self.context.modules.iter().any(|known| known == SCANNER) {
            self.error(
                name.at,
                format!("`holders` and `left-over` need the test module `{SCANNER}`, which is not there"),
            );
        }
    }

    fn misplaced(&mut self, keys: &[(&str, Option<Position>)], allowed: bool, hint: &str) {
        for (key, at) in keys.iter().filter_map(|(key, at)| Some((key, (*at)?))) {
            if !allowed {
                self.error(at, format!("`{key}` has nothing to look at here\n{hint}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
