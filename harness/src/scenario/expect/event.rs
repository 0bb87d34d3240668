//! Expectations of traced events.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mismatch, Num, symbol, text::quoted};
use crate::scenario::words::{Pattern, Regex};
use crate::trace::Event;
use crate::yaml::OneOrMany;

/// What the traced events should be like; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TraceExpect {
    /// Events that follow each other, with any others between them.
    #[serde(default)]
    pub in_order: OneOrMany<EventPattern>,
    /// Events that are somewhere.
    #[serde(default)]
    pub contains: OneOrMany<EventPattern>,
    /// Events that are nowhere.
    #[serde(default)]
    pub none: OneOrMany<EventPattern>,
    /// How many events there are of a kind.
    #[serde(default)]
    pub count: OneOrMany<EventCount>,
    /// Whether there is no event at all.
    #[serde(default)]
    pub empty: Option<bool>,
}

/// How many events there are of a kind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventCount {
    /// Which.
    pub of: EventPattern,
    /// How many.
    pub is: Num,
}

/// An event; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EventPattern {
    /// Its name, without its group: `module_get`.
    #[serde(default)]
    pub event: Option<Pattern>,
    /// The module that an event of the group `module` is about.
    #[serde(default)]
    pub module: Option<Pattern>,
    /// The raw reference count; its base is 1, so it is one more than the use count that `lsmod` shows.
    #[serde(default)]
    pub refcnt: Option<Num>,
    /// The function that took or gave back the reference. Offsets and the compiler's suffixes are not looked at.
    #[serde(default)]
    pub call_site: Option<Pattern>,
    /// The task's name when the trace was read. A task that was gone by then has none, and matches no pattern.
    #[serde(default)]
    pub comm: Option<Pattern>,
    /// The task's id.
    #[serde(default)]
    pub pid: Option<Num>,
    /// The CPU.
    #[serde(default)]
    pub cpu: Option<Num>,
    /// Values of `key=value` in the event's text.
    #[serde(default)]
    pub fields: BTreeMap<String, Pattern>,
    /// A regular expression that matches in the event's text.
    #[serde(default)]
    pub text: Option<Regex>,
    /// Functions of the kernel stack from the innermost outwards, with any others between them.
    #[serde(default)]
    pub stack: OneOrMany<Pattern>,
}

impl TraceExpect {
    /// What the events do not meet.
    pub fn check(&self, events: &[Event]) -> Vec<Mismatch> {
        let mut mismatches: Vec<_> = self.check_order(events).err().into_iter().collect();
        for (index, pattern) in self.contains.iter().enumerate() {
            if !events.iter().any(|event| pattern.matches(event)) {
                mismatches.push(Mismatch::new(
                    format!("contains[{index}]"),
                    pattern.to_string(),
                    nearest(pattern, events),
                ));
            }
        }
        for (index, pattern) in self.none.iter().enumerate() {
            if let Some(event) = events.iter().find(|event| pattern.matches(event)) {
                mismatches.push(Mismatch::new(
                    format!("none[{index}]"),
                    format!("no {pattern}"),
                    line(event),
                ));
            }
        }
        for (index, EventCount { of, is }) in self.count.iter().enumerate() {
            let count = events.iter().filter(|event| of.matches(event)).count();
            if !is.matches(i64::try_from(count).unwrap_or(i64::MAX)) {
                let found = format!("{count} among {} events", events.len());
                mismatches.push(Mismatch::new(format!("count[{index}]"), format!("{is} times {of}"), found));
            }
        }
        match (self.empty, events.first()) {
            (Some(true), Some(event)) => {
                let found = format!("{} events, the first being {}", events.len(), line(event));
                mismatches.push(Mismatch::new("", "no events", found));
            }
            (Some(false), None) => mismatches.push(Mismatch::new("", "some events", "none")),
            _ => {}
        }
        mismatches.into_iter().map(|mismatch| mismatch.within("trace")).collect()
    }

    fn check_order(&self, events: &[Event]) -> Result<(), Mismatch> {
        let mut rest = events;
        let mut previous: Option<&Event> = None;
        for (index, pattern) in self.in_order.iter().enumerate() {
            let found = rest.iter().position(|event| pattern.matches(event));
            let Some((event, after)) = found.and_then(|at| rest.get(at..)).and_then(<[Event]>::split_first)
            else {
                let after = previous.map(|event| format!(", after {}", line(event))).unwrap_or_default();
                let found = match events.iter().find(|event| pattern.matches(event)) {
                    Some(event) => format!("it before that only: {}", line(event)),
                    None => nearest(pattern, rest),
                };
                return Err(Mismatch::new(format!("in-order[{index}]"), format!("{pattern}{after}"), found));
            };
            (previous, rest) = (Some(event), after);
        }
        Ok(())
    }
}

impl EventPattern {
    /// Whether an event is meant.
    pub fn matches(&self, event: &Event) -> bool {
        self.event.as_ref().is_none_or(|name| name.is(&event.name)) && self.differences(event).is_empty()
    }

    /// What of an event is not as it should be, as phrases.
    fn differences(&self, event: &Event) -> Vec<String> {
        let module = event.module();
        let refcnt = event.field("refcnt");
        let call_site = event.field("call_site");
        let mut differences = Vec::new();
        let mut want = |key: &str, holds: Option<bool>, found: Option<&str>| {
            if holds == Some(false) {
                let found =
                    found.map_or_else(|| "there is none".to_owned(), |found| format!("is {}", quoted(found)));
                differences.push(format!("{key} {found}"));
            }
        };
        let number = |num: &Num, text: Option<&str>| {
            text.and_then(|text| text.parse().ok()).is_some_and(|n| num.matches(n))
        };
        let found = Some(event.name.as_str());
        want("event", self.event.as_ref().map(|pattern| pattern.is(&event.name)), found);
        let found = module.map(|module| module.module());
        want("module", self.module.as_ref().map(|pattern| found.is_some_and(|name| pattern.is(name))), found);
        want("refcnt", self.refcnt.as_ref().map(|num| number(num, refcnt)), refcnt);
        let holds = |pattern: &Pattern| call_site.is_some_and(|site| symbol::matches(pattern, site));
        want("call-site", self.call_site.as_ref().map(holds), call_site);
        let pid = event.pid.to_string();
        want("pid", self.pid.as_ref().map(|num| number(num, Some(&pid))), Some(&pid));
        let cpu = event.cpu.to_string();
        want("cpu", self.cpu.as_ref().map(|num| number(num, Some(&cpu))), Some(&cpu));
        for (key, pattern) in &self.fields {
            let found = event.field(key);
            want(key, Some(found.is_some_and(|value| pattern.is(value))), found);
        }
        want("text", self.text.as_ref().map(|regex| regex.is_match(&event.text)), Some(&event.text));
        differences.extend(self.comm_difference(event));
        differences.extend(self.stack_difference(event));
        differences
    }

    fn comm_difference(&self, event: &Event) -> Option<String> {
        let pattern = self.comm.as_ref()?;
        match &event.comm {
            Some(comm) if pattern.is(comm) => None,
            Some(comm) => Some(format!("comm is {}", quoted(comm))),
            None => Some("comm is `<...>`, for the task was gone when the trace was read".to_owned()),
        }
    }

    fn stack_difference(&self, event: &Event) -> Option<String> {
        let missing = symbol::missing(&self.stack, &event.stack)?;
        let stack: Vec<_> = event.stack.iter().map(String::as_str).collect();
        Some(match stack.as_slice() {
            [] => "there is no stack".to_owned(),
            stack => format!("stack has no `{missing}` in its place: {}", quoted(&stack.join(" < "))),
        })
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |key: &str, value: Option<String>| value.map(|value| format!("{key}={value}"));
        let fields = self.fields.iter().map(|(key, pattern)| format!("{key}={pattern}")).collect::<Vec<_>>();
        let stack = self.stack.iter().map(Pattern::to_string).collect::<Vec<_>>().join(" < ");
        let parts = [
            one("module", self.module.as_ref().map(Pattern::to_string)),
            one("refcnt", self.refcnt.as_ref().map(Num::to_string)),
            one("call-site", self.call_site.as_ref().map(Pattern::to_string)),
            one("comm", self.comm.as_ref().map(Pattern::to_string)),
            one("pid", self.pid.as_ref().map(Num::to_string)),
            one("cpu", self.cpu.as_ref().map(Num::to_string)),
            (!fields.is_empty()).then(|| fields.join(" ")),
            self.text.as_ref().map(|regex| format!("text=/{}/", regex.as_str())),
            (!stack.is_empty()).then(|| format!("stack={stack}")),
        ];
        let event = self.event.as_ref().map_or_else(|| "an event".to_owned(), Pattern::to_string);
        let parts: Vec<_> = std::iter::once(event).chain(parts.into_iter().flatten()).collect();
        write!(f, "`{}`", parts.join(" "))
    }
}

/// An event as a line of a trace, without flags and time.
fn line(event: &Event) -> String {
    let comm = event.comm.as_deref().unwrap_or("<...>");
    quoted(&format!("{comm}-{} {}: {}", event.pid, event.name, event.text))
}

/// The event that differs least from the pattern, and in what.
fn nearest(pattern: &EventPattern, events: &[Event]) -> String {
    let named = |event: &Event| pattern.event.as_ref().is_none_or(|name| name.is(&event.name));
    // An event of another name is no candidate as long as there is one of the right name.
    let best = events
        .iter()
        .map(|event| (event, pattern.differences(event)))
        .min_by_key(|(event, differences)| (!named(event), differences.len()));
    match best {
        None => "no events".to_owned(),
        Some((event, _)) if pattern.event.is_some() && !named(event) => {
            format!("no such event among {}", events.len())
        }
        Some((event, differences)) => {
            format!(
                "none among {} events; nearest is\n{}\nbut {}",
                events.len(),
                line(event),
                differences.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::trace::Timestamp;

    fn event(comm: &str, name: &str, text: &str) -> Event {
        Event {
            comm: (comm != "<...>").then(|| comm.to_owned()),
            pid: 86,
            cpu: 1,
            flags: "...1.".to_owned(),
            time: Timestamp("12.5".to_owned()),
            name: name.to_owned(),
            text: text.to_owned(),
            stack: Vec::new(),
        }
    }

    /// A module loaded, held by an open file, let go by a task that is gone since, and removed.
    fn events() -> Vec<Event> {
        let mut events = vec![
            event("insmod", "module_load", "refmod OE"),
            event("insmod", "module_put", "refmod call_site=do_init_module refcnt=1"),
            event("sh", "module_get", "refmod call_site=chrdev_open.part.0 refcnt=2"),
            event("<...>", "module_put", "refmod call_site=__fput refcnt=1"),
            event("rmmod", "module_free", "refmod"),
        ];
        events[2].stack =
            ["try_module_get", "cdev_get+0x20/0x40", ".chrdev_open", "do_sys_open"].map(str::to_owned).into();
        events
    }

    fn check(expect: &str) -> String {
        let expect: TraceExpect = crate::yaml::from_str(expect).unwrap();
        let mismatches: Vec<_> = expect.check(&events()).iter().map(ToString::to_string).collect();
        if mismatches.is_empty() { "ok".to_owned() } else { mismatches.join("\n\n") }
    }

    #[rstest]
    #[case(
        "in-order: [{ event: module_load, module: refmod }, { event: module_get, refcnt: 2, comm: sh }, { event: module_free }]"
    )]
    #[case("in-order: [{ event: module_put }, { event: module_put }]")]
    #[case("contains: { event: module_get, call-site: chrdev_open, pid: 86, cpu: 1, fields: { refcnt: 2 } }")]
    #[case("contains: { text: 'site=__f', stack: [] }")]
    #[case("contains: { stack: [try_module_get, chrdev_open] }")]
    #[case("none: [{ module: other }, { event: module_get, refcnt: '> 2' }]")]
    #[case("count: { of: { event: /^module_/ }, is: 5 }")]
    #[case("empty: false")]
    fn events_match(#[case] expect: &str) {
        if expect.contains("stack: []") {
            assert!(crate::yaml::from_str::<TraceExpect>(expect).is_err());
            return;
        }
        assert_eq!(check(expect), "ok");
    }

    #[rstest]
    #[case::wrong_field(
        "in-order: [{ event: module_load }, { event: module_get, module: refmod, refcnt: 3, comm: sleep }]",
        "trace in-order[1]: expected `module_get module=refmod refcnt=3 comm=sleep`, after `insmod-86 module_load: refmod OE`\n\
         found:\n  none among 4 events; nearest is\n  `sh-86 module_get: refmod call_site=chrdev_open.part.0 refcnt=2`\n  \
         but refcnt is `2`, comm is `sh`"
    )]
    #[case::wrong_order(
        "in-order: [{ event: module_get }, { event: module_load }]",
        "trace in-order[1]: expected `module_load`, after `sh-86 module_get: refmod call_site=chrdev_open.part.0 refcnt=2`\n\
         found it before that only: `insmod-86 module_load: refmod OE`"
    )]
    #[case::task_gone(
        "contains: { event: module_put, call-site: __fput, comm: sleep }",
        "trace contains[0]: expected `module_put call-site=__fput comm=sleep`\nfound:\n  none among 5 events; nearest is\n  \
         `<...>-86 module_put: refmod call_site=__fput refcnt=1`\n  \
         but comm is `<...>`, for the task was gone when the trace was read"
    )]
    #[case::no_such_event(
        "contains: { event: module_request }",
        "trace contains[0]: expected `module_request`\nfound no such event among 5"
    )]
    #[case::stack(
        "contains: { event: module_get, stack: [chrdev_open, try_module_get] }",
        "trace contains[0]: expected `module_get stack=chrdev_open < try_module_get`\nfound:\n  none among 5 events; nearest is\n  \
         `sh-86 module_get: refmod call_site=chrdev_open.part.0 refcnt=2`\n  but stack has no `try_module_get` in its place: \
         `try_module_get < cdev_get+0x20/0x40 < .chrdev_open < do_sys_open`"
    )]
    #[case::unwanted(
        "none: { event: module_free }",
        "trace none[0]: expected no `module_free`\nfound `rmmod-86 module_free: refmod`"
    )]
    #[case::count(
        "count: { of: { event: module_put }, is: '>= 3' }",
        "trace count[0]: expected >= 3 times `module_put`\nfound 2 among 5 events"
    )]
    #[case::not_empty(
        "empty: true",
        "trace: expected no events\nfound 5 events, the first being `insmod-86 module_load: refmod OE`"
    )]
    fn mismatches_are_told(#[case] expect: &str, #[case] expected: &str) {
        assert_eq!(check(expect), expected);
    }
}
