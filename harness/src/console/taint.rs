//! The kernel's taints, from `/proc/sys/kernel/tainted` and from the letters in reports.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! taints {
    ($($name:ident = $bit:literal, $letter:literal, $meaning:literal;)*) => {
        /// Why a kernel is tainted. The bits and letters are those of the kernel's
        /// `Documentation/admin-guide/tainted-kernels.rst`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Taint {
            $(#[doc = concat!("`", $letter, "`: ", $meaning)] $name = $bit,)*
        }

        impl Taint {
            /// All of them, by their bits.
            pub const ALL: &[Taint] = &[$(Taint::$name),*];

            /// The letter in reports.
            pub fn letter(self) -> char {
                match self { $(Taint::$name => $letter,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Taint::$name => $meaning,)* }
            }
        }
    };
}

taints! {
    ProprietaryModule = 0, 'P', "a proprietary module was loaded";
    ForcedModule = 1, 'F', "a module was loaded by force";
    CpuOutOfSpec = 2, 'S', "the kernel runs on an out-of-specification system";
    ForcedRemoval = 3, 'R', "a module was removed by force";
    MachineCheck = 4, 'M', "the processor reported a machine check";
    BadPage = 5, 'B', "a bad page or unexpected page flags were met";
    User = 6, 'U', "user space asked for the taint";
    Die = 7, 'D', "the kernel died before: an oops or a BUG";
    OverriddenAcpiTable = 8, 'A', "an ACPI table was overridden by user space";
    Warn = 9, 'W', "the kernel issued a warning";
    StagingDriver = 10, 'C', "a staging driver was loaded";
    FirmwareWorkaround = 11, 'I', "a severe firmware bug was worked around";
    OutOfTreeModule = 12, 'O', "an out-of-tree module was loaded";
    UnsignedModule = 13, 'E', "an unsigned module was loaded";
    SoftLockup = 14, 'L', "a soft lockup occurred";
    LivePatch = 15, 'K', "the kernel was live-patched";
    Auxiliary = 16, 'X', "the distribution's own taint";
    RandomizedStructs = 17, 'T', "the kernel was built with randomized structures";
    InKernelTest = 18, 'N', "an in-kernel test was run";
    FwctlMutation = 19, 'J', "user space changed a device's debug state through fwctl";
}

/// A set of taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct TaintSet(u64);

impl TaintSet {
    /// The set that a number in `/proc/sys/kernel/tainted` stands for.
    pub fn from_bits(bits: u64) -> Self {
        TaintSet(bits)
    }

    /// The set that letters stand for, as in `Tainted: G        W  OE`. `G` and blanks stand for none; other
    /// characters that are no taint are passed over.
    pub fn from_letters(letters: &str) -> Self {
        Taint::ALL.iter().filter(|taint| letters.contains(taint.letter())).copied().collect()
    }

    /// The number, as in `/proc/sys/kernel/tainted`.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it is there.
    pub fn contains(self, taint: Taint) -> bool {
        self.0 & (1 << taint as u64) != 0
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn without(self, other: TaintSet) -> Self {
        TaintSet(self.0 & !other.0)
    }

    /// The taints, by their bits; bits that this program does not know are left out.
    pub fn iter(self) -> impl Iterator<Item = Taint> {
        Taint::ALL.iter().copied().filter(move |taint| self.contains(*taint))
    }
}

impl FromIterator<Taint> for TaintSet {
    fn from_iter<I: IntoIterator<Item = Taint>>(taints: I) -> Self {
        TaintSet(taints.into_iter().fold(0, |bits, taint| bits | 1 << taint as u64))
    }
}

/// The letters; for a bit that this program does not know, its number: `WOE+23`.
impl fmt::Display for TaintSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for taint in self.iter() {
            write!(f, "{}", taint.letter())?;
        }
        let unknown = self.without(Taint::ALL.iter().copied().collect());
        (0..64).filter(|bit| unknown.0 & (1 << bit) != 0).try_for_each(|bit| write!(f, "+{bit}"))
    }
}

impl Serialize for TaintSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_letters() {
        let set = TaintSet::from_bits(12_800);
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Taint::Warn, Taint::OutOfTreeModule, Taint::UnsignedModule]
        );
        assert_eq!(set.to_string(), "WOE");
        assert_eq!(TaintSet::from_letters("G        W  OE     6.1"), set);
        assert_eq!(TaintSet::from_letters("P").bits(), 1);
        assert!(TaintSet::from_letters("G  ").is_empty());
        assert_eq!(set.without(TaintSet::from_letters("OE")).to_string(), "W");
        assert_eq!(TaintSet::from_bits(1 << 40 | 1).to_string(), "P+40");
    }

    #[test]
    fn every_taint_has_its_own_bit_and_letter() {
        for (bit, taint) in Taint::ALL.iter().enumerate() {
            assert_eq!(*taint as usize, bit);
            assert_eq!(TaintSet::from_letters(&taint.letter().to_string()).bits(), 1 << bit);
        }
    }
}
