//! How long everything may take.

use std::time::Duration;

/// Every time limit of a run, in one place, so that one factor suits them to a slow machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From QEMU's start until a booting guest's agent answers.
    pub boot: Duration,
    /// As [`Limits::boot`], where it is tried whether KVM serves.
    pub kvm_trial: Duration,
    /// From QEMU's start until a restored guest's agent answers.
    pub restore: Duration,
    /// Saving a snapshot.
    pub save: Duration,
    /// A step that sets no limit of its own.
    pub step: Duration,
    /// A case whose scenario sets no limit of its own.
    pub case: Duration,
    /// What a limit in a scenario is multiplied by.
    pub scale: f64,
}

impl Default for Limits {
    /// Far above what was measured under emulation on a busy machine of two cores: boots of 13 s, restores of 0.4 s.
    fn default() -> Self {
        Limits {
            boot: Duration::from_secs(120),
            kvm_trial: Duration::from_secs(10),
            restore: Duration::from_secs(30),
            save: Duration::from_secs(30),
            step: Duration::from_secs(30),
            case: Duration::from_secs(180),
            scale: 1.0,
        }
    }
}

impl Limits {
    /// Every limit, multiplied.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Limits {
            boot: self.boot.mul_f64(factor),
            kvm_trial: self.kvm_trial.mul_f64(factor),
            restore: self.restore.mul_f64(factor),
            save: self.save.mul_f64(factor),
            step: self.step.mul_f64(factor),
            case: self.case.mul_f64(factor),
            scale: self.scale * factor,
        }
    }

    /// A step's limit.
    pub fn step(&self, own: Option<Duration>) -> Duration {
        own.map_or(self.step, |limit| limit.mul_f64(self.scale))
    }

    /// A case's limit.
    pub fn case(&self, own: Option<Duration>) -> Duration {
        own.map_or(self.case, |limit| limit.mul_f64(self.scale))
    }
}
