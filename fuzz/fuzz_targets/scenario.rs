//! Scenario files: what is wrong with one is told, with a place in it.
#![no_main]

use std::collections::BTreeMap;

use kmodlab::arch::Arch;
use kmodlab::scenario::values::Values;
use kmodlab::scenario::{Context, read};
use kmodlab::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let modules = ["refmod", "refscan", "testmod"].map(str::to_owned);
    let context = Context { modules: &modules, errnos: &["EBUSY", "ENOENT", "EWOULDBLOCK"] };
    let arch = Arch::all().next().expect("there is an architecture");
    let values = Values::new("image", arch, BTreeMap::new());
    if let Err(errors) = read(text, &values, context) {
        assert!(!errors.is_empty());
        let _ = yaml::render("x.yaml", text, &errors);
    }
});
