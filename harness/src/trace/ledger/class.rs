//! What a reference is for, as told by the call chain that took it or gave it back.

/// A kind of references that the kernel takes in one place and gives back in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    /// An open file, whose operations are the module's.
    File,
    /// Another module that uses its symbols.
    Dependency,
    /// `symbol_get()`.
    SymbolGet,
    /// A block device.
    Block,
    /// A socket's protocol or family.
    Socket,
    /// A file system.
    Filesystem,
    /// A probe being registered.
    Kprobe,
    /// A program being started.
    Exec,
    /// None of these: told by the function that took it or gave it back.
    Function(u32),
}

impl Class {
    /// Whether a reference of one class can be given back by a chain of the other. The kernel's own kinds keep to
    /// themselves; what a function does that this program does not know may be anything.
    pub(super) fn may_pair(self, other: Class) -> bool {
        self == other || self.is_unknown() || other.is_unknown()
    }

    /// Whether nothing is known but the function.
    pub(super) fn is_unknown(self) -> bool {
        matches!(self, Class::Function(_))
    }
}

/// The functions that tell the class, whichever stands first in a chain.
///
/// Taken from the kernel's users of `try_module_get()` and `module_put()`, 4.9 to 6.12; `blkdev_` became `bdev_` in 6.8,
/// `use_module` was `ref_module` from 3.0 to 5.8.
const FUNCTIONS: &[(&str, Class)] = &[
    ("resolve_symbol", Class::Dependency),
    ("resolve_symbol_wait", Class::Dependency),
    ("ref_module", Class::Dependency),
    ("use_module", Class::Dependency),
    ("module_unload_free", Class::Dependency),
    ("__symbol_get", Class::SymbolGet),
    ("__symbol_put", Class::SymbolGet),
    ("symbol_put_addr", Class::SymbolGet),
    ("blkdev_get_by_dev", Class::Block),
    ("blkdev_get_by_path", Class::Block),
    ("blkdev_get_no_open", Class::Block),
    ("blkdev_get_whole", Class::Block),
    ("blkdev_get", Class::Block),
    ("__blkdev_get", Class::Block),
    ("blkdev_put", Class::Block),
    ("__blkdev_put", Class::Block),
    ("bdev_open", Class::Block),
    ("bdev_release", Class::Block),
    ("sk_alloc", Class::Socket),
    ("sk_prot_alloc", Class::Socket),
    ("sk_prot_free", Class::Socket),
    ("sk_destruct", Class::Socket),
    ("__sk_destruct", Class::Socket),
    ("__sock_create", Class::Socket),
    ("sock_release", Class::Socket),
    ("__sock_release", Class::Socket),
    ("get_filesystem", Class::Filesystem),
    ("get_fs_type", Class::Filesystem),
    ("__get_fs_type", Class::Filesystem),
    ("put_filesystem", Class::Filesystem),
    ("deactivate_locked_super", Class::Filesystem),
    ("put_fs_context", Class::Filesystem),
    ("register_kprobe", Class::Kprobe),
    ("check_kprobe_address_safe", Class::Kprobe),
    ("search_binary_handler", Class::Exec),
    ("bprm_execve", Class::Exec),
    ("free_bprm", Class::Exec),
    ("set_binfmt", Class::Exec),
    ("chrdev_open", Class::File),
    ("misc_open", Class::File),
    ("do_dentry_open", Class::File),
    ("__fput", Class::File),
    ("__fput_sync", Class::File),
];

/// The class that a function tells. `name` is without a compiler's suffix.
pub(super) fn of_function(name: &str) -> Option<Class> {
    FUNCTIONS.iter().find(|(function, _)| *function == name).map(|(_, class)| *class)
}

/// Whether it is the function whose put ends the first reference, which loading takes untraced.
pub(super) fn is_module_init(name: &str) -> bool {
    matches!(name, "do_init_module" | "load_module")
        || name.ends_with("sys_init_module")
        || name.ends_with("sys_finit_module")
        || matches!(name, "SyS_init_module" | "SyS_finit_module")
}

/// Whether a function stands at the top of a chain for the sake of the tracing, or of the counting itself.
pub(super) fn is_machinery(name: &str) -> bool {
    name.starts_with("trace_event_")
        || matches!(name, "try_module_get" | "__module_get" | "module_put" | "module_get" | "module_refcnt")
        || name.starts_with("ftrace_raw_event_")
        || name.starts_with("do_trace_event_raw_event_")
        || name.starts_with("__traceiter_")
}

/// A name without what a compiler adds: `blkdev_get_by_dev.part.0` is `blkdev_get_by_dev`.
pub(super) fn plain(name: &str) -> &str {
    let name = name.strip_prefix('.').unwrap_or(name);
    name.split('.').next().unwrap_or(name)
}
