//! Kernels and userland: where they come from, how they are taken apart, and the cache they are kept in.

pub mod cache;
pub mod compress;
pub mod deb;
pub mod debian;
pub mod depmod;
pub mod kconfig;
pub mod spec;
