//! Expectations of what holds a module, by the trace and by a scan of the kernel.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mismatch, Num, symbol};
use crate::blame::{Answer, Present, Verdict, task_name};
use crate::guest::Errno;
use crate::holders::{Holder, Kind, Scan};
use crate::scenario::words::Pattern;
use crate::trace::ledger::{Certainty, Reference};
use crate::yaml::{OneOrMany, ShortForm, short_form};

/// What holds a module, as `kmodlab blame` would say; all that is given must hold. A verdict alone will do.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("verdict"))]
pub struct BlameExpect {
    /// Whether something holds it, as far as the trace shows.
    #[serde(default)]
    pub verdict: Option<VerdictName>,
    /// How many references the trace shows taken and not given back.
    #[serde(default)]
    pub outstanding: Option<Num>,
    /// Such references. Each pattern is for one of its own.
    #[serde(default)]
    pub references: OneOrMany<ReferencePattern>,
    /// How many references were given back.
    #[serde(default)]
    pub returned: Option<ReturnedExpect>,
    /// What a scan of the kernel finds to hold it now. Each pattern is for a holder of its own.
    #[serde(default)]
    pub holders: OneOrMany<HolderPattern>,
    /// How many references a scan of the kernel finds no holder for.
    #[serde(default)]
    pub left_over: Option<Num>,
}

short_form!(BlameExpect, "verdict", "a verdict or a map");

/// Whether something holds a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictName {
    /// It is loaded, and nothing does.
    Free,
    /// It is not loaded any more.
    Unloaded,
    /// Something does.
    Held,
    /// It was given back more often than it was taken.
    Overdrawn,
    /// The trace cannot tell.
    Unclear,
}

/// A reference that was taken; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReferencePattern {
    /// The name of the task that took it, when the trace was read.
    #[serde(default)]
    pub comm: Option<Pattern>,
    /// Its id.
    #[serde(default)]
    pub pid: Option<Num>,
    /// Functions of the call chain that took it, from the innermost outwards, with any others between them. Without stacks
    /// in the trace there is one function.
    #[serde(default)]
    pub chain: OneOrMany<Pattern>,
    /// The module on whose behalf it was taken, which uses symbols of this one.
    #[serde(default)]
    pub dependent: Option<Pattern>,
    /// How sure it is that this reference, of all that were taken, is the one that is still out.
    #[serde(default)]
    pub certainty: Option<CertaintyName>,
}

/// How sure a pairing of what was taken and what was given back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertaintyName {
    /// Nothing tells which of several it is.
    Unknown,
    /// The same task, with a chain that matches.
    Likely,
    /// The count and the chains leave one answer.
    Exact,
}

/// How many references were given back; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReturnedExpect {
    /// Those that are surely paired with what was taken.
    #[serde(default)]
    pub exact: Option<Num>,
    /// Those that are likely to be.
    #[serde(default)]
    pub likely: Option<Num>,
    /// Those that were paired for want of better.
    #[serde(default)]
    pub unknown: Option<Num>,
    /// Those whose taking the trace does not show, such as the one that loading takes.
    #[serde(default)]
    pub unseen: Option<Num>,
}

/// What holds a module now; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HolderPattern {
    /// What kind of thing it is.
    #[serde(default)]
    pub kind: Option<HolderKind>,
    /// By what it belongs to the module: `operations`, `filesystem` and so on.
    #[serde(default)]
    pub via: Option<Pattern>,
    /// The name of the task whose it is.
    #[serde(default)]
    pub comm: Option<Pattern>,
    /// The path, interface, device, module or function.
    #[serde(default)]
    pub name: Option<Pattern>,
    /// How many references the kernel keeps for it, or, of a kernel thread, it took itself, by the trace; 0 where another holder shares its reference.
    #[serde(default)]
    pub refs: Option<Num>,
}

/// A kind of holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum HolderKind {
    File,
    Mapping,
    Cwd,
    Root,
    Thread,
    Mount,
    Interface,
    Socket,
    Dependent,
}

impl From<VerdictName> for Verdict {
    fn from(name: VerdictName) -> Self {
        match name {
            VerdictName::Free => Verdict::Free,
            VerdictName::Unloaded => Verdict::Unloaded,
            VerdictName::Held => Verdict::Held,
            VerdictName::Overdrawn => Verdict::Overdrawn,
            VerdictName::Unclear => Verdict::Unclear,
        }
    }
}

impl From<CertaintyName> for Certainty {
    fn from(name: CertaintyName) -> Self {
        match name {
            CertaintyName::Unknown => Certainty::Unknown,
            CertaintyName::Likely => Certainty::Likely,
            CertaintyName::Exact => Certainty::Exact,
        }
    }
}

impl From<HolderKind> for Kind {
    fn from(kind: HolderKind) -> Self {
        match kind {
            HolderKind::File => Kind::File,
            HolderKind::Mapping => Kind::Mapping,
            HolderKind::Cwd => Kind::Cwd,
            HolderKind::Root => Kind::Root,
            HolderKind::Thread => Kind::Thread,
            HolderKind::Mount => Kind::Mount,
            HolderKind::Interface => Kind::Interface,
            HolderKind::Socket => Kind::Socket,
            HolderKind::Dependent => Kind::Dependent,
        }
    }
}

impl BlameExpect {
    /// Whether the kernel must be scanned for it.
    pub fn needs_scan(&self) -> bool {
        !self.holders.is_empty() || self.left_over.is_some()
    }

    /// What is not so: `answer` is that of the trace, which may have nothing of the module; `scan` is there where one is
    /// needed, or else the kernel's reason for not taking the module that scans.
    pub fn check(
        &self,
        name: &str,
        answer: Option<&Answer>,
        scan: Option<Result<&Scan, Errno>>,
    ) -> Vec<Mismatch> {
        let mut mismatches = match answer {
            Some(answer) => self.check_trace(answer),
            None if self.speaks_of_the_trace() => {
                vec![Mismatch::new("", "events of it in the trace", "none")]
            }
            None => Vec::new(),
        };
        match scan {
            Some(Ok(scan)) => {
                let present = Present::new(scan, answer.map(|answer| &answer.ledger));
                mismatches.extend(self.check_present(&present, scan.use_count));
            }
            Some(Err(errno)) => {
                let found = format!("the module that scans does not load: {errno}");
                mismatches.push(Mismatch::new("", "a scan for its holders", found));
            }
            None => {}
        }
        let what = format!("blame {name}");
        mismatches.into_iter().map(|mismatch| mismatch.within(&what)).collect()
    }

    /// Whether anything must have been traced for it.
    pub fn speaks_of_the_trace(&self) -> bool {
        self.verdict.is_some()
            || self.outstanding.is_some()
            || !self.references.is_empty()
            || self.returned.is_some()
    }

    fn check_trace(&self, answer: &Answer) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        let ledger = &answer.ledger;
        if let Some(verdict) = self.verdict.map(Verdict::from)
            && verdict != answer.verdict
        {
            let found = format!("{}: {}", answer.verdict, answer.sentence);
            mismatches.push(Mismatch::new("verdict", verdict.to_string(), found));
        }
        let listed = || lines(ledger.outstanding.iter().map(line));
        let count = i64::try_from(ledger.outstanding.len()).unwrap_or(i64::MAX);
        if let Some(wanted) = self.outstanding.as_ref().filter(|wanted| !wanted.matches(count)) {
            mismatches.push(Mismatch::new("outstanding", wanted.to_string(), format!("{count}{}", listed())));
        }
        if let Some(index) =
            unmatched(&self.references, &ledger.outstanding, |pattern, held| pattern.matches(held))
        {
            let wanted = self.references.get(index).map(ToString::to_string).unwrap_or_default();
            let found = format!("{count} references that are out{}", listed());
            mismatches.push(Mismatch::new(format!("references[{index}]"), wanted, found));
        }
        if let Some(returned) = &self.returned {
            for (what, wanted, found) in [
                ("exact", &returned.exact, ledger.returned.exact),
                ("likely", &returned.likely, ledger.returned.likely),
                ("unknown", &returned.unknown, ledger.returned.unknown),
                ("unseen", &returned.unseen, ledger.returned.unseen),
            ] {
                let count = i64::try_from(found).unwrap_or(i64::MAX);
                if let Some(wanted) = wanted.as_ref().filter(|wanted| !wanted.matches(count)) {
                    mismatches.push(Mismatch::new(
                        format!("returned {what}"),
                        wanted.to_string(),
                        found.to_string(),
                    ));
                }
            }
        }
        mismatches
    }

    fn check_present(&self, present: &Present, use_count: i64) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        let listed = || lines(present.holders.iter().map(ToString::to_string));
        if let Some(index) =
            unmatched(&self.holders, &present.holders, |pattern, holder| pattern.matches(holder))
        {
            let wanted = self.holders.get(index).map(ToString::to_string).unwrap_or_default();
            let found = format!("{} holders{}", present.holders.len(), listed());
            mismatches.push(Mismatch::new(format!("holders[{index}]"), wanted, found));
        }
        if let Some(wanted) = &self.left_over {
            let left = present.left_over;
            if !left.is_some_and(|left| wanted.matches(left)) {
                let found = left.map_or("unknown: there are too many holders".to_owned(), |left| {
                    format!("{left} of {use_count}{}", listed())
                });
                mismatches.push(Mismatch::new("left-over", wanted.to_string(), found));
            }
        }
        mismatches
    }
}

impl ReferencePattern {
    /// Whether a reference is meant.
    fn matches(&self, held: &Reference) -> bool {
        let is = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.is(text)))
        };
        is(&self.comm, held.taken_by.comm.as_deref())
            && is(&self.dependent, held.dependent.as_deref())
            && self.pid.as_ref().is_none_or(|pid| pid.matches(held.taken_by.pid.into()))
            && symbol::missing(&self.chain, &held.chain).is_none()
            && self.certainty.is_none_or(|certainty| held.certainty == certainty.into())
    }
}

impl fmt::Display for ReferencePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = self.chain.iter().map(Pattern::to_string).collect::<Vec<_>>().join(" < ");
        let parts = [
            ("comm", self.comm.as_ref().map(Pattern::to_string)),
            ("pid", self.pid.as_ref().map(Num::to_string)),
            ("chain", (!chain.is_empty()).then_some(chain)),
            ("dependent", self.dependent.as_ref().map(Pattern::to_string)),
            ("certainty", self.certainty.map(|certainty| Certainty::from(certainty).to_string())),
        ];
        words(f, "a reference", parts)
    }
}

impl HolderPattern {
    /// Whether a holder is meant.
    fn matches(&self, holder: &Holder) -> bool {
        let is = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.is(text)))
        };
        self.kind.is_none_or(|kind| holder.kind == kind.into())
            && is(&self.via, Some(&holder.via))
            && is(&self.comm, holder.task.as_ref().map(|task| task.comm.as_str()))
            && is(&self.name, holder.name.as_deref())
            && self.refs.as_ref().is_none_or(|refs| {
                holder.references.is_some_and(|references| refs.matches(references.into()))
            })
    }
}

impl fmt::Display for HolderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("kind", self.kind.map(|kind| Kind::from(kind).to_string())),
            ("via", self.via.as_ref().map(Pattern::to_string)),
            ("comm", self.comm.as_ref().map(Pattern::to_string)),
            ("name", self.name.as_ref().map(Pattern::to_string)),
            ("refs", self.refs.as_ref().map(Num::to_string)),
        ];
        words(f, "a holder", parts)
    }
}

fn words(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    parts: impl IntoIterator<Item = (&'static str, Option<String>)>,
) -> fmt::Result {
    write!(f, "`{what}")?;
    for (key, value) in parts {
        if let Some(value) = value {
            write!(f, " {key}={value}")?;
        }
    }
    f.write_str("`")
}

/// The first pattern that is left without something of its own when as many as can be have one.
fn unmatched<P, T>(patterns: &[P], things: &[T], matches: impl Fn(&P, &T) -> bool) -> Option<usize> {
    /// Finds something for a pattern; what another one has is taken from that one if it can have something else.
    fn place(at: usize, fits: &[Vec<usize>], owner: &mut [Option<usize>], tried: &mut Vec<usize>) -> bool {
        for &thing in fits.get(at).into_iter().flatten() {
            if tried.contains(&thing) {
                continue;
            }
            tried.push(thing);
            let had = owner.get(thing).copied().flatten();
            if had.is_none_or(|other| place(other, fits, owner, tried)) {
                if let Some(owner) = owner.get_mut(thing) {
                    *owner = Some(at);
                }
                return true;
            }
        }
        false
    }
    let fits: Vec<Vec<usize>> = patterns
        .iter()
        .map(|pattern| {
            (0..things.len()).filter(|&at| things.get(at).is_some_and(|thing| matches(pattern, thing)))
        })
        .map(Iterator::collect)
        .collect();
    let mut owner = vec![None; things.len()];
    (0..patterns.len()).find(|&at| !place(at, &fits, &mut owner, &mut Vec::new()))
}

fn line(held: &Reference) -> String {
    let whom = held.dependent.as_ref().map(|module| format!(" for module {module}")).unwrap_or_default();
    format!("{}{whom}, {}: {}", task_name(&held.taken_by), held.certainty, held.chain.join(" < "))
}

/// The first of the lines, below one that they belong to.
fn lines(all: impl Iterator<Item = String>) -> String {
    const MOST: usize = 8;
    let mut out = String::new();
    for (index, line) in all.enumerate() {
        match index {
            ..MOST => out = out + "\n" + &line,
            MOST => out += "\n…",
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::trace::ledger::Ledger;

    const HELD: &str = include_str!("../../../tests/data/trace/arm-held.txt");
    const LEAK: &str = include_str!("../../../tests/data/trace/arm-leak.txt");
    const DEPENDENT: &str = "\
        \x20 insmod-5  [000] .....  1.0: module_load: low OE\n\
        \x20 insmod-5  [000] .....  1.1: module_put: low call_site=do_init_module refcnt=1\n\
        \x20 insmod-6  [000] .....  1.2: module_get: low call_site=resolve_symbol refcnt=2\n\
        \x20 insmod-6  [000] .....  1.3: module_load: high OE\n\
        \x20     sh-7  [000] .....  1.4: module_get: low call_site=misc_open refcnt=3\n";
    const SCAN: &str = "refscan 1 module=hold state=live use=2\n\
        holder kind=file via=operations refs=1 pid=97 tid=97 comm=sleep fd=3 file=1 path=/dev/hold\n\
        end shown=1 cut=0 refs=1 use=2\n";

    fn check(expect: &str, trace: &str, module: &str, scan: Option<Result<&str, Errno>>) -> String {
        let expect: BlameExpect = crate::yaml::from_str(expect).unwrap();
        let mut ledger = Ledger::new(Some(module));
        ledger.push_bytes(trace.as_bytes());
        let answer = ledger.finish().pop().map(Answer::new);
        let scan = scan.map(|scan| scan.map(|text| Scan::parse(text).unwrap()));
        let scan = scan.as_ref().map(|scan| scan.as_ref().map_err(|errno| *errno));
        let mismatches = expect.check(module, answer.as_ref(), scan);
        let told: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
        if told.is_empty() { "ok".to_owned() } else { told.join("\n") }
    }

    #[rstest]
    #[case::verdict("held", HELD, "hold")]
    #[case::free("{ verdict: free, outstanding: 0 }", LEAK, "hold")]
    #[case::who(
        "{ outstanding: 1, references: { comm: init, pid: 1, chain: [misc_open, do_dentry_open], certainty: exact } }",
        HELD,
        "hold"
    )]
    #[case::own_code("references: { comm: insmod, chain: boom_leak }", LEAK, "boom")]
    #[case::returned("returned: { exact: '>= 0', unseen: 1 }", DEPENDENT, "low")]
    #[case::any_order("references: [{ comm: /./ }, { dependent: high }]", DEPENDENT, "low")]
    #[case::the_wide_gives_way("references: [{ comm: /./ }, { comm: insmod }]", DEPENDENT, "low")]
    fn traces_match(#[case] expect: &str, #[case] trace: &str, #[case] module: &str) {
        assert_eq!(check(expect, trace, module, None), "ok");
    }

    #[rstest]
    #[case::verdict(
        "free",
        "blame low verdict: expected free\n\
         found held: `low` is held twice: by module `high`, sh[7]"
    )]
    #[case::count(
        "outstanding: 1",
        "blame low outstanding: expected 1\nfound:\n  2\n  insmod[6] for module high, exact: resolve_symbol\n  \
         sh[7], exact: misc_open"
    )]
    #[case::each_its_own(
        "references: [{ comm: sh }, { chain: misc_open }]",
        "blame low references[1]: expected `a reference chain=misc_open`\nfound:\n  2 references that are out\n  \
         insmod[6] for module high, exact: resolve_symbol\n  sh[7], exact: misc_open"
    )]
    #[case::returned("returned: { unseen: 0 }", "blame low returned unseen: expected 0\nfound 1")]
    fn mismatches_are_told(#[case] expect: &str, #[case] expected: &str) {
        assert_eq!(check(expect, DEPENDENT, "low", None), expected);
    }

    #[rstest]
    #[case::named("{ holders: { kind: file, comm: sleep, name: /dev/hold, refs: 1 }, left-over: 1 }", "ok")]
    #[case::other(
        "holders: { kind: mapping }",
        "blame hold holders[0]: expected `a holder kind=mapping`\nfound:\n  1 holders\n  `sleep[97]` has `/dev/hold` open as fd 3"
    )]
    #[case::left_over(
        "left-over: 0",
        "blame hold left-over: expected 0\nfound:\n  1 of 2\n  `sleep[97]` has `/dev/hold` open as fd 3"
    )]
    fn holders_are_checked(#[case] expect: &str, #[case] expected: &str) {
        assert_eq!(check(expect, HELD, "hold", Some(Ok(SCAN))), expected);
    }

    #[test]
    fn what_cannot_be_known_is_no_success() {
        let missing = "blame hold: expected events of it in the trace\nfound none";
        assert_eq!(check("unclear", "", "hold", None), missing);
        assert_eq!(
            check("left-over: 0", "", "hold", Some(Err(Errno::ENOEXEC))),
            "blame hold: expected a scan for its holders\nfound the module that scans does not load: ENOEXEC"
        );
    }
}
