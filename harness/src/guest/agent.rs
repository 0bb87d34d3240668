//! The agent's source, which is compiled for each guest architecture with the cross compiler that modules need anyway.

use schemars::JsonSchema;
use serde::Deserialize;

/// The source files, by name.
pub const SOURCES: &[(&str, &str)] = &[
    ("agent.h", include_str!("../../images/agent/agent.h")),
    ("boot.c", include_str!("../../images/agent/boot.c")),
    ("files.c", include_str!("../../images/agent/files.c")),
    ("kcov.c", include_str!("../../images/agent/kcov.c")),
    ("main.c", include_str!("../../images/agent/main.c")),
    ("module.c", include_str!("../../images/agent/module.c")),
    ("numbers.c", include_str!("../../images/agent/numbers.c")),
    ("run.c", include_str!("../../images/agent/run.c")),
    ("serve.c", include_str!("../../images/agent/serve.c")),
    ("stream.c", include_str!("../../images/agent/stream.c")),
    ("wire.c", include_str!("../../images/agent/wire.c")),
];

/// The compiler's flags. Static, because the guest has no shared libraries; warnings are errors only in the tests, so that
/// a newer compiler does not stop anyone.
pub const CFLAGS: &[&str] = &["-std=gnu11", "-static", "-pthread", "-O2", "-s", "-Wall", "-Wextra"];

/// The arguments that compile the agent, run in a directory that holds [`SOURCES`], to the program `output` there.
pub fn compiler_args(output: &str) -> impl Iterator<Item = &str> {
    let sources = SOURCES.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".c"));
    CFLAGS.iter().copied().chain(["-o", output]).chain(sources)
}

/// Where the initramfs has the list of modules for the agent to load at boot: paths, one a line, in order.
pub const MODULE_LIST: &str = "/etc/kmodlab/modules";

/// What the kernel calls the agent's tasks.
pub const COMM: &str = "kmodlab-agent";

/// What the agent's channels go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Ports of virtio-serial.
    Virtio,
    /// Serial ports of the machine, which are slower.
    Serial,
}

/// How many bytes the host may have under way to the agent over a serial line: what the kernel buffers of a line that
/// nobody reads is 64 KiB, and what comes after is lost (`drivers/tty/tty_buffer.c`).
pub const LINE_WINDOW: u32 = 16 * 1024;

/// The virtio-serial port for requests and replies.
pub const CONTROL_PORT: &str = "kmodlab.control";
/// The virtio-serial port that carries the kernel log from boot on: records of `/dev/kmsg` as read.
pub const LOG_PORT: &str = "kmodlab.log";
/// The virtio-serial port for trace streams.
pub const TRACE_PORT: &str = "kmodlab.trace";
