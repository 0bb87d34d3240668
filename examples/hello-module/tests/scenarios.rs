//! Every scenario in `scenarios`, with the modules in `test-modules`, on kmodlab's default images.

kmodlab::harness!();
