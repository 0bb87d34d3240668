//! The `kmodlab` command.

fn main() {}
