//! The list of modules, `/proc/modules`.

use serde::Serialize;

use super::UnreadableLine;

/// Where a module is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleState {
    /// Its init function has returned.
    Live,
    /// Its init function runs.
    Loading,
    /// It is being removed.
    Unloading,
}

/// A line of `/proc/modules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedModule {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its use count, as `lsmod` shows it; None on a kernel that cannot unload modules. -1 while it is being removed.
    pub use_count: Option<i64>,
    /// The modules that use it.
    pub users: Vec<String>,
    /// Whether it cannot be removed, for it has no exit function.
    pub permanent: bool,
    /// Where it is in its life.
    pub state: ModuleState,
    /// Where it is in memory; 0 where the kernel hides addresses.
    pub address: u64,
    /// The letters of its taints: `OE`.
    pub taints: String,
}

impl ListedModule {
    /// Reads the list. The layout is that of `m_show()` in the kernel's `kernel/module/procfs.c`.
    ///
    /// # Errors
    ///
    /// A line does not have the layout.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, UnreadableLine> {
        let lines = list.lines().enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        lines
            .map(|(number, line)| {
                Self::parse(line).ok_or_else(|| UnreadableLine::new("/proc/modules", number, line))
            })
            .collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.to_owned();
        let size = words.next()?.parse().ok()?;
        let use_count = match words.next()? {
            "-" => None,
            count => Some(count.parse().ok()?),
        };
        let (mut users, mut permanent) = (Vec::new(), false);
        for user in words.next()?.split(',') {
            match user {
                "" | "-" => {}
                "[permanent]" => permanent = true,
                user => users.push(user.to_owned()),
            }
        }
        let state = match words.next()? {
            "Live" => ModuleState::Live,
            "Loading" => ModuleState::Loading,
            "Unloading" => ModuleState::Unloading,
            _ => return None,
        };
        let address = words.next()?;
        let address = u64::from_str_radix(address.strip_prefix("0x").unwrap_or(address), 16).unwrap_or(0);
        // `(OE+)`: the sign says again that it comes or goes.
        let taints = words.next().unwrap_or("").chars().filter(char::is_ascii_alphabetic).collect();
        Some(ListedModule { name, size, use_count, users, permanent, state, address, taints })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> ListedModule {
        ListedModule::parse_list(line).unwrap().into_iter().next().unwrap()
    }

    #[test]
    fn users_and_taints() {
        let module = one("crc_itu_t 16384 2 firewire_core,firewire_ohci, Live 0xffffffffc0123000");
        assert_eq!((module.size, module.use_count, module.state), (16384, Some(2), ModuleState::Live));
        assert_eq!(module.users, ["firewire_core", "firewire_ohci"]);
        assert_eq!(
            (module.address, module.taints.as_str(), module.permanent),
            (0xffff_ffff_c012_3000, "", false)
        );
        let module = one("testmod 16384 1 - Live 0x0000000000000000 (OE)");
        assert_eq!((module.users.len(), module.address, module.taints.as_str()), (0, 0, "OE"));
    }

    #[test]
    fn unusual_modules() {
        let module = one("stuck 16384 0 [permanent], Live 0x7f000000");
        assert!(module.permanent && module.users.is_empty());
        assert_eq!(one("a 1 - - Live 0x0").use_count, None);
        let module = one("a 1 1 - Loading 0x0 (O+)");
        assert_eq!((module.state, module.taints.as_str()), (ModuleState::Loading, "O"));
        let module = one("a 1 -1 - Unloading 0x0 (O-)");
        assert_eq!((module.state, module.use_count), (ModuleState::Unloading, Some(-1)));
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = ListedModule::parse_list("a 1 0 - Live 0x0\nb 1 0 - Dead 0x0").unwrap_err();
        assert_eq!((error.line, error.text.as_str()), (2, "b 1 0 - Dead 0x0"));
    }
}
