//! The `format` file of an event in tracefs.

use serde::Serialize;

use super::UnreadableLine;

/// What a `format` file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventFormat {
    /// The event's name.
    pub name: String,
    /// Its number on this kernel.
    pub id: u32,
    /// Its fields, those that all events have first.
    pub fields: Vec<FormatField>,
    /// How it is printed: a format string and its arguments.
    pub print_format: String,
}

/// A field of an event's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FormatField {
    /// Its name.
    pub name: String,
    /// Its type in C: `unsigned long`, `__data_loc char[]`; for an array with its length, `char[16]`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Where it is in the record, in bytes.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
    /// Whether it is signed.
    pub signed: bool,
}

impl EventFormat {
    /// Reads the file. The layout is that of `f_show()` in the kernel's `kernel/trace/trace_events.c`.
    ///
    /// # Errors
    ///
    /// A line does not have the layout, or the file is cut short.
    pub fn parse(file: &str) -> Result<Self, UnreadableLine> {
        let (mut name, mut id, mut fields, mut print_format) = (None, None, Vec::new(), None);
        let mut lines = file.lines().enumerate();
        for (number, line) in lines.by_ref() {
            let unreadable = || UnreadableLine::new("format", number, line);
            let text = line.trim_ascii();
            if let Some(value) = text.strip_prefix("name: ") {
                name = Some(value.to_owned());
            } else if let Some(value) = text.strip_prefix("ID: ") {
                id = Some(value.parse().map_err(|_| unreadable())?);
            } else if text.starts_with("field") {
                fields.push(FormatField::parse(text).ok_or_else(unreadable)?);
            } else if let Some(value) = text.strip_prefix("print fmt: ") {
                print_format = Some(value.to_owned());
            } else if !text.is_empty() && text != "format:" {
                return Err(unreadable());
            }
        }
        match (name, id, print_format) {
            (Some(name), Some(id), Some(print_format)) => Ok(EventFormat { name, id, fields, print_format }),
            _ => Err(UnreadableLine::new("format", file.lines().count(), "")),
        }
    }
}

impl FormatField {
    /// `field:unsigned long ip; offset:8; size:8; signed:0;`, with tabs.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(';').map(str::trim_ascii);
        let (type_name, name) = parts.next()?.split_once(':')?.1.rsplit_once(' ')?;
        // An array's length stands after its name.
        let (name, length) = name.split_at_checked(name.find('[').unwrap_or(name.len()))?;
        let mut value = |key: &str| parts.next()?.strip_prefix(key)?.strip_prefix(':')?.parse::<u32>().ok();
        let (offset, size) = (value("offset")?, value("size")?);
        // Kernels before 2.6.32 do not say it.
        let signed = value("signed").unwrap_or(0) != 0;
        Some(FormatField {
            name: name.to_owned(),
            type_name: format!("{type_name}{length}"),
            offset,
            size,
            signed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE_PUT: &str = "name: module_put\nID: 138\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:char comm[16];\toffset:16;\tsize:16;\tsigned:0;\n\
        \tfield:__data_loc char[] name;\toffset:20;\tsize:4;\tsigned:1;\n\n\
        print fmt: \"%s call_site=%ps refcnt=%d\", __get_str(name), (void *)REC->ip, REC->refcnt\n";

    #[test]
    fn fields_and_print_format() {
        let format = EventFormat::parse(MODULE_PUT).unwrap();
        assert_eq!((format.name.as_str(), format.id), ("module_put", 138));
        let names: Vec<_> = format.fields.iter().map(|f| (f.type_name.as_str(), f.name.as_str())).collect();
        assert_eq!(
            names,
            [
                ("unsigned short", "common_type"),
                ("int", "common_pid"),
                ("unsigned long", "ip"),
                ("char[16]", "comm"),
                ("__data_loc char[]", "name"),
            ]
        );
        let pid = &format.fields[1];
        assert_eq!((pid.offset, pid.size, pid.signed), (4, 4, true));
        assert!(format.print_format.ends_with("REC->refcnt"));
    }

    #[test]
    fn a_broken_file_is_refused() {
        let error = EventFormat::parse(&MODULE_PUT.replace("offset:4", "offset:x")).unwrap_err();
        assert_eq!(error.line, 5);
        assert!(EventFormat::parse(MODULE_PUT.split("print").next().unwrap()).is_err());
        assert!(EventFormat::parse("").is_err());
        assert!(EventFormat::parse("cat: no such file").is_err());
    }
}
