//! The document of a run: all that reports say of it. Each report is made from this one, so that none says what another
//! does not, and a run's JSON can become any other report later.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form of the document; another number is another form.
pub const FORMAT: u32 = 1;

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// The form of this document: 1.
    pub format: u32,
    /// The version of kmodlab.
    pub kmodlab: String,
    /// The cases, in the order of their scenarios and images.
    pub cases: Vec<Case>,
    /// The kernel's trouble, each title once, with the cases that met it; the most frequent first.
    pub crashes: Vec<CrashGroup>,
    /// How many cases ended in which way.
    pub totals: Totals,
    /// Whether the run was interrupted, so that cases are missing.
    pub interrupted: bool,
    /// How long the run took, in milliseconds.
    pub ms: u64,
}

/// A case: a scenario on an image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Case {
    /// The scenario's id.
    pub scenario: String,
    /// The image's name.
    pub image: String,
    /// The scenario's title.
    pub title: String,
    /// The scenario's file.
    pub file: String,
    /// Where in the file stands what did not hold, else where the last step does that was done.
    pub place: Option<Place>,
    /// The rows of the list of behaviours that it covers.
    pub covers: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in words; nothing for a pass.
    pub reason: Option<String>,
    /// The command that runs it again.
    pub again: String,
    /// The kernel's release and machine.
    pub kernel: Option<String>,
    /// QEMU's version.
    pub qemu: Option<String>,
    /// How its guest came up.
    pub start: Option<Start>,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The steps that were done.
    pub steps: Vec<Step>,
    /// The scenario's own expectations, as its file has them.
    pub expect: Option<String>,
    /// What was expected and did not come.
    pub mismatches: Vec<Mismatch>,
    /// What the kernel said is wrong with itself.
    pub crash: Option<Crash>,
    /// The results that it printed as KTAP.
    pub subtests: Vec<Subtest>,
    /// What it measured.
    pub figures: Vec<Figure>,
    /// The references of modules over time, where they were traced.
    pub modules: Vec<Module>,
    /// The kernel log since the case began, else the console.
    pub log: Text,
    /// The trace since the case began.
    pub trace: Text,
    /// The folder with its artifacts, where they are kept.
    pub artifacts: Option<String>,
    /// What one should know besides how it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Case {
    /// Its name: `scenario@image`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.scenario, self.image)
    }
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every expectation held.
    Pass,
    /// It does not apply there.
    Skip,
    /// An expectation did not hold.
    Fail,
    /// The kernel said that something is wrong with it, or died.
    Crash,
    /// Something took longer than it may.
    Timeout,
    /// The test could not be made.
    Error,
}

impl Outcome {
    /// Every outcome, in the order in which reports list them.
    pub const ALL: [Outcome; 6] =
        [Outcome::Pass, Outcome::Skip, Outcome::Fail, Outcome::Crash, Outcome::Timeout, Outcome::Error];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Skip => "skip",
            Outcome::Fail => "fail",
            Outcome::Crash => "crash",
            Outcome::Timeout => "timeout",
            Outcome::Error => "error",
        }
    }

    /// What cases did that ended so.
    pub fn past(self) -> &'static str {
        match self {
            Outcome::Pass => "passed",
            Outcome::Skip => "skipped",
            Outcome::Fail => "failed",
            Outcome::Crash => "crashed",
            Outcome::Timeout => "timed out",
            Outcome::Error => "not tested",
        }
    }

    /// Whether it asks for somebody's attention.
    pub fn is_bad(self) -> bool {
        !matches!(self, Outcome::Pass | Outcome::Skip)
    }
}

/// A place in a scenario's file.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// How a guest came up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Whether it was restored or booted.
    pub kind: StartKind,
    /// Milliseconds from QEMU's start to the agent's first answer.
    pub ms: u64,
}

/// In which way a guest came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartKind {
    /// Restored from a snapshot.
    Warm,
    /// Booted.
    Cold,
}

/// A step that was done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its number, from 1, and what it does.
    pub name: String,
    /// Its line in the scenario's file, from 1.
    pub line: u32,
    /// Its lines in the scenario's file: what it does and what is expected of it.
    pub source: Option<String>,
    /// Whether everything expected of it held.
    pub passed: bool,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// How its program ended: `exit 0`, `signal 9`.
    pub ending: Option<String>,
    /// What its program wrote to its standard output.
    pub stdout: Option<Text>,
    /// What its program wrote to its standard error.
    pub stderr: Option<Text>,
    /// What it read from a file.
    pub content: Option<Text>,
}

/// A text that was captured; of a long one the beginning and the end, with a line between them that says so.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// The text.
    pub text: String,
    /// How many bytes were left out.
    pub cut: usize,
    /// The lines that tell of what went wrong, from 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<usize>,
}

/// Something expected that did not come.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Mismatch {
    /// The number of the step that expected it, from 1; nothing for the scenario's own expectations.
    pub step: Option<usize>,
    /// What was looked at: `stdout`, `trace in-order[1]`.
    pub what: String,
    /// What should have been there.
    pub expected: String,
    /// What was there.
    pub found: String,
}

/// What the kernel said is wrong with itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Crash {
    /// In a line, which is the same in every run.
    pub title: String,
    /// What the kernel printed.
    pub lines: Vec<String>,
    /// Where in the sources functions of those lines are.
    pub code: Vec<CodePlace>,
}

/// Where in the sources a function in a line of the kernel's is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CodePlace {
    /// The line of the report that names the function, from 0.
    pub at: usize,
    /// The function, which may be one that was inlined into the one named.
    pub function: String,
    /// The source file, as the debug information has it.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
}

/// Cases that met the same trouble of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CrashGroup {
    /// What it is.
    pub title: String,
    /// The cases.
    pub cases: Vec<String>,
}

/// A result that a case printed as KTAP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Subtest {
    /// Its name behind those of the tests that it belongs to: `suite/test`.
    pub name: String,
    /// How it ended.
    pub outcome: Verdict,
    /// What stands after the directive, such as why it was skipped.
    pub reason: Option<String>,
    /// The lines that came with it.
    pub diagnostics: Vec<String>,
    /// The number of the step whose program printed it, from 1; nothing where the kernel log had it.
    pub step: Option<usize>,
}

/// How a subtest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// `ok`
    Pass,
    /// `not ok`
    Fail,
    /// `# SKIP`
    Skip,
    /// `# TODO`
    Todo,
    /// `# XFAIL`
    Xfail,
    /// `# TIMEOUT`
    Timeout,
    /// `# ERROR`
    Error,
    /// No result came.
    Missing,
}

impl Verdict {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
            Verdict::Todo => "todo",
            Verdict::Xfail => "xfail",
            Verdict::Timeout => "timeout",
            Verdict::Error => "error",
            Verdict::Missing => "missing",
        }
    }

    /// Whether this is a failure.
    pub fn is_bad(self) -> bool {
        matches!(self, Verdict::Fail | Verdict::Timeout | Verdict::Error | Verdict::Missing)
    }
}

/// Something measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// Of what.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit; empty where it has none.
    pub unit: String,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.name, self.value, self.unit)
    }
}

/// A module's references over time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Module {
    /// The module.
    pub module: String,
    /// What changed them, in order.
    pub changes: Vec<Change>,
    /// How many more changes there were.
    pub more: usize,
}

/// A change of a module's references.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// When, in seconds of the trace's clock.
    pub time: f64,
    /// What.
    pub kind: ChangeKind,
    /// Whose doing it was: `sleep[89]`.
    pub task: String,
    /// The function that did it.
    pub by: String,
    /// The use count from then on.
    pub count: i64,
    /// Whether the trace shows this reference taken and never given back.
    pub held: bool,
}

/// What changed a module's references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was loaded.
    Loaded,
    /// A reference was taken.
    Taken,
    /// A reference was given back.
    Given,
    /// It was removed.
    Removed,
}

/// How many cases ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// All of them.
    pub all: usize,
    /// Every expectation held.
    pub pass: usize,
    /// An expectation did not hold.
    pub fail: usize,
    /// The kernel said that something is wrong with it, or died.
    pub crash: usize,
    /// Something took longer than it may.
    pub timeout: usize,
    /// The case does not apply.
    pub skip: usize,
    /// The test could not be made.
    pub error: usize,
}

impl Totals {
    /// How many ended so.
    pub fn of(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Pass => self.pass,
            Outcome::Skip => self.skip,
            Outcome::Fail => self.fail,
            Outcome::Crash => self.crash,
            Outcome::Timeout => self.timeout,
            Outcome::Error => self.error,
        }
    }

    fn count(cases: &[Case]) -> Self {
        let of = |outcome| cases.iter().filter(|case| case.outcome == outcome).count();
        Totals {
            all: cases.len(),
            pass: of(Outcome::Pass),
            fail: of(Outcome::Fail),
            crash: of(Outcome::Crash),
            timeout: of(Outcome::Timeout),
            skip: of(Outcome::Skip),
            error: of(Outcome::Error),
        }
    }
}

/// Why documents cannot be read as those of one run.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is another form.
    #[error("the document has form {0}, and this kmodlab reads form {FORMAT}")]
    Format(u32),
    /// It is no document of a run.
    #[error("this is no document of a run: {0}")]
    Json(#[from] serde_json::Error),
    /// Two have the same case.
    #[error("the case {0} is there twice")]
    Twice(String),
}

impl Document {
    /// The document of a run with these cases, which took so long in milliseconds.
    pub fn new(mut cases: Vec<Case>, interrupted: bool, ms: u64) -> Self {
        cases.sort_by(|a, b| (&a.scenario, &a.image).cmp(&(&b.scenario, &b.image)));
        Document {
            format: FORMAT,
            kmodlab: env!("CARGO_PKG_VERSION").to_owned(),
            crashes: groups(&cases),
            totals: Totals::count(&cases),
            cases,
            interrupted,
            ms,
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// Where it is none, or of another form.
    pub fn read(json: &[u8]) -> Result<Self, Unfit> {
        /// All that is the same in every form.
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let Form { format } = serde_json::from_slice(json)?;
        if format != FORMAT {
            return Err(Unfit::Format(format));
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The document of several runs of different cases, such as the shards of one; its time is their sum.
    ///
    /// # Errors
    ///
    /// Where two of them have the same case.
    pub fn merge(documents: Vec<Document>) -> Result<Self, Unfit> {
        let interrupted = documents.iter().any(|document| document.interrupted);
        let ms = documents.iter().map(|document| document.ms).sum();
        let cases = documents.into_iter().flat_map(|document| document.cases).collect();
        let merged = Document::new(cases, interrupted, ms);
        match merged.cases.windows(2).find(|pair| pair[0].id() == pair[1].id()) {
            Some(pair) => Err(Unfit::Twice(pair[0].id())),
            None => Ok(merged),
        }
    }
}

fn groups(cases: &[Case]) -> Vec<CrashGroup> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for case in cases {
        if let Some(crash) = &case.crash {
            groups.entry(&crash.title).or_default().push(case.id());
        }
    }
    let mut groups: Vec<_> =
        groups.into_iter().map(|(title, cases)| CrashGroup { title: title.to_owned(), cases }).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.cases.len()));
    groups
}

/// The document's JSON Schema, in draft 2020-12.
pub fn schema() -> Value {
    schema_of::<Document>("a run of kmodlab")
}

/// The JSON Schema of what is written as JSON.
pub(super) fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of 30 cases on Linux 6.1, with failures, crashes and a guest that prints markup.
    pub(in crate::report) fn recorded() -> Document {
        Document::read(include_bytes!("../../tests/data/report/run.json")).unwrap()
    }

    #[test]
    fn a_document_is_read_as_it_was_written_and_others_are_refused() {
        let json = serde_json::to_vec(&recorded()).unwrap();
        assert_eq!(serde_json::to_vec(&Document::read(&json).unwrap()).unwrap(), json);
        let told = |json: &str| Document::read(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(told(r#"{"format": 2}"#), "the document has form 2, and this kmodlab reads form 1");
        assert!(told("[]").starts_with("this is no document of a run: "), "{}", told("[]"));
    }

    #[test]
    fn shards_become_one_run_and_a_case_cannot_be_in_two() {
        let whole = recorded();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (at, case) in whole.cases.iter().enumerate() {
            if at % 3 == 0 { left.push(case.clone()) } else { right.push(case.clone()) }
        }
        let shards = vec![Document::new(right, false, 5), Document::new(left, true, 7)];
        let merged = Document::merge(shards).unwrap();
        let ids = |document: &Document| document.cases.iter().map(Case::id).collect::<Vec<_>>();
        assert_eq!(ids(&merged), ids(&whole));
        assert_eq!((merged.totals, merged.interrupted, merged.ms), (whole.totals, true, 12));
        assert_eq!(merged.crashes, whole.crashes);
        let twice = Document::merge(vec![recorded(), recorded()]).unwrap_err();
        assert_eq!(twice.to_string(), format!("the case {} is there twice", whole.cases[0].id()));
    }

    #[test]
    fn the_same_trouble_of_kernels_is_one_group() {
        let groups = recorded().crashes;
        assert_eq!((groups[0].title.as_str(), groups[0].cases.len()), ("WARNING in fault_init", 4));
    }

    #[test]
    fn the_schema_in_the_tree_is_current() {
        is_current("report.schema.json", &schema());
    }

    /// Holds a schema against its file in `docs`. With `KMODLAB_BLESS=1` the file is written anew.
    pub(in crate::report) fn is_current(name: &str, schema: &Value) {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let current = serde_json::to_string_pretty(schema).unwrap() + "\n";
        if std::env::var_os("KMODLAB_BLESS").is_some() {
            fs_err::write(&path, &current).unwrap();
        }
        let written = fs_err::read_to_string(&path).unwrap();
        assert!(written == current, "docs/{name} is stale\nrun this test with KMODLAB_BLESS=1");
    }
}
