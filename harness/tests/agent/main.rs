//! Drives the real agent, compiled for this machine, through every request.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, their helpers too")]

mod client;
mod files;
mod frames;
mod programs;
mod streams;

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use kmodlab::guest::Errno;
use kmodlab::guest::proto::{Reply, Request, WriteMode};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tempfile::TempDir;

fn done(errno: Errno, count: u64, end: bool) -> Reply {
    Reply::Done { errno, count, end }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

fn make_fifo(path: &str) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

/// Opens a FIFO for both, so that opening does not wait and readers see no end.
fn hold_fifo(path: &str) -> fs::File {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .unwrap()
}

fn write(path: &str, mode: WriteMode, data: &[u8]) -> Request {
    Request::WriteFile { path: path.to_owned(), mode, permissions: 0o640, data: data.to_vec() }
}
