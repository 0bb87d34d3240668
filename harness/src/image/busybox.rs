//! What a busybox binary can do.

/// The applets of a busybox, itself left out, from the table of their names in the binary: they are sorted, end in NUL bytes, and begin
/// with `[` and `[[` (`applet_names` of busybox's generated `applet_tables.h`). Empty where there is no such table.
pub fn applets(binary: &[u8]) -> Vec<&str> {
    const START: &[u8] = b"[\0[[\0";
    let Some(start) = binary.windows(START.len()).position(|window| window == START) else {
        return Vec::new();
    };
    let mut names: Vec<&str> = Vec::new();
    for name in binary.get(start..).unwrap_or_default().split(|&byte| byte == 0) {
        let is_name = |name: &&str| name.bytes().all(|c| c.is_ascii_alphanumeric() || b"[_-.+".contains(&c));
        match std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).filter(is_name) {
            Some(name) if names.last().is_none_or(|last| *last < name) => names.push(name),
            _ => break,
        }
    }
    names.retain(|name| *name != "busybox");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_found_and_ends_where_order_or_names_end() {
        assert_eq!(applets(b"x[\0y\0[\0[[\0ash\0busybox\0sh\0\0zzz\0"), ["[", "[[", "ash", "sh"]);
        assert_eq!(applets(b"[\0[[\0ash\0sh\0rm\0"), ["[", "[[", "ash", "sh"]);
        assert_eq!(applets(b"[\0[[\0ash\0/bin/sh\0"), ["[", "[[", "ash"]);
        assert_eq!(applets(b"[\0[[\0ash"), ["[", "[[", "ash"]);
        assert_eq!(applets(b""), [""; 0]);
        assert_eq!(applets(b"[[\0"), [""; 0]);
    }
}
