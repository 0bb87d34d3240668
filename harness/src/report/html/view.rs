//! What the pages show, as the templates take it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Names;
use super::chart::{Chart, chart};
use crate::report::document::{
    Case, CodePlace, Document, Figure, Mismatch, Outcome, Place, Start, Step, Subtest, Text, Totals,
};

/// The overview lists so many failures with their reasons, so many cases of a group, and so many slow cases.
const FAILURES: usize = 200;
const OF_GROUP: usize = 20;
const SLOWEST: usize = 10;
/// Characters of a reason in the overview.
const REASON: usize = 400;

/// The overview.
#[derive(Serialize)]
pub(super) struct Overview<'a> {
    page_title: String,
    root: &'static str,
    version: &'a str,
    totals: Totals,
    interrupted: bool,
    seconds: String,
    outcomes: Vec<Count>,
    crashes: Vec<Group<'a>>,
    failures: Vec<Link<'a>>,
    more_failures: usize,
    images: Vec<Image<'a>>,
    rows: Vec<Row<'a>>,
    slowest: Vec<Link<'a>>,
}

#[derive(Serialize)]
struct Count {
    name: &'static str,
    past: &'static str,
    count: usize,
}

#[derive(Serialize)]
struct Group<'a> {
    title: &'a str,
    cases: Vec<Link<'a>>,
    all: usize,
    more: bool,
}

#[derive(Serialize)]
struct Link<'a> {
    id: String,
    href: String,
    outcome: &'static str,
    title: &'a str,
    reason: String,
    seconds: String,
    bad: bool,
}

#[derive(Serialize)]
struct Image<'a> {
    name: &'a str,
    kernel: Option<&'a str>,
    qemu: Option<&'a str>,
    cases: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    scenario: &'a str,
    cells: Vec<Option<Link<'a>>>,
}

impl<'a> Overview<'a> {
    pub(super) fn of(document: &'a Document, names: &Names) -> Self {
        let cases = &document.cases;
        let link = |at: usize| Link::to(&cases[at], names.page(at));
        let bad: Vec<usize> = (0..cases.len()).filter(|&at| cases[at].outcome.is_bad()).collect();
        let mut slowest: Vec<usize> = (0..cases.len()).collect();
        slowest.sort_by_key(|&at| std::cmp::Reverse(cases[at].ms));
        let at_of: HashMap<String, usize> =
            cases.iter().enumerate().map(|(at, case)| (case.id(), at)).collect();
        let count = |of: Outcome| Count { name: of.name(), past: of.past(), count: document.totals.of(of) };
        let group = |title: &'a str, cases: &[String]| Group {
            title,
            cases: cases.iter().take(OF_GROUP).filter_map(|id| at_of.get(id)).map(|&at| link(at)).collect(),
            all: cases.len(),
            more: cases.len() > OF_GROUP,
        };
        let images = images(document);
        Overview {
            page_title: format!("kmodlab: {} cases", document.totals.all),
            root: "",
            version: &document.kmodlab,
            totals: document.totals,
            interrupted: document.interrupted,
            seconds: seconds(document.ms),
            outcomes: Outcome::ALL.map(count).into(),
            crashes: document.crashes.iter().map(|of| group(&of.title, &of.cases)).collect(),
            failures: bad.iter().take(FAILURES).map(|&at| link(at)).collect(),
            more_failures: bad.len().saturating_sub(FAILURES),
            rows: rows(cases, &images, link),
            images: images.into_values().collect(),
            slowest: slowest.into_iter().take(SLOWEST).map(link).collect(),
        }
    }
}

impl<'a> Link<'a> {
    fn to(case: &'a Case, page: &str) -> Self {
        Link {
            id: case.id(),
            href: format!("cases/{page}"),
            outcome: case.outcome.name(),
            title: &case.title,
            reason: case.reason.as_deref().unwrap_or_default().chars().take(REASON).collect(),
            seconds: seconds(case.ms),
            bad: case.outcome.is_bad(),
        }
    }
}

fn images(document: &Document) -> BTreeMap<&str, Image<'_>> {
    let mut images: BTreeMap<&str, Image<'_>> = BTreeMap::new();
    for case in &document.cases {
        let image = Image { name: &case.image, kernel: None, qemu: None, cases: 0 };
        let image = images.entry(&case.image).or_insert(image);
        image.cases += 1;
        image.kernel = image.kernel.or(case.kernel.as_deref());
        image.qemu = image.qemu.or(case.qemu.as_deref());
    }
    images
}

fn rows<'a>(
    cases: &'a [Case],
    images: &BTreeMap<&str, Image<'_>>,
    link: impl Fn(usize) -> Link<'a>,
) -> Vec<Row<'a>> {
    let mut rows: BTreeMap<&str, Vec<Option<Link<'a>>>> = BTreeMap::new();
    for (at, case) in cases.iter().enumerate() {
        let cells = rows.entry(&case.scenario).or_insert_with(|| images.iter().map(|_| None).collect());
        let column = images.keys().position(|image| *image == case.image);
        if let Some(cell) = column.and_then(|column| cells.get_mut(column)) {
            *cell = Some(link(at));
        }
    }
    rows.into_iter().map(|(scenario, cells)| Row { scenario, cells }).collect()
}

/// The page of a case.
#[derive(Serialize)]
pub(super) struct Page<'a> {
    page_title: String,
    root: &'static str,
    version: &'static str,
    case: Facts<'a>,
    id: String,
    seconds: String,
    start: Option<String>,
    /// The pages of the cases before and after it that went wrong.
    pub(super) previous: Option<&'a str>,
    pub(super) next: Option<&'a str>,
    /// How many other cases met the same trouble.
    pub(super) others: usize,
    at_end: Vec<&'a Mismatch>,
    crash: Vec<CrashLine<'a>>,
    steps: Vec<StepView<'a>>,
    modules: Vec<Chart>,
    log: Lines<'a>,
    trace: Lines<'a>,
}

/// What is shown of a case as it is.
#[derive(Serialize)]
struct Facts<'a> {
    outcome: &'static str,
    title: &'a str,
    file: &'a str,
    place: Option<Place>,
    kernel: Option<&'a str>,
    qemu: Option<&'a str>,
    start: Option<&'a Start>,
    covers: &'a [String],
    artifacts: Option<&'a str>,
    again: &'a str,
    reason: Option<&'a str>,
    expect: Option<&'a str>,
    subtests: &'a [Subtest],
    figures: &'a [Figure],
    mismatches: bool,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct StepView<'a> {
    #[serde(flatten)]
    step: &'a Step,
    seconds: String,
    mismatches: Vec<&'a Mismatch>,
}

#[derive(Serialize)]
struct CrashLine<'a> {
    text: &'a str,
    code: Vec<&'a CodePlace>,
}

#[derive(Serialize)]
struct Lines<'a> {
    lines: Vec<Line<'a>>,
    cut: usize,
    marked: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    marked: bool,
    first: bool,
}

impl<'a> Page<'a> {
    pub(super) fn of(case: &'a Case) -> Self {
        let of =
            |number: Option<usize>| case.mismatches.iter().filter(move |mismatch| mismatch.step == number);
        let step = |(at, step): (usize, &'a Step)| StepView {
            step,
            seconds: seconds(step.ms),
            mismatches: of(Some(at + 1)).collect(),
        };
        let code =
            |at| case.crash.iter().flat_map(|crash| &crash.code).filter(move |code| code.at == at).collect();
        let said = case.crash.iter().flat_map(|crash| crash.lines.iter().enumerate());
        Page {
            page_title: format!("{}: {}", case.outcome.name(), case.id()),
            root: "../",
            version: env!("CARGO_PKG_VERSION"),
            case: Facts::of(case),
            id: case.id(),
            seconds: seconds(case.ms),
            start: case.start.as_ref().map(|start| seconds(start.ms)),
            previous: None,
            next: None,
            others: 0,
            at_end: of(None).collect(),
            crash: said.map(|(at, text)| CrashLine { text, code: code(at) }).collect(),
            steps: case.steps.iter().enumerate().map(step).collect(),
            modules: case.modules.iter().map(chart).collect(),
            log: Lines::of(&case.log),
            trace: Lines::of(&case.trace),
        }
    }
}

impl<'a> Facts<'a> {
    fn of(case: &'a Case) -> Self {
        Facts {
            outcome: case.outcome.name(),
            title: &case.title,
            file: &case.file,
            place: case.place,
            kernel: case.kernel.as_deref(),
            qemu: case.qemu.as_deref(),
            start: case.start.as_ref(),
            covers: &case.covers,
            artifacts: case.artifacts.as_deref(),
            again: &case.again,
            reason: case.reason.as_deref(),
            expect: case.expect.as_deref(),
            subtests: &case.subtests,
            figures: &case.figures,
            mismatches: !case.mismatches.is_empty(),
            warnings: &case.warnings,
        }
    }
}

impl<'a> Lines<'a> {
    fn of(text: &'a Text) -> Self {
        let first = text.marked.first().copied();
        let line = |(at, text_of): (usize, &'a str)| Line {
            text: text_of,
            marked: text.marked.binary_search(&at).is_ok(),
            first: Some(at) == first,
        };
        Lines {
            lines: text.text.lines().enumerate().map(line).collect(),
            cut: text.cut,
            marked: text.marked.len(),
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{:.2}", ms as f64 / 1e3)
}
