//! What the command line takes.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;

use crate::arch::Arch;
use crate::image::own::{KernelFiles, KernelTree, OwnKernel};
use crate::image::spec::DebianName;

const EXAMPLES: &str = "\
Examples:
  kmodlab run                               every scenario on every default image
  kmodlab run refcount --image x86_64       those with `refcount` in their id, on one image
  kmodlab run my.yaml --arch arm --cold     one file, booting the guest
  kmodlab run --html report --junit j.xml   with pages for a browser, and XML for a CI server
  kmodlab check my.yaml                     what is wrong with a file
  kmodlab selftest ftrace test.d/kprobe     the kernel's own tests of probes
  kmodlab list --coverage                   what the scenarios cover, and what not
  kmodlab blame --trace trace.txt           who holds a module, from a log
  kmodlab run --kernel-tree ~/linux         every scenario on a kernel that you built
  git bisect run kmodlab run --kernel-tree . --build refcount/leak
                                            the commit of a kernel that broke a scenario
  kmodlab shell x86_64                      a guest to try things in
  kmodlab doctor                            what is missing on this machine

Exit codes:
  0    every case passed or was skipped
  1    a case failed, crashed or timed out
  2    the command line or a file is wrong
  125  no case was bad, but one could not be tested
  130  interrupted
`git bisect run` takes 0 as good, 1 as bad, and 125 as a commit to skip.";

/// Boots real kernels in QEMU, loads kernel modules into them, runs scenarios, and says what happened.
#[derive(Debug, Parser)]
#[command(name = "kmodlab", version, after_help = EXAMPLES, max_term_width = 110)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Subcommand,
}

/// Arguments of every subcommand.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Global {
    /// The folder that holds `scenarios`, `test-modules` and perhaps `images` [default: found from the working directory up]
    #[arg(long, global = true, value_name = "DIR", env = "KMODLAB_ROOT")]
    pub(super) root: Option<PathBuf>,
    /// Where kernels, modules and snapshots are kept [default: kmodlab in the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "KMODLAB_CACHE")]
    pub(super) cache: Option<PathBuf>,
    /// Show each step of a case, and its time
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    /// Print plain lines, each once, without colors: for screen readers. So it is anyway where there is no terminal
    #[arg(long, global = true, env = "KMODLAB_PLAIN", value_parser = clap::builder::FalseyValueParser::new())]
    pub(super) plain: bool,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run scenarios
    Run(Run),
    /// Run the kernel's own tests
    #[command(subcommand)]
    Selftest(Selftest),
    /// Make reports of runs that are over, or one of several, from their JSON documents
    Report(Report),
    /// Say what changed from one run to another
    Diff(Diff),
    /// List cases, or what they cover, without running them
    List(List),
    /// Validate scenario files without booting anything
    Check(Check),
    /// Say what holds a module: who took each reference, through what code, and whether it was given back
    Blame(Blame),
    /// Start a guest and open a shell in it, with the test modules at hand
    Shell(ShellArgs),
    /// Say what this machine lacks, and the remedy
    Doctor(Doctor),
    /// Build kernels from source
    #[command(subcommand)]
    Kernel(Kernel),
    /// Print the options that a kernel needs for an architecture's guests, as a fragment of its configuration
    Kconfig {
        /// The architecture
        arch: Arch,
    },
    /// Print the JSON Schema of scenario files, of the document that `run --json` writes, or of what `diff --format json`
    /// prints
    Schema {
        /// Of what
        #[arg(value_name = "WHAT", default_value = "scenario")]
        of: Schema,
    },
    /// List images and the cache; fill and empty the cache
    #[command(subcommand)]
    Image(Image),
    /// Build and list test modules
    #[command(subcommand)]
    Module(Module),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Which cases.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Selection {
    /// Scenario files, folders of them, or a part of a scenario's id [default: every scenario]
    #[arg(value_name = "SCENARIO")]
    pub(super) scenarios: Vec<String>,
    #[command(flatten)]
    pub(super) targets: Targets,
}

/// On which images.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Targets {
    /// Only on this image, or on `all`; may be repeated [default: the default images]
    #[arg(short, long = "image", value_name = "NAME", conflicts_with_all = ["kernel_tree", "kernel"])]
    pub(super) images: Vec<String>,
    /// Only on images of this architecture: its default image, or else all that it has; may be repeated
    #[arg(short, long = "arch", value_name = "ARCH")]
    pub(super) archs: Vec<Arch>,
    #[command(flatten)]
    pub(super) kernel: KernelChoice,
}

/// A kernel of the user's own, in place of an image.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct KernelChoice {
    /// On the kernel that is built in this folder: a kernel tree, or what `O=` named [env: KMODLAB_KERNEL_TREE]
    #[arg(long, value_name = "DIR", conflicts_with = "kernel", help_heading = KERNEL)]
    pub(super) kernel_tree: Option<PathBuf>,
    /// Build the tree first, with its own `.config`; what does not build exits with 125, as `git bisect run` wants it
    #[arg(long, requires = "kernel_tree", help_heading = KERNEL)]
    pub(super) build: bool,
    /// On this kernel: a boot file, such as `/boot/vmlinuz-RELEASE`
    #[arg(long, value_name = "FILE", help_heading = KERNEL)]
    pub(super) kernel: Option<PathBuf>,
    /// The modules of `--kernel`, as `/lib/modules/RELEASE`
    #[arg(long, value_name = "DIR", requires = "kernel", help_heading = KERNEL)]
    pub(super) modules: Option<PathBuf>,
    /// What test modules are built against with `--kernel` [default: `build` in the directory of `--modules`]
    #[arg(long, value_name = "DIR", requires = "kernel", help_heading = KERNEL)]
    pub(super) headers: Option<PathBuf>,
}

const KERNEL: &str = "A kernel of your own";

impl KernelChoice {
    /// The tree that is to be built.
    pub(super) fn to_build(&self) -> Option<KernelTree> {
        self.kernel_tree.as_ref().filter(|_| self.build).map(KernelTree::new)
    }

    /// The kernel that the command line names.
    pub(super) fn named(&self) -> Option<OwnKernel> {
        let tree = self.kernel_tree.as_ref().map(|dir| OwnKernel::Tree(KernelTree::new(dir)));
        tree.or_else(|| {
            let (modules, headers) = (self.modules.clone(), self.headers.clone());
            Some(OwnKernel::Files(KernelFiles { kernel: self.kernel.clone()?, modules, headers }))
        })
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Run each case so many times, each in a guest of its own, to reproduce a race
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: Option<u32>,
    /// Repeat a case that passes, each time in a guest of its own, until it has passed so many times: a pass by luck is
    /// not believed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "repeat")]
    pub(super) flaky_repeat: Option<u32>,
    /// Then wait, and run again what a change of a scenario, a test module, an image or a kernel of your own touches, until
    /// Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// Begin no case after one that failed, crashed or timed out
    #[arg(long)]
    pub(super) until_fail: bool,
    /// Draw the delays before steps beside which programs run from this number, and the following for repeats
    /// [default: none, and a number of the run's own with --repeat]
    #[arg(long, value_name = "NUMBER")]
    pub(super) seed: Option<u64>,
    #[command(flatten)]
    pub(super) running: Running,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Selftest {
    /// Run tests of tracing: `tools/testing/selftests/ftrace` of the image's kernel, each test in a guest of its own
    Ftrace(Ftrace),
}

#[derive(Debug, clap::Args)]
pub(super) struct Ftrace {
    /// Parts of tests' paths, such as `test.d/kprobe` [default: every test]
    #[arg(value_name = "PATTERN")]
    pub(super) patterns: Vec<String>,
    #[command(flatten)]
    pub(super) targets: Targets,
    #[command(flatten)]
    pub(super) running: Running,
}

/// How cases are run and reported.
#[derive(Debug, clap::Args)]
pub(super) struct Running {
    #[command(flatten)]
    pub(super) machine: Machine,
    /// How many cases run at once [default: from cores and free memory]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) jobs: Option<u16>,
    /// Keep the artifacts of cases that passed, too: logs, trace, transcript, and a script that boots the guest
    #[arg(long)]
    pub(super) keep: bool,
    /// Where artifacts go [default: kmodlab/runs in the user's state directory, for the last ten runs]
    #[arg(long, value_name = "DIR", env = crate::testing::ARTIFACTS)]
    pub(super) artifacts: Option<PathBuf>,
    /// Name a case that is still under way after this long, and again after twice as long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) slow_after: Duration,
    #[command(flatten)]
    pub(super) reports: Reports,
    /// Write which lines of the kernel and of test modules each case executed to `IMAGE.info` in this folder, as lcov's
    /// tracefiles have it: by gcov or kcov, for kernels with CONFIG_GCOV_KERNEL or CONFIG_KCOV
    #[arg(long, value_name = "DIR")]
    pub(super) coverage_dir: Option<PathBuf>,
    /// What is printed: a report for people to standard error, or also one JSON document to standard output
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(super) format: Format,
}

/// The reports to write; any number of them, from the same run.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Reports {
    /// Write JUnit's XML, for CI servers, to this file
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Write KTAP, the kernel's test results, to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) ktap: Option<PathBuf>,
    /// Write the whole run as one JSON document to this file (`kmodlab schema report` describes it)
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write pages for a browser to this folder, in place of an earlier report there
    #[arg(long, value_name = "DIR")]
    pub(super) html: Option<PathBuf>,
}

const DIFF_EXIT_CODES: &str = "\
Exit codes:
  0    nothing went wrong that did not before
  1    something did
  2    the command line or a file is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = DIFF_EXIT_CODES)]
pub(super) struct Diff {
    /// The JSON document of the earlier run, as `run --json` writes it
    #[arg(value_name = "OLD")]
    pub(super) old: PathBuf,
    /// That of the later one
    #[arg(value_name = "NEW")]
    pub(super) new: PathBuf,
    /// A case that took more than so many times as long is slower
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0, value_parser = positive)]
    pub(super) slower: f64,
    /// What is printed: a list for people, or a JSON document
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(super) format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Report {
    /// JSON documents of runs, as `run --json` writes them, or folders of such files; several, such as those of shards,
    /// become one run
    #[arg(value_name = "RUN", required = true)]
    pub(super) runs: Vec<PathBuf>,
    /// Fail, with what is missing and what is too much, unless these are the cases: a file with an id on each line, of
    /// which the first word counts, as `kmodlab list` prints them
    #[arg(long, value_name = "FILE")]
    pub(super) cases: Option<PathBuf>,
    /// Also write a report of code quality, with which GitLab shows what went wrong at the scenarios' lines, to this file
    #[arg(long, value_name = "FILE")]
    pub(super) code_quality: Option<PathBuf>,
    #[command(flatten)]
    pub(super) reports: Reports,
}

/// How guests are run.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Machine {
    /// Boot every guest instead of restoring it from a snapshot
    #[arg(long)]
    pub(super) cold: bool,
    /// Who runs the guests' instructions; `auto` uses KVM where a trial shows that it works
    #[arg(long, value_name = "ACCEL", default_value = "auto")]
    pub(super) accel: AccelChoice,
    /// Multiplies every time limit, for slow machines
    #[arg(long, value_name = "FACTOR", env = crate::testing::TIMEOUT_SCALE, default_value_t = 1.0, value_parser = positive)]
    pub(super) timeout_scale: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Human,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Schema {
    Scenario,
    Report,
    Diff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AccelChoice {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Show which rows of the list of behaviours (R1 to R23, P1 to P11) the scenarios cover, and which none does
    #[arg(long)]
    pub(super) coverage: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) selection: Selection,
}

const BLAME_EXAMPLES: &str = "\
Examples:
  kmodlab blame --trace trace.txt           every module that the trace shows held
  kmodlab blame --trace trace.txt loop      one module, whatever there is to say of it
  kmodlab blame --trace trace.dat loop      the recording that trace-cmd has made
  kmodlab blame loop --image x86_64 -- 'exec 3< /dev/loop0; sleep 300 &'     in a guest, what holds it then
  kmodlab blame --live loop                 on this machine, as root, until Ctrl-C
  kmodlab blame --live loop --refscan refscan.ko                with what holds it inside the kernel
  kmodlab blame --trace /sys/kernel/tracing/trace_pipe loop     until Ctrl-C

Exit codes:
  0    nothing holds it
  1    something does, it was given back too often, or it cannot be removed
  2    the command line is wrong, the file cannot be read, or it has no such module
  125  the trace cannot tell, the guest did not start, or the module did not build or load";

#[derive(Debug, clap::Args)]
#[command(after_help = BLAME_EXAMPLES)]
#[command(group = clap::ArgGroup::new("from").args(["trace", "image", "live", "kernel_tree", "kernel"]).required(true))]
pub(super) struct Blame {
    /// The module [default: every module of the trace]. In a guest: a file `NAME.ko`, a folder with a Kbuild, a test
    /// module, or one of the image's kernel
    #[arg(value_name = "MODULE")]
    pub(super) module: Option<String>,
    /// A trace with the events of the group `module`: a recording of `trace-cmd record`, or text, from tracefs or
    /// `trace-cmd report`; `-` is standard input, for text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["commands", "cold", "accel", "timeout_scale"])]
    pub(super) trace: Option<String>,
    /// Load the module into a guest of this image, run the commands, and try to remove it
    #[arg(short, long, value_name = "NAME", requires = "module")]
    pub(super) image: Option<String>,
    #[command(flatten)]
    pub(super) kernel: KernelChoice,
    #[command(flatten)]
    pub(super) machine: Machine,
    /// Commands for the guest's shell; what they leave in the background stays. The module is to be removed as soon as
    /// they end: have files opened before (`exec 3< FILE; sleep 300 &`), not in the background
    #[arg(last = true, value_name = "COMMANDS")]
    pub(super) commands: Vec<String>,
    /// Look at this machine's own kernel, as root: what holds the module now, then what takes and gives references
    /// until Ctrl-C. Nothing is left behind
    #[arg(long, requires = "module", conflicts_with_all = ["commands", "cold", "accel", "timeout_scale"])]
    pub(super) live: bool,
    /// With --live, find holders inside the kernel, too: the test module `refscan`, built for the running kernel, is loaded
    /// for each look and removed after it. Where it is loaded already, it is used without this
    #[arg(long, value_name = "FILE", requires = "live")]
    pub(super) refscan: Option<PathBuf>,
    /// What is printed: an answer for people, or a JSON document
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(super) format: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShellArgs {
    /// The image
    #[arg(required_unless_present_any = ["kernel_tree", "kernel"], conflicts_with_all = ["kernel_tree", "kernel"])]
    pub(super) image: Option<String>,
    #[command(flatten)]
    pub(super) kernel: KernelChoice,
    #[command(flatten)]
    pub(super) machine: Machine,
    /// Serve gdb, and say how to attach
    #[arg(long, conflicts_with = "command")]
    pub(super) gdb: bool,
    /// A command to run in place of a shell; its exit status becomes kmodlab's
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// Look at what this image needs, or `all`; may be repeated [default: the default images]
    #[arg(short, long = "image", value_name = "NAME")]
    pub(super) images: Vec<String>,
    /// Print only the names of Debian packages to install, for a script
    #[arg(long)]
    pub(super) missing_packages: bool,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Image {
    /// List the images, and what the cache holds
    List,
    /// Fetch and prepare images
    Fetch {
        /// The images [default: the default images]
        names: Vec<String>,
        /// Look for newer packages, even where the cache has some
        #[arg(long)]
        refresh: bool,
    },
    /// Pack what scenarios start from into one file, for other machines: kernels, test modules, snapshots
    Pack {
        /// The file to write, such as `images.tar.zst`
        file: PathBuf,
        /// The images [default: the default images]
        names: Vec<String>,
        #[command(flatten)]
        machine: Machine,
    },
    /// Put what was packed into the cache
    Unpack {
        /// The file that `image pack` wrote
        file: PathBuf,
    },
    /// Remove what is in the cache and not in use
    Clean {
        /// Only what has not been used for so long, such as `7d`
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
        unused_for: Duration,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Kernel {
    /// Build a small kernel with the options that `kmodlab kconfig` prints and no others, and print where it is
    Build {
        /// A tree of the kernel's sources that was not built in place, or `linux-source`: Debian's package of them
        #[arg(value_name = "DIR|linux-source")]
        source: PathBuf,
        /// The architecture
        #[arg(short, long, value_name = "ARCH")]
        arch: Arch,
        /// The code name of the Debian release whose `linux-source` is meant
        #[arg(long, value_name = "SUITE", default_value = "bookworm")]
        suite: DebianName,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Module {
    /// Build test modules and print where they are
    Build {
        /// The test modules, or folders with a Kbuild [default: every test module]
        #[arg(value_name = "MODULES")]
        names: Vec<String>,
        /// Only for this image; may be repeated [default: the default images]
        #[arg(short, long = "image", value_name = "NAME", conflicts_with_all = ["kernel_tree", "kernel"])]
        images: Vec<String>,
        #[command(flatten)]
        kernel: KernelChoice,
    },
    /// List the test modules
    List,
    /// Say which functions of a module take and give references, and which of its tables have the kernel do so
    Callers {
        /// A file `NAME.ko` (or `.ko.xz`), a folder with a Kbuild, or a test module
        module: String,
        /// For this image, where the module has to be built; may be repeated [default: the default images]
        #[arg(short, long = "image", value_name = "NAME", conflicts_with_all = ["kernel_tree", "kernel"])]
        images: Vec<String>,
        #[command(flatten)]
        kernel: KernelChoice,
        /// What is printed: a list for people, or a JSON document
        #[arg(long, value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("must be a number above 0".to_owned()),
    }
}

/// Prints a completion script to standard output.
pub(super) fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kmodlab", &mut script);
    // A closed standard output leaves nobody to tell; the generator itself would panic.
    let _ = std::io::stdout().write_all(&script);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }
}
