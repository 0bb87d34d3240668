//! Image files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::own::{self, Found, OwnKernel};
use crate::arch::{self, Arch};
use crate::guest::agent::Transport;
use crate::scenario::values::Value;
use crate::yaml::{self, Diagnostic, Spanned};

/// An image: kernel, userland and machine, as `images/<name>.yaml` says it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSpec {
    /// The file's name without `.yaml`.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
    /// What it says.
    pub image: Image,
}

impl std::ops::Deref for ImageSpec {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

/// What an image file says.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// What it is, in a few words.
    pub description: String,
    /// Its architecture.
    #[schemars(with = "String")]
    pub arch: Arch,
    /// Where its kernel comes from.
    pub kernel: KernelSource,
    /// Where its userland comes from.
    pub userland: UserlandSource,
    /// The guest's memory, such as `256M`.
    #[schemars(with = "Memory")]
    pub memory: Spanned<Memory>,
    /// What the channels to the guest go over. By default virtio, and serial ports where the kernel has no drivers for it.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Kernel arguments, besides those that every guest gets.
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// Whether scenarios run on it where no image is named.
    #[serde(default)]
    pub default: bool,
    /// Values for scenarios to use by name, where kernels differ.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KernelSource {
    /// A kernel of Debian's.
    Debian(DebianKernel),
    /// A small kernel, built from Debian's package of the kernel's sources.
    Source(DebianSource),
    /// A kernel of the user's own, which the command line names.
    #[serde(skip)]
    Own(OwnKernel),
}

impl std::fmt::Display for KernelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KernelSource::Debian(kernel) => write!(f, "Debian {}, {}", kernel.suite, kernel.flavour),
            KernelSource::Source(source) => write!(f, "built from the sources of Debian {}", source.suite),
            KernelSource::Own(own) => f.write_str(&own.arguments()),
        }
    }
}

/// A kernel of Debian's, with its headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DebianKernel {
    /// The release's code name.
    pub suite: DebianName,
    /// The flavour, as in `linux-image-<flavour>`.
    pub flavour: DebianName,
    /// The suite to take kbuild's tools of that series from, where those of the kernel's own suite need a newer C
    /// library than Debian 12 has: they run on the host.
    #[serde(default)]
    pub kbuild: Option<DebianName>,
}

impl DebianKernel {
    /// The suite that kbuild's tools come from.
    pub fn kbuild_suite(&self) -> &DebianName {
        self.kbuild.as_ref().unwrap_or(&self.suite)
    }
}

/// Debian's package of the kernel's sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DebianSource {
    /// The release's code name: the package is what its `linux-source` stands for.
    pub suite: DebianName,
}

/// Where the programs of a guest come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UserlandSource {
    /// The package `busybox-static` of Debian's.
    Debian(DebianUserland),
    /// busybox, built from Debian's package of its sources, for architectures that Debian does not build packages for.
    Source(DebianUserland),
}

impl UserlandSource {
    /// Where packages come from that can be added; `None` where there are none.
    pub fn packages(&self) -> Option<&DebianUserland> {
        match self {
            UserlandSource::Debian(source) => Some(source),
            UserlandSource::Source(_) => None,
        }
    }
}

/// A release of Debian to take the userland from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DebianUserland {
    /// The release's code name.
    pub suite: DebianName,
}

/// A name as Debian's suites and packages have: lower-case letters, digits, `+`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct DebianName(String);

impl TryFrom<String> for DebianName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        match name.starts_with(letter) && name.chars().all(|c| letter(c) || "+-.".contains(c)) {
            true => Ok(DebianName(name)),
            false => {
                Err(format!("`{name}` is no name of Debian's: lower-case letters, digits, `+`, `-` and `.`"))
            }
        }
    }
}

impl std::str::FromStr for DebianName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        DebianName::try_from(name.to_owned())
    }
}

impl std::ops::Deref for DebianName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DebianName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount of memory: a whole number of MiB (`256M`) or GiB (`1G`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Memory(u32);

impl Memory {
    /// In MiB.
    pub fn mib(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for Memory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let amount = match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(mib), _) => mib.parse().ok(),
            (_, Some(gib)) => gib.parse().ok().and_then(|gib: u32| gib.checked_mul(1024)),
            _ => None,
        };
        let amount = amount.filter(|mib| (1..=1 << 20).contains(mib));
        amount
            .map(Memory)
            .ok_or_else(|| format!("`{text}` is no amount of memory: write it like `256M` or `1G`"))
    }
}

/// How an image file is wrong, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read an image file")]
    Io(#[from] std::io::Error),
    /// It does not say an image.
    #[error(
        "an image file is wrong
{0}"
    )]
    Invalid(String),
    /// A kernel of the user's own cannot be used.
    #[error(transparent)]
    Own(#[from] super::own::Error),
    /// No image is like a kernel of the user's own.
    #[error("there is no image for {arch} to take the userland and the machine of `{kernel}` from")]
    NoTemplate {
        /// The kernel.
        kernel: String,
        /// Its architecture.
        arch: Arch,
    },
    /// There is no such image.
    #[error("unknown image `{name}`: known are {known}{remark}", known = known.join(", "), remark = arch::remark(name))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
}

impl Image {
    /// Whether its kernel or its userland is built from source.
    pub fn is_built_from_source(&self) -> bool {
        matches!(self.kernel, KernelSource::Source(_)) || matches!(self.userland, UserlandSource::Source(_))
    }
}

impl ImageSpec {
    /// The image of a kernel of the user's own, as it was `found`: all but the kernel is as in one of `images` for its
    /// architecture, a default one if there is one.
    ///
    /// # Errors
    ///
    /// Where no image is for its architecture.
    pub fn own(own: OwnKernel, found: &Found, images: &[ImageSpec]) -> Result<Self, Error> {
        let alike = images.iter().filter(|image| image.arch == found.arch);
        let template = alike
            .max_by_key(|image| image.default)
            .ok_or_else(|| Error::NoTemplate { kernel: own.arguments(), arch: found.arch })?;
        let mut image = template.image.clone();
        image.description = format!("your own kernel {}", found.release);
        image.values.extend(own::values(found));
        image.default = true;
        let name = own.image_name().to_owned();
        image.kernel = KernelSource::Own(own);
        Ok(ImageSpec { name, file: template.file.clone(), image })
    }

    /// The arguments of `kmodlab` that choose it.
    pub fn arguments(&self) -> String {
        match &self.kernel {
            KernelSource::Own(own) => own.arguments(),
            KernelSource::Debian(_) | KernelSource::Source(_) => format!("--image {}", self.name),
        }
    }

    /// Reads an image from the text of its file.
    ///
    /// # Errors
    ///
    /// Where the text does not say an image, or one whose memory does not fit its architecture.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let shown = |diagnostics: &[Diagnostic]| yaml::render(&file.to_string_lossy(), text, diagnostics);
        let invalid = |diagnostics: &[Diagnostic]| Error::Invalid(shown(diagnostics).trim_end().to_owned());
        let image: Image = yaml::from_str(text).map_err(|diagnostics| invalid(&diagnostics))?;
        let (memory, step) = (image.memory.mib(), image.arch.memory_step_mib);
        if !memory.is_multiple_of(step) {
            let message = format!(
                "memory of {memory}M
{} takes multiples of {step}M",
                image.arch
            );
            return Err(invalid(&[Diagnostic::new(image.memory.at, message)]));
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(ImageSpec { name, file: file.to_owned(), image })
    }

    /// Reads every `*.yaml` file of a directory, by name.
    ///
    /// # Errors
    ///
    /// Where the directory or one of the files cannot be read, or says no image.
    pub fn read_all(dir: &Path) -> Result<Vec<Self>, Error> {
        let mut files =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
        files.iter().map(|file| ImageSpec::parse(file, &fs::read_to_string(file)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
description: Debian 12 on x86_64
arch: x86_64
kernel: { debian: { suite: bookworm, flavour: amd64 } }
userland: { debian: { suite: bookworm } }
memory: 128M
cmdline: [cryptomgr.notests]
values: { insn-offset: 5 }
";

    fn parse(text: &str) -> Result<ImageSpec, String> {
        ImageSpec::parse(Path::new("images/some.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_is_read() {
        let spec = parse(GOOD).unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.memory.mib(), &spec.values["insn-offset"]),
            ("some", 128, &Value::Int(5))
        );
        let KernelSource::Debian(kernel) = &spec.kernel else { panic!("{}", spec.kernel) };
        assert_eq!((&*kernel.suite, &*kernel.flavour), ("bookworm", "amd64"));
    }

    #[rstest::rstest]
    #[case("memory: 128M", "memory: 128", "`128` is no amount of memory")]
    #[case("memory: 128M", "memory: 0M", "`0M` is no amount of memory")]
    #[case("memory: 128M", "memory: 4000000000G", "is no amount of memory")]
    #[case("arch: x86_64", "arch: ia64", "unknown architecture `ia64`")]
    #[case("arch: x86_64", "arch: ppc64le", "ppc64le takes multiples of 256M")]
    #[case("suite: bookworm,", "suite: book worm,", "`book worm` is no name of Debian's")]
    #[case("flavour: amd64", "flavour: \"a\\nb\"", "is no name of Debian's")]
    #[case("cmdline:", "comdline:", "comdline")]
    #[case("debian: { suite: bookworm, flavour", "fedora: { suite: bookworm, flavour", "fedora")]
    #[case("description: Debian 12 on x86_64\n", "", "description")]
    fn what_is_wrong_is_told(#[case] good: &str, #[case] bad: &str, #[case] message: &str) {
        let text = GOOD.replacen(good, bad, 1);
        assert_ne!(text, GOOD);
        let error = parse(&text).unwrap_err();
        assert!(error.contains(" --> images/some.yaml:") && error.contains(message), "{error}");
    }

    #[test]
    fn the_images_of_the_project_are_right() {
        let images = ImageSpec::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../images")).unwrap();
        let names: Vec<_> = images.iter().map(|image| image.name.as_str()).collect();
        let expected = [
            "arm",
            "arm-5.10",
            "arm-6.12",
            "arm64",
            "i386",
            "mips64el",
            "ppc",
            "ppc64",
            "ppc64le",
            "ppc64le-6.12",
            "riscv64",
            "s390x",
            "sparc64",
            "x86_64",
            "x86_64-5.10",
            "x86_64-6.12",
            "x86_64-small",
        ];
        assert_eq!(names, expected);
    }
}
