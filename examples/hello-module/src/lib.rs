//! A crate for a kernel module: what is in it is in `test-modules`, and what is tested in `scenarios`.
