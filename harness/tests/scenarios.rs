//! Every scenario on every default image, each a test of its own: `cargo test --test scenarios kprobe` runs some of them,
//! `-- --list` boots nothing.

kmodlab::harness!("..");
