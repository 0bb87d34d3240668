//! Events that own their text, and the typed view of those in the group `module`.

use memchr::memchr;
use serde::Serialize;

use super::text::EventRef;

/// An event of a trace, with its stack where one was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The task's name; None where the kernel no longer knew it and printed `<...>`. The kernel looks it up when
    /// the trace is printed, so that it may be the name the task took later.
    pub comm: Option<String>,
    /// The task's (thread's) id.
    pub pid: i32,
    /// The cpu.
    pub cpu: u32,
    /// The flags column: `....`, `dN.1.`; empty where the trace has none.
    pub flags: String,
    /// When.
    pub time: Timestamp,
    /// The event's name, such as `module_get`.
    pub name: String,
    /// What stands after the name.
    pub text: String,
    /// The kernel stack, innermost function first; empty where none was recorded.
    pub stack: Vec<String>,
}

impl Event {
    /// The value of `key=value` in the event's text. It ends where the next key begins, so that it may hold blanks.
    pub fn field(&self, key: &str) -> Option<&str> {
        field(&self.text, key)
    }

    /// The event as one of the group `module`, if it is one and is whole.
    pub fn module(&self) -> Option<ModuleEvent<'_>> {
        ModuleEvent::parse(&self.name, &self.text)
    }
}

impl From<EventRef<'_>> for Event {
    fn from(event: EventRef<'_>) -> Self {
        let context = event.context;
        Event {
            comm: context.comm.map(str::to_owned),
            pid: context.pid,
            cpu: context.cpu,
            flags: context.flags.to_owned(),
            time: Timestamp(context.time.to_owned()),
            name: event.name.to_owned(),
            text: event.text.to_owned(),
            stack: Vec::new(),
        }
    }
}

/// A timestamp as the trace has it. Its meaning depends on the trace clock: seconds since boot for most, but also
/// `12us` in the latency layout, and a bare number of ticks for the clocks `counter`, `uptime` and `x86-tsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Timestamp(pub String);

impl Timestamp {
    /// In nanoseconds; None where the clock does not count time.
    pub fn nanos(&self) -> Option<u64> {
        let unit = self.0.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = self.0.strip_suffix(unit)?;
        let scale = match unit {
            "" if number.contains('.') => 9,
            "ms" => 6,
            "us" => 3,
            "ns" => 0,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(scale).collect();
        let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
        let unit = 10_u64.checked_pow(u32::try_from(scale).ok()?)?;
        whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(fraction)
    }

    /// In seconds; None where the clock does not count time.
    pub fn seconds(&self) -> Option<f64> {
        self.nanos().map(|nanos| nanos as f64 / 1e9)
    }
}

/// An event of the group `module`, read by its print format in the kernel's `include/trace/events/module.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleEvent<'a> {
    /// `module_load`: a module is in memory; its init function has yet to run.
    Load {
        /// Its name.
        module: &'a str,
        /// Its taints as letters; empty for none.
        taints: &'a str,
    },
    /// `module_free`: a module is gone.
    Free {
        /// Its name.
        module: &'a str,
    },
    /// `module_get`: a reference was taken.
    Get {
        /// The module.
        module: &'a str,
        /// The function that took it, with ` [module]` if it is in one.
        call_site: &'a str,
        /// The raw count after it, whose base is 1 (per cpu, and from 0, before Linux 3.19).
        refcnt: i64,
    },
    /// `module_put`: a reference was given back.
    Put {
        /// The module.
        module: &'a str,
        /// The function that gave it back.
        call_site: &'a str,
        /// The raw count after it.
        refcnt: i64,
    },
    /// `module_request`: the kernel asked user space to load a module.
    Request {
        /// What it asked for: a name or an alias.
        module: &'a str,
        /// Whether the caller waits for it.
        wait: bool,
        /// The function that asked.
        call_site: &'a str,
    },
}

impl<'a> ModuleEvent<'a> {
    /// Reads an event from its name and text; None for other events, and for those cut short.
    pub fn parse(name: &str, text: &'a str) -> Option<Self> {
        let kind = name.strip_prefix("module_")?;
        let (module, rest) = text.split_once(' ').unwrap_or((text, ""));
        if module.is_empty() {
            return None;
        }
        Some(match kind {
            "load" => ModuleEvent::Load { module, taints: rest.trim_ascii() },
            "free" => ModuleEvent::Free { module },
            "get" => {
                let (call_site, refcnt) = refcount(rest)?;
                ModuleEvent::Get { module, call_site, refcnt }
            }
            "put" => {
                let (call_site, refcnt) = refcount(rest)?;
                ModuleEvent::Put { module, call_site, refcnt }
            }
            "request" => {
                let wait = field(rest, "wait")? != "0";
                ModuleEvent::Request { module, wait, call_site: field(rest, "call_site")? }
            }
            _ => return None,
        })
    }

    /// The module's name.
    pub fn module(&self) -> &'a str {
        match self {
            ModuleEvent::Load { module, .. }
            | ModuleEvent::Free { module }
            | ModuleEvent::Get { module, .. }
            | ModuleEvent::Put { module, .. }
            | ModuleEvent::Request { module, .. } => module,
        }
    }
}

/// `call_site=FUNCTION refcnt=N`
fn refcount(text: &str) -> Option<(&str, i64)> {
    // As every kernel so far has it; this is on the hot path.
    if let Some(rest) = text.strip_prefix("call_site=")
        && let Some((site, refcnt)) = rest.split_at_checked(memchr(b'=', rest.as_bytes())?)
        && let Some(site) = site.strip_suffix(" refcnt")
        && let Some(Ok(refcnt)) = refcnt.get(1..).map(str::parse)
    {
        return Some((site, refcnt));
    }
    Some((field(text, "call_site")?, field(text, "refcnt")?.parse().ok()?))
}

/// The value of `key=` in a text of `key=value` pairs.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    if key.is_empty() {
        return None;
    }
    let mut rest = text;
    loop {
        let at = rest.find(key)?;
        let (before, after) = rest.split_at_checked(at)?;
        let after = after.strip_prefix(key)?;
        let starts_word =
            if before.is_empty() { rest.len() == text.len() } else { before.ends_with([' ', '(', ',']) };
        match after.strip_prefix('=') {
            Some(value) if starts_word => return Some(value_of(value)),
            _ => rest = after,
        }
    }
}

/// Cuts a value off where the next `key=` begins.
fn value_of(value: &str) -> &str {
    let mut end = value.len();
    let mut from = 0;
    while let Some(blank) = value.get(from..).and_then(|rest| rest.find(' ')) {
        let next = value.get(from + blank + 1..).unwrap_or("");
        let word = next.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(next.len());
        if word > 0 && next.as_bytes().get(word) == Some(&b'=') {
            end = from + blank;
            break;
        }
        from += blank + 1;
    }
    let value = value.get(..end).unwrap_or(value).trim_ascii();
    // sched_switch has `prev_state=S ==> next_comm=…`.
    value.strip_suffix("==>").map_or(value, str::trim_ascii)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0.934511", Some(934_511_000))]
    #[case("1234.567890", Some(1_234_567_890_000))]
    #[case("12.123456789", Some(12_123_456_789))]
    #[case("17us", Some(17_000))]
    #[case("17.250ms", Some(17_250_000))]
    #[case("17ns", Some(17))]
    #[case("4294937296", None)]
    #[case("99999999999999999999.1", None)]
    #[case("", None)]
    #[case(".5.5", None)]
    fn timestamps(#[case] raw: &str, #[case] nanos: Option<u64>) {
        assert_eq!(Timestamp(raw.to_owned()).nanos(), nanos);
    }

    #[rstest]
    #[case("refcnt", Some("2"))]
    #[case("call_site", Some("usb_open [snd_usb_audio]"))]
    #[case("site", None)]
    #[case("ref", None)]
    #[case("testmod", None)]
    #[case("", None)]
    fn fields(#[case] key: &str, #[case] value: Option<&str>) {
        assert_eq!(field("testmod call_site=usb_open [snd_usb_audio] refcnt=2", key), value);
    }

    #[test]
    fn values_with_blanks_end_at_the_next_key() {
        let text = "prev_comm=a b=c d prev_pid=7 prev_state=S ==> next_comm=x";
        assert_eq!(field(text, "prev_pid"), Some("7"));
        assert_eq!(field(text, "prev_state"), Some("S"));
        assert_eq!(field("(f+0x0/0x80) dfd=0xff name=\"/a b\"", "name"), Some("\"/a b\""));
        assert_eq!(field("a=1", "a"), Some("1"));
        assert_eq!(field("xa=1 a=2", "a"), Some("2"));
    }

    #[rstest]
    #[case("module_load", "testmod OE", Some(ModuleEvent::Load { module: "testmod", taints: "OE" }))]
    #[case("module_load", "loop ", Some(ModuleEvent::Load { module: "loop", taints: "" }))]
    #[case("module_free", "loop", Some(ModuleEvent::Free { module: "loop" }))]
    #[case("module_get", "m call_site=f refcnt=2", Some(ModuleEvent::Get { module: "m", call_site: "f", refcnt: 2 }))]
    #[case("module_put", "m call_site=f.part.0 [n] refcnt=-3", Some(ModuleEvent::Put { module: "m", call_site: "f.part.0 [n]", refcnt: -3 }))]
    #[case("module_request", "net-pf-10 wait=1 call_site=f", Some(ModuleEvent::Request { module: "net-pf-10", wait: true, call_site: "f" }))]
    #[case("module_request", "m wait=0 call_site=f", Some(ModuleEvent::Request { module: "m", wait: false, call_site: "f" }))]
    #[case("module_get", "m call_site=f", None)]
    #[case("module_get", "m call_site=f refcnt=", None)]
    #[case("module_put", "", None)]
    #[case("module_other", "m", None)]
    #[case("sched_switch", "m", None)]
    fn module_events(#[case] name: &str, #[case] text: &str, #[case] event: Option<ModuleEvent<'_>>) {
        assert_eq!(ModuleEvent::parse(name, text), event);
    }
}
