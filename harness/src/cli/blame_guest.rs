//! `kmodlab blame --image`: a module watched in a guest.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use fs_err as fs;

use super::args::Blame;
use super::{Context, Stop, complain, exit, run, select};
use crate::blame::{Answer, Verdict};
use crate::guest::Errno;
use crate::guest::proto::Ending;
use crate::holders::SCANNER;
use crate::image::depmod::{ModInfo, name_of};
use crate::lab::Lab;
use crate::module::{Builder, Sources};
use crate::run::{Runner, Session, headers};

/// The most that the commands may take: their user can interrupt them.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where the module comes from.
enum Subject {
    /// A test module, after those that it needs.
    Test(Vec<String>),
    /// A file that was built for the image's kernel, or is built now, after the files that it needs.
    Files(Vec<(String, Vec<u8>)>),
    /// One of the image's kernel.
    InTree(String),
}

impl Subject {
    fn name(&self) -> &str {
        match self {
            Subject::Test(names) => names.last().map_or("", String::as_str),
            Subject::Files(files) => files.last().map_or("", |(name, _)| name.as_str()),
            Subject::InTree(name) => name,
        }
    }
}

/// Loads the module, runs the commands, tries to remove it, and says what holds it.
pub(super) fn answer(context: &Context, args: &Blame, module: &str) -> Result<Answer, Stop> {
    let lab = context.lab_with(&args.kernel, args.image.as_slice())?;
    let image = select::image(&lab, args.image.as_deref())?.name;
    let subject = subject(&lab, &image, module)?;
    let mut tests: Vec<&str> = match &subject {
        Subject::Test(names) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let scans = subject.name() != SCANNER && lab.sources().get(SCANNER).is_ok();
    tests.extend(Some(SCANNER).filter(|_| scans));
    let runner = Runner::new(&lab, run::options(&args.machine), &*context.human);
    let mut session =
        runner.session(&image, &tests).map_err(|message| Stop { code: exit::ERROR, message })?;
    let failed = |error| Stop::error(&error);
    session.watch_module(subject.name()).map_err(failed)?;
    load(&mut session, &subject)?;
    if !args.commands.is_empty() {
        session.guest().set_limit(LONG);
        let finished = session.shell(&args.commands.join(" ")).map_err(failed)?;
        // What is printed on standard output is the answer. Nobody is left to tell that standard error is closed.
        let _ = io::stderr().write_all(&finished.stdout.bytes());
        let _ = io::stderr().write_all(&finished.stderr.bytes());
        match finished.ending {
            Ending::Exited(0) => {}
            Ending::Exited(status) => complain(&format!("the commands ended with status {status}")),
            Ending::Signalled(signal) => complain(&format!("the commands were ended by {signal}")),
        }
    }
    let (ledger, removal) = session.account_for(subject.name()).map_err(failed)?;
    let mut answer = Answer::new(ledger);
    if answer.verdict == Verdict::Held && scans {
        match session.scan(subject.name()).map_err(failed)? {
            Ok(scan) => answer = answer.with_scan(&scan),
            Err(errno) => complain(&format!("the module that scans for holders does not load: {errno}")),
        }
    }
    Ok(removal.iter().fold(answer, Answer::after))
}

fn subject(lab: &Lab, image: &str, module: &str) -> Result<Subject, Stop> {
    let path = Path::new(module);
    if path.is_dir() {
        return folder(lab, image, path).map(Subject::Files);
    }
    if path.extension().is_some_and(|extension| extension == "ko") {
        let bytes = fs::read(path).map_err(Stop::usage)?;
        return Ok(Subject::Files(vec![(name_of(module), bytes)]));
    }
    let name = name_of(module);
    match lab.sources().in_order(&name) {
        Ok(sources) => Ok(Subject::Test(sources.into_iter().map(|source| source.name.clone()).collect())),
        Err(_) => Ok(Subject::InTree(name)),
    }
}

/// Builds the module in a folder with a Kbuild.
fn folder(lab: &Lab, image: &str, path: &Path) -> Result<Vec<(String, Vec<u8>)>, Stop> {
    let spec = lab.image(image).map_err(Stop::usage)?;
    let failed = |error: &(dyn std::error::Error + 'static)| Stop::error(error);
    let image = lab.store().prepare(&spec, lab.watch(), lab.cancel()).map_err(|error| failed(&error))?;
    let builder = headers(&image)
        .and_then(|headers| Builder::new(lab.cache(), headers, lab.watch(), lab.cancel()))
        .map_err(|error| failed(&error))?;
    let sources = Sources::single(path).map_err(Stop::usage)?;
    let mut files = Vec::new();
    for source in sources.iter() {
        for module in builder.build(&sources, &source.name).map_err(|error| failed(&error))? {
            let bytes = fs::read(module.ko()).map_err(|error| failed(&error))?;
            files.push((name_of(&module.name), bytes));
        }
    }
    Ok(files)
}

fn load(session: &mut Session, subject: &Subject) -> Result<(), Stop> {
    match subject {
        Subject::Test(names) => names.iter().try_for_each(|name| load_known(session, name, false)),
        Subject::InTree(name) => load_known(session, name, true),
        Subject::Files(files) => {
            for (name, bytes) in files {
                let own = |needed: &String| files.iter().any(|(name, _)| name == needed);
                for needed in ModInfo::of(bytes).unwrap_or_default().depends.iter().filter(|name| !own(name))
                {
                    load_known(session, needed, true)?;
                }
                let answer = session.load_bytes(name, bytes).map_err(|error| Stop::error(&error))?;
                loaded(session, name, answer)?;
            }
            Ok(())
        }
    }
}

fn load_known(session: &mut Session, name: &str, in_tree: bool) -> Result<(), Stop> {
    let result = session.load(name, in_tree, "", false).map_err(|error| Stop::error(&error))?;
    loaded(session, &result.module, result.answer)
}

/// What the kernel says of a module that does not load is in its log.
fn loaded(session: &mut Session, name: &str, answer: Result<(), Errno>) -> Result<(), Stop> {
    let Err(errno) = answer else { return Ok(()) };
    let records = session.guest().streams().records();
    let words: Vec<&str> = records.iter().rev().take(3).map(|record| record.text.as_str()).collect();
    let log: String = words.iter().rev().map(|text| format!("\n  {text}")).collect();
    Err(Stop {
        code: exit::ERROR,
        message: format!("`{name}` does not load: {errno}\nthe end of the log:{log}"),
    })
}
