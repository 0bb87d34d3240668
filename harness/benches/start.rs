//! How fast guests come up, as ratios within one run: `cargo bench --bench start [IMAGE...]`.
//!
//! plain: the kernel's own compressed file, booted by the machine's usual firmware. cold: the tuned boot. warm: from the snapshot to the agent's first
//! answer. floor: QEMU restoring the same snapshot until it says that the guest runs, with nobody to answer.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kmodlab::guest::Guest;
use kmodlab::lab::Lab;
use kmodlab::run::{Limits, Starter, bootable};
use kmodlab::vm::{Accel, Boot, Machine, Memory, Snapshot, Start, Vm};
use kmodlab::work::{Cancel, Unwatched};

const BOOTS: usize = 3;
const RESTORES: usize = 11;
const LIMIT: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let lab = Lab::open(None, None, Arc::new(Unwatched), Cancel::new()?)?;
    println!(
        "{:<10} {:>9} {:>9} {:>9} {:>9}   {:>10} {:>9} {:>10}",
        "image", "plain", "cold", "warm", "floor", "plain/cold", "cold/warm", "warm/floor"
    );
    for image in lab.images() {
        if if wanted.is_empty() { image.default } else { wanted.contains(&image.name) } {
            measure(&lab, &image.name)?;
        }
    }
    Ok(())
}

fn measure(lab: &Lab, image: &str) -> Result<()> {
    let image = lab.store().prepare(&lab.image(image)?, lab.watch(), lab.cancel())?;
    let tuned = bootable(&image);
    let plain = Boot { kernel: image.plain_kernel.clone(), ..tuned.boot.clone() };
    // The plain boot is what a user would type: no argument that only makes the boot faster.
    let plain = Boot { cmdline: plain.cmdline.replace("cryptomgr.notests", ""), ..plain };
    let spec = &image.spec;
    let memory_mib = spec.memory.mib();
    let machine = Machine {
        arch: spec.arch,
        memory_mib,
        smp: 1,
        accel: Accel::Tcg,
        fast_firmware: true,
        transport: image.transport,
        devices: Vec::new(),
    };
    let usual = Machine { fast_firmware: false, ..machine.clone() };
    let starter = Starter::new(lab.cache(), false, Limits::default(), lab.watch(), lab.cancel());
    let snapshot = starter.saved(&machine, &tuned)?.ok_or("no snapshot")?;
    let (mut plains, mut colds, mut warms, mut floors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        plains.push(boot(&usual, &plain, lab.cancel())?);
        colds.push(boot(&machine, &tuned.boot, lab.cancel())?);
    }
    for _ in 0..RESTORES {
        warms.push(answer(snapshot.restore(&machine)?, lab.cancel())?);
        floors.push(floor(&snapshot, &machine, lab.cancel())?);
    }
    let [plain, cold, warm, floor] = [plains, colds, warms, floors].map(median);
    println!(
        "{:<10} {:>7.0}ms {:>7.0}ms {:>7.1}ms {:>7.1}ms   {:>10.1} {:>9.1} {:>10.2}",
        spec.name,
        plain * 1e3,
        cold * 1e3,
        warm * 1e3,
        floor * 1e3,
        plain / cold,
        cold / warm,
        warm / floor
    );
    Ok(())
}

fn boot(machine: &Machine, boot: &Boot, cancel: &Cancel) -> Result<f64> {
    answer(Vm::start(machine, Start::Kernel(boot), Memory::Anonymous)?, cancel)
}

fn answer(vm: Vm, cancel: &Cancel) -> Result<f64> {
    let started = vm.started();
    Guest::greet(vm, Instant::now() + LIMIT, cancel).map_err(|(_, error)| error)?;
    Ok(started.elapsed().as_secs_f64())
}

fn floor(snapshot: &Snapshot, machine: &Machine, cancel: &Cancel) -> Result<f64> {
    let mut vm = snapshot.restore(machine)?;
    Snapshot::wait_running(&mut vm, Instant::now() + LIMIT, cancel)?;
    Ok(vm.started().elapsed().as_secs_f64())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
