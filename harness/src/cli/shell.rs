//! `kmodlab shell`

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::args::ShellArgs;
use super::{Context, Stop, exit, run, say, select};
use crate::gdb;
use crate::guest::proto::{Ending, Run, WriteMode};
use crate::guest::{self, Guest, RequestId};
use crate::process::shell_quote;
use crate::run::{Runner, Session};
use crate::vm::Channel;

/// The most that a command or a shell may take.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// Opens a shell in a guest, or runs a command there, and ends the guest with it.
pub(super) fn shell(context: &Context, args: &ShellArgs) -> Result<u8, Stop> {
    let lab = context.lab_with(&args.kernel, args.image.as_slice())?;
    let image = select::image(&lab, args.image.as_deref())?;
    let runner = Runner::new(&lab, run::options(&args.machine), &*context.human);
    let names: Vec<&str> = lab.sources().iter().map(|source| source.name.as_str()).collect();
    let failed = |message| Stop { code: exit::ERROR, message };
    let mut session = runner.session(&image.name, &names).map_err(failed)?;
    for name in names {
        session.push(name, false).map_err(|error| Stop::error(&error))?;
    }
    session.guest().set_limit(LONG);
    if !args.command.is_empty() {
        return command(&mut session, &args.command);
    }
    // Its files go with it.
    let _folder = if args.gdb { Some(serve_gdb(&mut session)?) } else { None };
    interact(&mut session, image.arch.console).map_err(|error| match error {
        guest::Error::Cancelled => Stop::interrupted(),
        error => Stop::error(&error),
    })
}

/// Runs a command; its streams and its status become those of this program.
fn command(session: &mut Session, command: &[String]) -> Result<u8, Stop> {
    let run = Run { argv: command.to_vec(), ..Run::default() };
    let finished = session.guest().run(run).map_err(|error| Stop::error(&error))?;
    let finished = finished.map_err(|errno| Stop {
        code: exit::ERROR,
        message: format!("`{}` cannot be started in the guest: {errno}", command.join(" ")),
    })?;
    // Nobody is left to tell that a stream is closed.
    let _ = io::stdout().write_all(&finished.stdout.bytes());
    let _ = io::stderr().write_all(&finished.stderr.bytes());
    Ok(match finished.ending {
        Ending::Exited(status) => u8::try_from(status).unwrap_or(u8::MAX),
        // As a shell reports it.
        Ending::Signalled(signal) => u8::try_from(128 + signal.0).unwrap_or(u8::MAX),
    })
}

/// What the guest's shell has for gdb: it prints the command that tells gdb where a loaded module is.
const GDB_SYMBOLS: &str = "\
#!/bin/sh
cd \"/sys/module/${1:?which module?}/sections\" || exit
printf 'add-symbol-file %s.ko' \"$1\"
for section in $(ls -A); do
    case $section in
    *.init* | .symtab | .strtab) ;;
    *) printf ' -s %s %s' \"$section\" \"$(cat \"$section\")\" ;;
    esac
done
echo
";

/// Opens the guest for gdb, and says how to attach.
fn serve_gdb(session: &mut Session) -> Result<gdb::Folder, Stop> {
    let folder = session.debug().map_err(|error| Stop::error(&error))?;
    let script =
        session.guest().write_file("/bin/gdb-symbols", WriteMode::Create, 0o755, GDB_SYMBOLS.as_bytes());
    script.map_err(|error| Stop::error(&error))?.map_err(|errno| Stop {
        code: exit::ERROR,
        message: format!("cannot write `/bin/gdb-symbols` in the guest: {errno}"),
    })?;
    say(format_args!(
        "attach with: {} -x {}\nonce a test module is loaded, `gdb-symbols MODULE` here prints the command that tells gdb of it",
        gdb::GDB,
        shell_quote(&folder.script().to_string_lossy())
    ));
    Ok(folder)
}

/// Connects the terminal with a shell on the guest's serial port, until that ends.
fn interact(session: &mut Session, console: &str) -> Result<u8, guest::Error> {
    let guest = session.guest();
    // setsid must not be the leader of its group, or it forks and its parent is done at once: hence the shell around it.
    // The last stty waits until the terminal has got everything (TCSADRAIN).
    let line = format!(
        "setsid -c sh -c 'stty sane; echo modprobe knows the test modules, exit ends the guest; sh; stty sane' \
         </dev/{console} >/dev/{console} 2>&1; exit"
    );
    let run = Run { argv: vec!["/bin/sh".into(), "-c".into(), line], ..Run::default() };
    let mut seen = u64::MAX;
    guest.console_news(&mut seen);
    let shell = match guest.spawn(run)? {
        Ok((shell, _)) => shell,
        Err(errno) => return Err(guest::Error::Refused(format!("no shell: {errno}"))),
    };
    let _raw = Raw::enter();
    relay(guest, shell, seen)?;
    Ok(0)
}

fn relay(guest: &mut Guest, shell: RequestId, mut seen: u64) -> Result<(), guest::Error> {
    let stdin = io::stdin();
    let mut input = stdin.as_fd().try_clone_to_owned().ok();
    let deadline = Instant::now() + LONG;
    let mut over = false;
    while !over {
        guest.pump(deadline)?;
        over = guest.is_over(shell);
        let news = guest.console_news(&mut seen);
        let mut stdout = io::stdout();
        if stdout.write_all(&news).and_then(|()| stdout.flush()).is_err() {
            break;
        }
        // What comes before the shell's prompt would be lost when the shell sets up the terminal.
        if input.is_some() && memchr::memmem::find(&news, b"# ").is_some() {
            guest.vm().watch(input.take());
        }
        if guest.vm().take_watched() {
            let mut typed = [0; 4096];
            match stdin.lock().read(&mut typed) {
                Ok(count) if count > 0 => guest.vm().write(Channel::Console, &typed[..count]),
                _ => {
                    guest.vm().watch(None);
                    // The end of a file, as a terminal says it.
                    guest.vm().write(Channel::Console, b"\x04");
                }
            }
        }
    }
    Ok(())
}

/// A terminal in raw mode, for the guest to do the editing; it is set back when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = io::stdin();
        let saved = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            // One that cannot be made raw still serves, line by line.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Raw(saved)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}
