//! What a module's ELF file says of it.

use object::{Object, ObjectSection};

/// The `modinfo` of a module: `key=value` strings in its section `.modinfo` (`include/linux/moduleparam.h`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo(Vec<(String, String)>);

/// The file is not a kernel module.
#[derive(Debug, thiserror::Error)]
pub enum NotAModule {
    /// It is no ELF file, or a broken one.
    #[error("not a kernel module: {0}")]
    Elf(#[from] object::Error),
    /// It lacks the section that every module has.
    #[error("not a kernel module: it has no section `.modinfo`")]
    NoModInfo,
}

impl ModInfo {
    /// Reads it from the bytes of a `.ko` file.
    ///
    /// # Errors
    ///
    /// [`NotAModule`].
    pub fn read(bytes: &[u8]) -> Result<Self, NotAModule> {
        let file = object::File::parse(bytes)?;
        let section = file.section_by_name(".modinfo").ok_or(NotAModule::NoModInfo)?;
        let strings = section.data()?.split(|&byte| byte == 0).filter(|string| !string.is_empty());
        let pair = |string: &[u8]| {
            let string = String::from_utf8_lossy(string);
            string.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        Ok(ModInfo(strings.filter_map(pair).collect()))
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a key, such as `parm`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The modules that it uses symbols of.
    pub fn depends(&self) -> impl Iterator<Item = &str> {
        self.get("depends").unwrap_or_default().split(',').filter(|name| !name.is_empty())
    }
}
