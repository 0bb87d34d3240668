//! Expectations of subtests: results that were printed as KTAP. They are good unless a scenario says otherwise.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Expect, Mismatch, Num, text::quoted};
use crate::console::{KtapVerdict, Subtest, Subtests};
use crate::scenario::words::Pattern;
use crate::yaml::OneOrMany;

/// What is expected of the subtests beyond their being good. A name is a subtest's own, or its own behind those of the
/// tests that it belongs to: `suite/test`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KtapExpect {
    /// Subtests that must be there and pass.
    #[serde(default)]
    pub pass: OneOrMany<Pattern>,
    /// Subtests that must be there and be skipped.
    #[serde(default)]
    pub skip: OneOrMany<Pattern>,
    /// Subtests that must be there and fail; any other that fails makes the case fail.
    #[serde(default)]
    pub fail: OneOrMany<Pattern>,
    /// How many subtests there are.
    #[serde(default)]
    pub count: Option<Num>,
    /// Whether there must be a plan; `true` unless said.
    #[serde(default)]
    pub plan: Option<bool>,
}

/// So many names are shown at most.
const SHOWN: usize = 10;

/// What the subtests do not meet of what a scenario expects at its end.
pub fn check_subtests(expect: Option<&Expect>, found: &Subtests) -> Vec<Mismatch> {
    let nothing = KtapExpect::default();
    let wanted = wanted(expect).unwrap_or(&nothing);
    let mut mismatches = Vec::new();
    let may_fail = |test: &Subtest| wanted.fail.iter().any(|name| names(name, test));
    let bad: Vec<_> = found.tests.iter().filter(|test| test.verdict.is_bad() && !may_fail(test)).collect();
    if !bad.is_empty() {
        let shown: Vec<_> = bad.iter().take(SHOWN).map(|test| quoted(&test.name)).collect();
        let more = if bad.len() > SHOWN { ", ..." } else { "" };
        let found = format!("{} of {} failed: {}{more}", bad.len(), found.tests.len(), shown.join(", "));
        mismatches.push(Mismatch::new("ktap", "no subtest to fail", found));
    }
    mismatches.extend(found.bail_outs.iter().map(|reason| {
        Mismatch::new("ktap", "the tests to go on to their end", format!("`Bail out! {reason}`"))
    }));
    if found.unplanned > 0 && wanted.plan != Some(false) {
        mismatches.push(Mismatch::new("ktap", "a plan", "none, so that results may be missing"));
    }
    named("pass", &wanted.pass, found, |verdict| verdict == KtapVerdict::Pass, &mut mismatches);
    named("skip", &wanted.skip, found, |verdict| verdict == KtapVerdict::Skip, &mut mismatches);
    named("fail", &wanted.fail, found, KtapVerdict::is_bad, &mut mismatches);
    let count = i64::try_from(found.tests.len()).unwrap_or(i64::MAX);
    if let Some(wanted) = wanted.count.as_ref().filter(|wanted| !wanted.matches(count)) {
        mismatches.push(Mismatch::new("ktap count", wanted.to_string(), count.to_string()));
    }
    mismatches
}

/// Why the case says nothing, where every subtest was skipped and the scenario did not expect any to be.
pub fn all_skipped(expect: Option<&Expect>, found: &Subtests) -> Option<String> {
    let skipped = found.count(KtapVerdict::Skip);
    if skipped == 0 || skipped < found.tests.len() || wanted(expect).is_some_and(|ktap| !ktap.skip.is_empty())
    {
        return None;
    }
    let mut reasons: Vec<&str> = found.tests.iter().filter_map(|test| test.reason.as_deref()).collect();
    reasons.dedup();
    Some(if reasons.is_empty() { "every subtest was skipped".to_owned() } else { reasons.join("; ") })
}

fn wanted(expect: Option<&Expect>) -> Option<&KtapExpect> {
    Some(&expect?.ktap.as_ref()?.value)
}

fn names(name: &Pattern, test: &Subtest) -> bool {
    let own = test.name.rsplit('/').next().unwrap_or_default();
    name.is(&test.name) || name.is(own)
}

/// Each name must be some subtest's, and each that it names must have ended so. Failures are told elsewhere.
fn named(
    key: &str,
    wanted: &[Pattern],
    found: &Subtests,
    is_so: fn(KtapVerdict) -> bool,
    mismatches: &mut Vec<Mismatch>,
) {
    for name in wanted {
        let mut tests = found.tests.iter().filter(|test| names(name, test)).peekable();
        if tests.peek().is_none() {
            let found = format!("none among {}", found.tests.len());
            mismatches.push(Mismatch::new(
                format!("ktap {key}"),
                format!("a subtest {}", quoted(&name.to_string())),
                found,
            ));
        }
        for test in tests.filter(|test| !is_so(test.verdict) && !test.verdict.is_bad()) {
            let expected = format!("{} to {key}", quoted(&test.name));
            mismatches.push(Mismatch::new(format!("ktap {key}"), expected, test.verdict.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::console::KtapReader;

    const GOOD: &str = "KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no b\nnot ok 3 c # XFAIL\n";
    const BAD: &str = "KTAP version 1\n1..1\n  KTAP version 1\n  1..3\n  ok 1 a\n  not ok 2 b\nnot ok 1 s\n";
    const SKIPPED: &str = "KTAP version 1\n1..2\nok 1 a # SKIP no x\nok 2 b # SKIP no x\n";

    fn subtests(log: &str) -> Subtests {
        let mut reader = KtapReader::default();
        log.lines().for_each(|line| reader.push_line(line));
        let mut subtests = Subtests::default();
        subtests.add(reader.finish());
        subtests
    }

    fn expect(ktap: &str) -> Expect {
        if ktap.is_empty() {
            Expect::default()
        } else {
            crate::yaml::from_str(&format!("ktap: {ktap}")).unwrap()
        }
    }

    #[rstest]
    #[case::good("", GOOD, &[])]
    #[case::nothing("", "", &[])]
    #[case::named("{ pass: a, skip: [b], count: 3 }", GOOD, &[])]
    #[case::bad("", BAD, &["ktap: expected no subtest to fail\nfound 2 of 3 failed: `s/b`, `s/#3`"])]
    #[case::may_fail("{ fail: [b, '/#3$/'], pass: s/a }", BAD, &[])]
    #[case::all_may_fail("{ fail: /^s/ }", BAD, &["ktap fail: expected `s/a` to fail\nfound pass"])]
    #[case::other(
        "{ pass: [b, x], skip: c, count: '> 3' }",
        GOOD,
        &[
            "ktap pass: expected `b` to pass\nfound skip",
            "ktap pass: expected a subtest `x`\nfound none among 3",
            "ktap skip: expected `c` to skip\nfound xfail",
            "ktap count: expected > 3\nfound 3",
        ]
    )]
    #[case::no_plan("", "KTAP version 1\nok 1 a\n", &["ktap: expected a plan\nfound none, so that results may be missing"])]
    #[case::no_plan_needed("{ plan: false }", "KTAP version 1\nok 1 a\n", &[])]
    #[case::bail_out(
        "",
        "KTAP version 1\n1..1\nok 1 a\nBail out! x\n",
        &["ktap: expected the tests to go on to their end\nfound `Bail out! x`"]
    )]
    fn subtests_are_checked(#[case] ktap: &str, #[case] log: &str, #[case] expected: &[&str]) {
        let mismatches: Vec<_> =
            check_subtests(Some(&expect(ktap)), &subtests(log)).iter().map(ToString::to_string).collect();
        assert_eq!(mismatches, expected);
    }

    #[rstest]
    #[case("", SKIPPED, Some("no x"))]
    #[case("{ skip: a }", SKIPPED, None)]
    #[case("", GOOD, None)]
    #[case("", "", None)]
    fn a_case_whose_subtests_are_all_skipped_says_nothing(
        #[case] ktap: &str,
        #[case] log: &str,
        #[case] reason: Option<&str>,
    ) {
        assert_eq!(all_skipped(Some(&expect(ktap)), &subtests(log)).as_deref(), reason);
    }
}
