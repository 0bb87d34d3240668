//! The top of a scenario file.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

use super::expect::Expect;
use super::step::{Action, Load, Origin, Step};
use crate::arch::Arch;
use crate::holders::SCANNER;
use crate::image::spec::DebianName;
use crate::yaml::{OneOrMany, Spanned};

/// A scenario of kmodlab: steps that are done in a booted kernel, and what is expected of them.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// What the scenario shows, as one line: `an open device keeps its module in use`.
    #[serde(default)]
    pub name: Spanned<String>,
    /// More about it, for its readers.
    #[serde(default)]
    pub description: Option<String>,
    /// The rows of the list of behaviours that it shows: R1 to R23, P1 to P11.
    #[serde(default)]
    pub covers: Vec<Spanned<Row>>,
    /// What the image must have; where it has not, the case is skipped and says why.
    #[serde(default)]
    pub requires: Requires,
    /// How the machine differs from the image's. Each combination has a snapshot of its own.
    #[serde(default)]
    pub machine: Machine,
    /// Packages of Debian's that the guest has besides, with all that they depend on, from the release that the image's
    /// userland is of: `trace-cmd`. Each combination has a snapshot of its own.
    #[serde(default)]
    pub packages: OneOrMany<Spanned<DebianName>>,
    /// The limit for the whole case, such as `30s` or `2m`.
    #[serde(default)]
    pub timeout: Option<Timeout>,
    /// What is done, in this order.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub steps: Spanned<Vec<Spanned<Step>>>,
    /// What is expected of everything captured, once all steps are done.
    #[serde(default)]
    pub expect: Option<Spanned<Expect>>,
}

impl Scenario {
    /// The packages that its guest has besides, sorted: those who list the same ones share a snapshot.
    pub fn packages(&self) -> Vec<DebianName> {
        let names: BTreeSet<_> = self.packages.iter().map(|name| name.value.clone()).collect();
        names.into_iter().collect()
    }

    /// The modules from there that its steps load or push, and its expectations need, each once.
    pub fn modules(&self, origin: Origin) -> Vec<String> {
        let steps = self.steps.value.iter();
        let named = steps.flat_map(|step| match &step.value.action {
            Action::Load(Load { module, .. }) => vec![module],
            Action::Push(modules) => modules.iter().collect(),
            _ => Vec::new(),
        });
        let mut names: BTreeSet<_> =
            named.filter(|module| module.origin == origin).map(|module| module.name.value.clone()).collect();
        if origin == Origin::Test && self.expectations().any(Expect::needs_scan) {
            names.insert(SCANNER.to_owned());
        }
        names.into_iter().collect()
    }

    /// All expectations, wherever they stand.
    fn expectations(&self) -> impl Iterator<Item = &Expect> {
        let asserted = self.steps.value.iter().filter_map(|step| match &step.value.action {
            Action::Assert(expect) => Some(&**expect),
            _ => None,
        });
        let of_steps = self.steps.value.iter().filter_map(|step| step.value.expect.as_ref());
        asserted.chain(of_steps).chain(self.expect.as_ref().map(|expect| &expect.value))
    }
}

/// What an image must have for a scenario to make sense there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Requires {
    /// Kernel versions: `>=5.6`, or several with commas, all of which must hold: `>=4.15, <6.5`.
    #[serde(default)]
    pub kernel: Option<KernelRange>,
    /// Kernel options that must be built in or modules, without `CONFIG_`.
    #[serde(default)]
    pub config: OneOrMany<ConfigName>,
    /// The only architectures on which it makes sense.
    #[serde(default)]
    #[schemars(with = "OneOrMany<String>")]
    pub arch: OneOrMany<Arch>,
    /// Architectures on which it does not.
    #[serde(default)]
    #[schemars(with = "OneOrMany<String>")]
    pub not_arch: OneOrMany<Arch>,
    /// Why, in words; it becomes part of the skip's reason.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What [`Requires`] asks of an image.
pub struct KernelFacts<'a> {
    /// The kernel's release, as `uname -r` prints it.
    pub release: &'a str,
    /// The architecture.
    pub arch: Arch,
    /// Whether an option, without `CONFIG_`, is built in or a module.
    pub has_config: &'a dyn Fn(&str) -> bool,
}

impl Requires {
    /// Why the scenario is to be skipped there, if it is.
    pub fn unmet(&self, facts: &KernelFacts<'_>) -> Option<String> {
        let mut unmet = Vec::new();
        if let Some(range) = &self.kernel
            && !range.contains(facts.release)
        {
            unmet.push(format!("needs kernel {range}, this is {}", facts.release));
        }
        let missing: Vec<_> = self
            .config
            .iter()
            .filter(|name| !(facts.has_config)(&name.0))
            .map(|name| format!("CONFIG_{}", name.0))
            .collect();
        if !missing.is_empty() {
            unmet.push(format!("needs {}", missing.join(", ")));
        }
        if !self.arch.is_empty() && !self.arch.contains(&facts.arch) || self.not_arch.contains(&facts.arch) {
            unmet.push(format!("not for {}", facts.arch));
        }
        if unmet.is_empty() {
            return None;
        }
        let reason = self.reason.iter().map(|reason| reason.trim().to_owned());
        Some(unmet.into_iter().chain(reason).collect::<Vec<_>>().join("; "))
    }
}

/// How a scenario's machine differs from its image's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Machine {
    /// How many CPUs, 1 to 8.
    #[serde(default)]
    pub smp: Option<Cpus>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// Devices of QEMU's besides, each as its `-device` takes it: `qemu-xhci`, a USB bus for `plug`.
    #[serde(default)]
    pub devices: OneOrMany<Device>,
}

/// A device as QEMU's `-device` takes it: its name, and options behind commas.
#[derive(Debug, Clone, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(inline)]
pub struct Device(
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]+(,[A-Za-z0-9_.-]+=[A-Za-z0-9_.:-]+)*$"))] pub String,
);

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let word = |word: &str, also: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
        };
        let option = |option: &str| {
            option.split_once('=').is_some_and(|(key, value)| word(key, "_.-") && word(value, "_.:-"))
        };
        let mut parts = text.split(',');
        match parts.next().is_some_and(|name| word(name, "_-")) && parts.all(option) {
            true => Ok(Device(text)),
            false => Err(D::Error::custom(format_args!(
                "`{text}` is no device\nwrite one such as `qemu-xhci` or `qemu-xhci,id=usb`"
            ))),
        }
    }
}

/// A number of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema)]
pub struct Cpus(#[schemars(range(min = 1, max = 8))] pub u32);

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            cpus @ 1..=8 => Ok(Cpus(cpus)),
            other => Err(D::Error::custom(format_args!("expected 1 to 8 CPUs, found {other}"))),
        }
    }
}

/// The name of a kernel option, without `CONFIG_`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
pub struct ConfigName(#[schemars(regex(pattern = "^[A-Z0-9_a-z]+$"))] pub String);

impl<'de> Deserialize<'de> for ConfigName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if let Some(rest) = name.strip_prefix("CONFIG_") {
            return Err(D::Error::custom(format_args!("`{name}` has the prefix `CONFIG_`\nwrite `{rest}`")));
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(D::Error::custom(format_args!("`{name}` is no kernel option")));
        }
        Ok(ConfigName(name))
    }
}

/// A row of the list of behaviours that scenarios cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    group: char,
    number: u32,
}

/// The groups of rows: what holds a module, and kernel probes. Each counts from 1.
const ROWS: [(char, u32); 2] = [('R', 23), ('P', 11)];

impl Row {
    /// Every row there is, in order.
    pub fn all() -> impl Iterator<Item = Row> {
        ROWS.into_iter().flat_map(|(group, last)| (1..=last).map(move |number| Row { group, number }))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", self.group, self.number))
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = ROWS.map(|(group, last)| format!("{group}1 to {group}{last}")).join(" and ");
        Row::all()
            .find(|row| row.to_string() == name)
            .ok_or_else(|| D::Error::custom(format_args!("there is no row `{name}`\nrows are {known}")))
    }
}

impl JsonSchema for Row {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Row".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": Row::all().map(|row| row.to_string()).collect::<Vec<_>>() })
    }
}

/// A limit of time, such as `500ms`, `30s` or `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(pub Duration);

/// Nothing that one waits for takes longer; a longer limit is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(3600);

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_duration(&text) {
            Ok(Duration::ZERO) => Err(D::Error::custom("a timeout of nothing\ngive one such as `30s`")),
            Ok(limit) if limit > LONGEST => Err(D::Error::custom("a timeout of more than an hour")),
            Ok(limit) => Ok(Timeout(limit)),
            Err(_) => Err(D::Error::custom(format_args!(
                "`{text}` is no duration\nwrite `30s`, `500ms` or `1m 30s`"
            ))),
        }
    }
}

impl JsonSchema for Timeout {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timeout".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A limit of time, such as `500ms`, `30s` or `1m 30s`.",
            "pattern": r"^\s*([0-9]+\s*[a-z]+\s*)+$",
        })
    }
}

/// A set of kernel versions: comparisons that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRange {
    text: String,
    bounds: Vec<(&'static str, Version)>,
}

type Version = [u32; 3];

/// Longer operators first, so that `>=` is not read as `>`.
const OPERATORS: [&str; 5] = [">=", "<=", ">", "<", "="];

impl KernelRange {
    /// Whether a release is in the set; what follows its numbers (`-49-amd64`, `-rc1`) is not looked at.
    pub fn contains(&self, release: &str) -> bool {
        let Some(version) = kernel_version(release) else { return false };
        self.bounds.iter().all(|(operator, bound)| match *operator {
            ">=" => version >= *bound,
            "<=" => version <= *bound,
            ">" => version > *bound,
            "<" => version < *bound,
            _ => version == *bound,
        })
    }
}

impl fmt::Display for KernelRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The version in a release; what follows its numbers (`-49-amd64`, `-rc1`) is not looked at.
pub fn kernel_version(release: &str) -> Option<[u32; 3]> {
    version(release.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default())
}

/// Up to three numbers, the rest zero; a fourth (`4.9.0.1`) is not looked at.
fn version(text: &str) -> Option<Version> {
    let mut version = [0; 3];
    let numbers: Vec<_> = text.trim_end_matches('.').split('.').map(str::parse).collect();
    for (part, number) in version.iter_mut().zip(numbers) {
        *part = number.ok()?;
    }
    Some(version)
}

impl<'de> Deserialize<'de> for KernelRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bound = |part: &str| {
            let operator = *OPERATORS.iter().find(|operator| part.starts_with(**operator))?;
            Some((operator, version(part.strip_prefix(operator)?.trim())?))
        };
        let bounds = text.split(',').map(|part| bound(part.trim())).collect::<Option<Vec<_>>>();
        let bounds = bounds.ok_or_else(|| {
            D::Error::custom(format_args!(
                "`{text}` is no set of kernel versions\nwrite `>=5.6` or `>=4.15, <6.5`"
            ))
        })?;
        Ok(KernelRange { text, bounds })
    }
}

impl JsonSchema for KernelRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KernelRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Kernel versions, such as `>=5.6` or `>=4.15, <6.5`.",
            "pattern": r"^\s*(>=|<=|>|<|=)\s*[0-9.]+(\s*,\s*(>=|<=|>|<|=)\s*[0-9.]+)*\s*$",
        })
    }
}
