//! Faults of the guest, the host and the user's patience, each shown with a real guest where one can show it, and mostly by
//! the command as a user runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests, their helpers too"
)]

mod agent;
mod boot;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod fetch;
mod guest;
mod host;
mod limits;
mod output;
mod pack;
mod processes;
mod project;
mod repeat;
mod signals;
mod watch;

use libtest_mimic::{Arguments, Trial};

/// The image that the faults are shown on.
const IMAGE: &str = "x86_64";

/// A test that runs guests of [`IMAGE`].
fn trial(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    common::vm_trial(common::arch(IMAGE), name, run)
}

fn main() {
    let trials = [
        guest::trials(),
        boot::trials(),
        host::trials(),
        signals::trials(),
        fetch::trials(),
        cache::trials(),
        output::trials(),
        agent::trials(),
        repeat::trials(),
        limits::trials(),
        pack::trials(),
        watch::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}
