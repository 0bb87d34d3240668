//! Kernels and userland: where they come from, how they are taken apart, and the cache they are kept in.

pub mod builtin;
pub mod busybox;
pub mod cache;
pub mod compiler;
pub mod compress;
pub mod deb;
pub mod debian;
pub mod depmod;
pub mod kconfig;
pub mod kernel;
pub mod own;
mod parts;
pub mod prepare;
pub mod source;
pub mod spec;
