//! What the test module that scans the kernel says; `test-modules/README.md` has the format.

use std::collections::HashMap;

use serde::Serialize;

use super::{Holder, Kind, Task};

/// How a scan of the version that is read here begins.
const HEAD: &str = "refscan 1 ";

/// One scan of a kernel for what holds a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// The module.
    pub module: String,
    /// `live`, `loading` or `unloading`.
    pub state: String,
    /// Its use count when the scan was over, as `lsmod` shows it.
    pub use_count: i64,
    /// What holds it.
    pub holders: Vec<Holder>,
    /// Kinds of holders that were not looked for, or not completely, with the reason.
    pub unknown: Vec<(String, String)>,
    /// How many more holders there are than are shown.
    pub cut: u64,
    /// How many references the shown holders have.
    pub references: u64,
}

/// A scan that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The first line is not that of a scan.
    #[error("no scan of a version that is known begins with `{0}`")]
    Head(String),
    /// The last line is not there: it was cut off.
    #[error("the scan has no end")]
    NoEnd,
}

impl Scan {
    /// Reads a scan. Lines of kinds that a later version may add are passed over; kinds of holders become
    /// [`Kind::Other`].
    ///
    /// # Errors
    ///
    /// It does not begin or end like a scan.
    pub fn parse(text: &str) -> Result<Scan, Unreadable> {
        let mut lines = text.lines();
        let head = lines.next().unwrap_or("");
        let bad = || Unreadable::Head(head.chars().take(200).collect());
        let values = words(head.strip_prefix(HEAD).ok_or_else(bad)?);
        let mut scan = Scan {
            module: values.get("module").ok_or_else(bad)?.clone(),
            state: values.get("state").ok_or_else(bad)?.clone(),
            use_count: number(&values, "use").ok_or_else(bad)?,
            holders: Vec::new(),
            unknown: Vec::new(),
            cut: 0,
            references: 0,
        };
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let values = words(rest);
            match word {
                "holder" => scan.holders.push(holder(&values)),
                "unknown" => {
                    let value = |name| values.get(name).cloned().unwrap_or_default();
                    scan.unknown.push((value("kind"), value("why")));
                }
                "end" => {
                    scan.cut = number(&values, "cut").unwrap_or(0);
                    scan.references = number(&values, "refs").unwrap_or(0);
                    scan.use_count = number(&values, "use").unwrap_or(scan.use_count);
                    return Ok(scan);
                }
                _ => {}
            }
        }
        Err(Unreadable::NoEnd)
    }

    /// How many references no shown holder has: what code took by itself, or leaked. None where holders were cut.
    pub fn left_over(&self) -> Option<i64> {
        (self.cut == 0).then(|| self.use_count.saturating_sub_unsigned(self.references))
    }
}

fn holder(values: &HashMap<&str, String>) -> Holder {
    let kind = match values.get("kind").map(String::as_str) {
        // An open file without a path that would say anything.
        Some("file") if values.contains_key("protocol") => Kind::Socket,
        Some("file") => Kind::File,
        Some("mapping") => Kind::Mapping,
        Some("cwd") => Kind::Cwd,
        Some("root") => Kind::Root,
        Some("thread") => Kind::Thread,
        Some("mount") => Kind::Mount,
        Some("interface") => Kind::Interface,
        Some("dependent") => Kind::Dependent,
        _ => Kind::Other,
    };
    let name = ["protocol", "path", "name", "source", "function"].iter().find_map(|name| values.get(name));
    let mut holder =
        Holder::new(kind, values.get("via").map_or("", String::as_str), name.map(String::as_str));
    holder.references = number(values, "refs");
    holder.fd = number(values, "fd");
    holder.file = number(values, "file");
    holder.task =
        number(values, "pid").map(|pid| Task { pid, comm: values.get("comm").cloned().unwrap_or_default() });
    if let (Some(start), Some(end)) = (values.get("start"), values.get("end")) {
        holder.place = Some(format!("{start}-{end}"));
    }
    holder
}

/// The words `NAME=VALUE` of a line.
fn words(line: &str) -> HashMap<&str, String> {
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    words.map(|(name, value)| (name, unescape(value))).collect()
}

fn number<T: std::str::FromStr>(values: &HashMap<&str, String>, name: &str) -> Option<T> {
    values.get(name)?.parse().ok()
}

/// Undoes the kernel's octal escapes (`mangle_path()` and `seq_escape()`): `\040` is a space.
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| !digits.starts_with('+'));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if first == b'\\' => {
                bytes.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
