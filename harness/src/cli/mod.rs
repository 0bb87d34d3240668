//! The command line: a file per subcommand, and the only place that decides exit codes.

mod args;
mod blame;
mod blame_guest;
mod blame_live;
mod check;
mod diff;
mod doctor;
mod image;
mod kernel;
mod list;
mod module;
mod report;
mod run;
mod schema;
mod select;
mod selftest;
mod shell;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use self::args::{Args, Subcommand};
use crate::image::own::{self, OwnKernel};
use crate::image::spec;
use crate::lab::{self, Lab};
use crate::report::{Human, Style, Verbosity, printable};
use crate::work::Cancel;

/// The exit codes that are not decided by a run's totals.
mod exit {
    /// The command line or a file is wrong.
    pub(super) const USAGE: u8 = 2;
    /// The test could not be made. `git bisect run` takes it as "cannot be tested".
    pub(super) const ERROR: u8 = 125;
    /// Interrupted.
    pub(super) const INTERRUPTED: u8 = 130;
}

/// Why a command ended badly: what to print and which code to exit with.
#[derive(Debug)]
struct Stop {
    code: u8,
    message: String,
}

impl Stop {
    /// The command line or a file is wrong.
    fn usage(message: impl ToString) -> Self {
        Stop { code: exit::USAGE, message: message.to_string() }
    }

    /// What was asked for could not be done.
    fn error(error: &(dyn std::error::Error + 'static)) -> Self {
        Stop { code: exit::ERROR, message: crate::error::chain(error) }
    }

    fn interrupted() -> Self {
        Stop { code: exit::INTERRUPTED, message: "interrupted".into() }
    }
}

/// What the subcommands share.
struct Context {
    args: args::Global,
    cancel: Cancel,
    human: Arc<Human>,
}

impl Context {
    /// The project's folders and the cache, as the command line names them.
    fn lab(&self) -> Result<Lab, Stop> {
        let watch = Arc::clone(&self.human) as Arc<dyn crate::work::Watch>;
        Lab::open(self.args.root.as_deref(), self.args.cache.as_deref(), watch, self.cancel.clone()).map_err(
            |error| match error {
                lab::Error::Io(_) => Stop::error(&error),
                error => Stop::usage(crate::error::chain(&error)),
            },
        )
    }

    /// As [`Context::lab_with`].
    fn lab_for(&self, targets: &args::Targets) -> Result<Lab, Stop> {
        self.lab_with(&targets.kernel, &targets.images)
    }

    /// The same with the kernel of the user's own, where the command line or, unless other images are named, the
    /// environment names one.
    fn lab_with(&self, kernel: &args::KernelChoice, images: &[String]) -> Result<Lab, Stop> {
        let mut lab = self.lab()?;
        let failed = |error: own::Error| match error.is_usage() {
            true => Stop::usage(crate::error::chain(&error)),
            false => Stop::error(&error),
        };
        if let Some(tree) = kernel.to_build() {
            tree.build(lab.watch(), lab.cancel()).map_err(failed)?;
        }
        let named = |own: &OwnKernel| images.is_empty() || images.iter().any(|name| name == own.image_name());
        if let Some(own) = kernel.named().or_else(|| OwnKernel::from_env().filter(named)) {
            lab.add_kernel(own).map_err(|error| match error {
                spec::Error::Own(error) => failed(error),
                error => Stop::usage(crate::error::chain(&error)),
            })?;
        }
        Ok(lab)
    }
}

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let result = context(&args).and_then(|context| {
        dispatch(args.command, &context).map_err(|stop| match stop.code {
            // Whatever could not be done then, this is why.
            exit::ERROR if context.cancel.is_cancelled() => Stop::interrupted(),
            _ => stop,
        })
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(stop) => {
            complain(&stop.message);
            ExitCode::from(stop.code)
        }
    }
}

fn context(args: &Args) -> Result<Context, Stop> {
    let cancel = Cancel::new().and_then(|cancel| {
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::low_level::pipe::register(signal, cancel.signal_fd().try_clone_to_owned()?)?;
        }
        Ok(cancel)
    });
    let cancel = cancel.map_err(|error| Stop::error(&error))?;
    let verbosity = if args.global.verbose { Verbosity::Verbose } else { Verbosity::Normal };
    Ok(Context {
        args: args.global.clone(),
        cancel,
        human: Arc::new(Human::new(Style { verbosity, plain: args.global.plain })),
    })
}

fn dispatch(command: Subcommand, context: &Context) -> Result<u8, Stop> {
    match command {
        Subcommand::Run(args) => run::run(context, &args),
        Subcommand::Selftest(args) => selftest::selftest(context, &args),
        Subcommand::Diff(args) => diff::diff(&args),
        Subcommand::Report(args) => report::report(&args),
        Subcommand::List(args) => list::list(context, &args),
        Subcommand::Check(args) => check::check(context, &args),
        Subcommand::Blame(args) => blame::blame(context, &args),
        Subcommand::Shell(args) => shell::shell(context, &args),
        Subcommand::Doctor(args) => doctor::doctor(context, &args),
        Subcommand::Kernel(command) => kernel::kernel(context, &command),
        Subcommand::Kconfig { arch } => Ok(kernel::kconfig(arch)),
        Subcommand::Schema { of } => schema::schema(of),
        Subcommand::Image(command) => image::image(context, &command),
        Subcommand::Module(command) => module::module(context, &command),
        Subcommand::Completions { shell } => Ok(args::completions(shell)),
    }
}

/// Prints an error to standard error.
#[expect(clippy::print_stderr, reason = "the command line prints")]
fn complain(message: &str) {
    eprintln!("kmodlab: {}", printable(message));
}

/// Prints a line to standard output; a closed one ends the program quietly, as it ends other tools.
fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
