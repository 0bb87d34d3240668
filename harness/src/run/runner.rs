//! Running cases: images and modules are made ready at first need, once, and shared by all cases.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::accel::{AccelChoice, Accelerators};
use super::counts::{self, OVERRUN, Way};
use super::event::{CaseId, CaseReport, Event, Reporter};
use super::evidence::Evidence;
use super::execute::{Executed, Executor, Steps};
use super::material::Material;
use super::outcome::{Kind, Outcome};
use super::start::{Bootable, StartError, Starter};
use super::transcript::{last_lines, log_tail, write_artifacts};
use super::{Limits, Session, code};
use crate::console::Subtests;
use crate::image::depmod::Modules;
use crate::image::prepare::Prepared;
use crate::image::spec::DebianName;
use crate::lab::Lab;
use crate::module::{self, Builder, Built, Headers, Lines, Sources};
use crate::scenario::expand::Case;
use crate::scenario::limits::{self, Ends, Limit};
use crate::scenario::step::Origin;
use crate::scenario::{KernelFacts, Requires};
use crate::vm::{Accel, Boot, Machine};
use crate::yaml::Spanned;

/// Which cases do not begin any more because of others' outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// All begin.
    #[default]
    End,
    /// None, once one has failed, crashed or timed out.
    Fail,
    /// The repeats of one that did not pass.
    NoPass,
}

/// How cases are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether every guest is booted.
    pub cold: bool,
    /// Who runs the guests' instructions.
    pub accel: AccelChoice,
    /// The time limits.
    pub limits: Limits,
    /// Where artifacts go; nowhere if not said.
    pub artifacts: Option<PathBuf>,
    /// Whether the artifacts of cases that passed are kept too.
    pub keep: bool,
    /// Which cases do not begin any more.
    pub until: Until,
    /// Whether it is told which lines a case executed.
    pub coverage: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cold: false,
            accel: AccelChoice::Auto,
            limits: Limits::default(),
            artifacts: None,
            keep: false,
            until: Until::End,
            coverage: false,
        }
    }
}

/// An image that is ready.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) prepared: Prepared,
    pub(super) modules: Modules,
    /// The lines of the kernel's own code, once somebody has asked for them; `None` where there are none.
    pub(super) lines: Mutex<Option<Option<Lines>>>,
}

/// Lines of log that a report of a failure shows.
const TAIL: usize = 20;

/// An image that is ready, or why it is not; whoever comes second waits for the first.
type Slot = Arc<Mutex<Option<Result<Arc<Image>, String>>>>;

/// Runs cases, one at a time for each thread that asks.
pub struct Runner<'a> {
    lab: &'a Lab,
    options: Options,
    reporter: &'a dyn Reporter,
    starter: Starter<'a>,
    accelerators: Accelerators<'a>,
    images: Mutex<HashMap<(String, Vec<DebianName>), Slot>>,
}

/// Why a case did not come to its steps.
enum Early {
    Cancelled,
    Ended(Box<Outcome>, Vec<String>),
}

impl From<String> for Early {
    fn from(reason: String) -> Self {
        Early::Ended(Outcome::Error(reason).into(), Vec::new())
    }
}

impl<'a> Runner<'a> {
    /// A runner for the images and modules of `lab`, which tells `reporter` of what it does.
    pub fn new(lab: &'a Lab, options: Options, reporter: &'a dyn Reporter) -> Self {
        let starter = Starter::new(lab.cache(), options.cold, options.limits, lab.watch(), lab.cancel());
        let accelerators = Accelerators::new(options.accel, lab);
        Runner { lab, options, reporter, starter, accelerators, images: Mutex::default() }
    }

    /// Makes an image ready, with every module that `cases` load and every snapshot that they start from, so that none
    /// of it counts as a case's time.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong; all else was made nevertheless. The cases find it again.
    pub fn prepare(&self, image: &str, cases: &[&Case]) -> Result<(), String> {
        let image = self.image(image, &[])?;
        let mut result = Ok(());
        let mut known: Vec<(Machine, Arc<Image>)> = Vec::new();
        let begun = Instant::now();
        for case in cases.iter().filter(|case| self.unmet(&image, case).is_none()) {
            match self.needed(case) {
                Ok((machine, on)) => {
                    if !known.iter().any(|(of, there)| *of == machine && Arc::ptr_eq(there, &on)) {
                        known.push((machine, on));
                    }
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        let modules = begun.elapsed();
        let mut boot = None;
        for (machine, image) in known {
            match self.starter.prepare(&machine, &bootable(&image.prepared)) {
                Ok(time) => boot = boot.or(time),
                Err(error) => result = result.and(Err(format!("the guest does not start: {error}"))),
            }
        }
        let image = &image.prepared.spec.name;
        self.reporter.event(&Event::ImageReady { image, modules, boot });
        result
    }

    /// What a case starts from, with its modules built.
    fn needed(&self, case: &Case) -> Result<(Machine, Arc<Image>), String> {
        let image = self.image(&case.image, &case.scenario.packages())?;
        self.material(&image, case).map_err(|early| match early {
            Early::Ended(outcome, _) => outcome.reason().unwrap_or_default(),
            Early::Cancelled => "interrupted".to_owned(),
        })?;
        Ok((self.machine(&image, case)?, image))
    }

    /// Runs a case; `None` where the run was told to stop.
    pub fn run(&self, case: &Case) -> Option<CaseReport> {
        let id = CaseId { scenario: case.scenario_id.clone(), image: case.image.clone() };
        self.reporter.event(&Event::CaseStarted(&id));
        let report = self.run_case(case, id)?;
        self.reporter.event(&Event::CaseFinished(&report));
        Some(report)
    }

    fn run_case(&self, case: &Case, id: CaseId) -> Option<CaseReport> {
        let begun = Instant::now();
        let mut report = CaseReport {
            id,
            title: case.scenario.name.value.clone(),
            file: case.path.clone(),
            again: case.again.clone(),
            covers: case.scenario.covers.iter().map(|row| row.value.to_string()).collect(),
            expect: None,
            outcome: Outcome::Pass,
            start: None,
            time: Duration::ZERO,
            steps: Vec::new(),
            subtests: Subtests::default(),
            figures: Vec::new(),
            coverage: None,
            log_tail: Vec::new(),
            evidence: Evidence::default(),
            artifacts: None,
            warnings: Vec::new(),
        };
        if let Err(early) = self.in_guest(case, &mut report) {
            let Early::Ended(outcome, log_tail) = early else { return None };
            report.outcome = *outcome;
            report.log_tail = log_tail;
            report.time = begun.elapsed();
        }
        self.meet_limit(case, &mut report);
        Some(report)
    }

    /// A case that ends as its limit says is skipped; one that passes in spite of it makes the limit's entry out of date.
    fn meet_limit(&self, case: &Case, report: &mut CaseReport) {
        let Ok(image) = self.image(&case.image, &[]) else { return };
        let Some(limit) = limit(&image, case) else { return };
        let kind = report.outcome.kind();
        if Some(kind) == limit.value.ends.kind() {
            report.outcome = Outcome::Skip(limit.value.reason().to_owned());
        } else if kind == Kind::Pass {
            let line = limit.at.line;
            let text =
                format!("{} passes: its entry in {}, line {line}, is out of date", report.id, limits::FILE);
            self.warn(report, text);
        }
    }

    /// Tells the watcher now, and the reports later.
    fn warn(&self, report: &mut CaseReport, text: String) {
        report.warnings.push(text.clone());
        self.lab.warn(text);
    }

    /// Starts a guest and does the case in it.
    fn in_guest(&self, case: &Case, report: &mut CaseReport) -> Result<(), Early> {
        if self.lab.cancel().is_cancelled() {
            return Err(Early::Cancelled);
        }
        let image = self.image(&case.image, &[])?;
        let hopeless = || {
            let limit = limit(&image, case).filter(|limit| limit.value.ends == Ends::Varies)?;
            Some(limit.value.reason().to_owned())
        };
        if let Some(reason) = self.unmet(&image, case).or_else(hopeless) {
            return Err(Early::Ended(Outcome::Skip(reason).into(), Vec::new()));
        }
        let image = self.image(&case.image, &case.scenario.packages())?;
        let material = self.material(&image, case)?;
        let machine = self.machine(&image, case)?;
        let bootable = bootable(&image.prepared);
        let begun = Instant::now();
        let (guest, start) = self.starter.start(&machine, &bootable).map_err(|error| early(&error))?;
        report.start = Some(start);
        let mut session = Session::new(guest, start, material);
        if self.options.coverage {
            counts::begin(&mut session)?;
        }
        let steps = Steps { scenario: &case.scenario, file: &case.path };
        report.expect = case.scenario.expect.as_ref().map(|expect| steps.place(expect.at));
        let executor =
            Executor::new(session, &report.id, steps, self.options.limits, self.reporter, case.seed);
        let Executed { outcome, mut session, transcript, reports, subtests, figures } = executor.run();
        report.time = begun.elapsed();
        report.outcome = outcome.ok_or(Early::Cancelled)?;
        if let Outcome::Crash(crash) = &mut report.outcome
            && let Some(splat) = &crash.splat
        {
            crash.code = code::places(splat, session.material());
        }
        report.steps = reports;
        report.subtests = subtests;
        report.figures = figures;
        if report.outcome.kind() != Kind::Pass {
            report.log_tail = log_tail(session.guest().streams(), TAIL);
        }
        if self.options.coverage {
            match counts::collect(&mut session, &report.id.scenario, self.lab.cache(), self.lab.cancel()) {
                Ok((coverage, complete)) => {
                    report.coverage = Some(coverage);
                    if !complete {
                        let text = format!("the coverage of {} is not complete: {OVERRUN}", report.id);
                        self.warn(report, text);
                    }
                }
                Err(error) => self.warn(report, format!("no coverage of {}: {error}", report.id)),
            }
        }
        report.evidence = Evidence::of(session.guest(), report.outcome.kind() == Kind::Pass);
        // Ends QEMU before its artifacts are written.
        let _ = session.guest().vm().kill();
        if let Some(dir) = self.artifacts_of(report) {
            match write_artifacts(&dir, session.guest(), &transcript, &machine, &bootable.boot) {
                Ok(()) => report.artifacts = Some(dir),
                Err(error) => {
                    self.warn(report, format!("cannot write the artifacts of {}: {error}", report.id));
                }
            }
        }
        Ok(())
    }

    /// Starts a guest of an image, with those of the test modules at hand that are named.
    ///
    /// # Errors
    ///
    /// Where the image cannot be had, a module does not build, or the guest does not start.
    pub fn session(&self, image: &str, modules: &[&str]) -> Result<Session, String> {
        let image = self.image(image, &[])?;
        let names: Vec<String> = modules.iter().map(|&name| name.to_owned()).collect();
        let material = self.build(&image, &names, &[]).map_err(|error| crate::error::chain(&error))?;
        let machine = self.plain_machine(&image)?;
        let (guest, start) = self.starter.start(&machine, &bootable(&image.prepared)).map_err(|error| {
            let console = last_lines(&error.console, TAIL).join("\n  ");
            format!("the guest does not start: {error}\nthe end of the console:\n  {console}")
        })?;
        Ok(Session::new(guest, start, material))
    }

    fn artifacts_of(&self, report: &CaseReport) -> Option<PathBuf> {
        let wanted = self.options.keep || report.outcome.kind() != Kind::Pass;
        let root = self.options.artifacts.as_ref().filter(|_| wanted)?;
        Some(root.join(&report.id.image).join(&report.id.scenario))
    }

    /// The image of that name, with packages added, ready.
    fn image(&self, name: &str, packages: &[DebianName]) -> Result<Arc<Image>, String> {
        let slot = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(images.entry((name.to_owned(), packages.to_vec())).or_default())
        };
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return known.clone();
        }
        let result = self
            .prepare_image(name, packages)
            .map_err(|error| format!("image `{name}`: {}", crate::error::chain(&*error)));
        // A run that was told to stop prepares no more images.
        *known = Some(result.clone());
        result
    }

    fn prepare_image(
        &self,
        name: &str,
        packages: &[DebianName],
    ) -> Result<Arc<Image>, Box<dyn std::error::Error>> {
        let spec = self.lab.image(name)?;
        let prepared = self.lab.store().prepare_with(&spec, packages, self.lab.watch(), self.lab.cancel())?;
        if self.options.coverage {
            Way::of(&prepared)?;
        }
        let modules = prepared.modules()?;
        Ok(Arc::new(Image { prepared, modules, lines: Mutex::default() }))
    }

    fn unmet(&self, image: &Image, case: &Case) -> Option<String> {
        let (spec, cpus) = (&image.prepared.spec, case.scenario.machine.smp.map_or(1, |cpus| cpus.0));
        let no_packages = !case.scenario.packages().is_empty() && spec.userland.packages().is_none();
        let no_packages = no_packages.then(|| format!("Debian has no packages for {}", spec.arch));
        let one_cpu = (cpus > spec.arch.max_cpus).then(|| {
            format!("needs {cpus} cpus; QEMU's machine for {} has {}", spec.arch, spec.arch.max_cpus)
        });
        unmet(image, &case.scenario.requires).or(no_packages).or(one_cpu)
    }

    fn machine(&self, image: &Image, case: &Case) -> Result<Machine, String> {
        let own = &case.scenario.machine;
        let plain = self.plain_machine(image)?;
        Ok(Machine {
            memory_mib: own.memory_mib.unwrap_or(plain.memory_mib),
            smp: own.smp.map_or(plain.smp, |cpus| cpus.0),
            devices: own.devices.iter().map(|device| device.0.clone()).collect(),
            ..plain
        })
    }

    /// The machine of an image for cases that ask for nothing special.
    fn plain_machine(&self, image: &Image) -> Result<Machine, String> {
        let spec = &image.prepared.spec;
        let machine = Machine {
            arch: spec.arch,
            memory_mib: spec.memory.mib(),
            smp: 1,
            accel: Accel::Tcg,
            fast_firmware: true,
            transport: image.prepared.transport,
            devices: Vec::new(),
        };
        let accel = self.accelerators.of(&machine, &bootable(&image.prepared), &self.starter)?;
        Ok(Machine { accel, ..machine })
    }

    /// Builds the modules that a case names.
    fn material(&self, image: &Arc<Image>, case: &Case) -> Result<Material, Early> {
        let (tests, sources) = (case.scenario.modules(Origin::Test), case.scenario.modules(Origin::Source));
        self.build(image, &tests, &sources).map_err(|error| match error {
            _ if self.lab.cancel().is_cancelled() => Early::Cancelled,
            error => Early::from(crate::error::chain(&error)),
        })
    }

    /// Builds test modules, and modules from files of the kernel's sources.
    fn build(
        &self,
        image: &Arc<Image>,
        tests: &[String],
        files: &[String],
    ) -> Result<Material, module::Error> {
        let mut built: BTreeMap<String, Vec<Built>> = BTreeMap::new();
        if !tests.is_empty() || !files.is_empty() {
            let mut headers = headers(&image.prepared)?;
            let counts = self.options.coverage.then(|| Way::of(&image.prepared).ok()).flatten();
            headers.variables.extend(counts.map(|way| way.variable().to_owned()));
            let builder = Builder::new(self.lab.cache(), headers, self.lab.watch(), self.lab.cancel())?;
            for name in tests {
                built.insert(name.clone(), builder.build(self.lab.sources(), name)?);
            }
            if !files.is_empty() {
                let kernel =
                    self.lab.store().sources(&image.prepared, self.lab.watch(), self.lab.cancel())?;
                for file in files {
                    let (sources, name) = Sources::of_kernel(&kernel, file)?;
                    built.insert(file.clone(), builder.build(&sources, &name)?);
                }
            }
        }
        Ok(Material::new(Arc::clone(image), built))
    }
}

/// The limit that a case meets on an image.
fn limit<'c>(image: &Image, case: &'c Case) -> Option<&'c Spanned<Limit>> {
    case.limits.iter().find(|limit| unmet(image, &limit.value.on.value).is_none())
}

/// What an image lacks of what is required.
fn unmet(image: &Image, requires: &Requires) -> Option<String> {
    let config = &image.prepared.config;
    requires.unmet(&KernelFacts {
        release: &image.prepared.release,
        arch: image.prepared.spec.arch,
        has_config: &|name| config.is_set(name),
    })
}

/// An image's kernel, as modules see it.
///
/// # Errors
///
/// Where it came without headers.
pub fn headers(image: &Prepared) -> Result<Headers, module::Error> {
    let name = image.spec.name.clone();
    let headers = image.headers.clone().ok_or_else(|| module::Error::NoHeaders { image: name.clone() })?;
    Ok(Headers {
        dir: headers.dir,
        key: headers.key,
        arch: image.spec.arch,
        image: name,
        variables: Vec::new(),
    })
}

/// What a machine boots from an image.
pub fn bootable(image: &Prepared) -> Bootable {
    let spec = &image.spec;
    let mut cmdline =
        vec![format!("console={}", spec.arch.console), "panic=-1".to_owned(), "quiet".to_owned()];
    cmdline.extend(Machine::port_arguments(spec.arch, image.transport));
    cmdline.extend(spec.cmdline.iter().cloned());
    let boot =
        Boot { kernel: image.kernel.clone(), initramfs: image.initramfs.clone(), cmdline: cmdline.join(" ") };
    Bootable { boot, key: image.key.to_string(), image: spec.name.clone() }
}

fn early(error: &StartError) -> Early {
    if error.cancelled {
        return Early::Cancelled;
    }
    Early::Ended(
        Outcome::Error(format!("the guest does not start: {error}")).into(),
        last_lines(&error.console, TAIL),
    )
}
