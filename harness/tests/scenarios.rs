//! Every scenario on every default image, or on the kernel tree that `KMODLAB_KERNEL_TREE` names, each a test of its own:
//! `cargo test --test scenarios kprobe` runs some of them, `-- --list` boots nothing.

kmodlab::harness!("..");
