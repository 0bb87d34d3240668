//! Bytes into lines.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memrchr};

/// Cuts a stream of bytes into lines, however it is chunked. Bytes that are not UTF-8 become replacement characters.
/// What a line has beyond the limit is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// Cuts lines of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Lines { partial: Vec::new(), limit }
    }

    /// Takes bytes and hands out the lines that are complete with them, without their line ends.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let Some((head, tail)) = memchr(b'\n', rest).and_then(|at| rest.split_at_checked(at + 1)) else {
                self.keep(rest);
                return;
            };
            self.keep(head);
            let line = std::mem::take(&mut self.partial);
            each(&text(&line, self.limit));
            rest = tail;
        }
        let whole = memrchr(b'\n', rest).map_or(0, |end| end + 1);
        let Some((lines, partial)) = rest.split_at_checked(whole) else { return };
        self.keep(partial);
        // Most text is UTF-8, and is looked at faster as a whole.
        let known = std::str::from_utf8(lines).unwrap_or("");
        let mut start = 0;
        for end in memchr_iter(b'\n', lines) {
            match known.get(start..end) {
                Some(line) if line.len() <= self.limit => each(line.strip_suffix('\r').unwrap_or(line)),
                _ => each(&text(lines.get(start..end).unwrap_or_default(), self.limit)),
            }
            start = end + 1;
        }
    }

    /// Hands out what is left when the stream is over: a line without its end.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            each(&text(&line, self.limit));
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One byte more, for the line end.
        let room = (self.limit + 1).saturating_sub(self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }
}

fn text(line: &[u8], limit: usize) -> Cow<'_, str> {
    let line = line.get(..limit).unwrap_or(line);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]], limit: usize) -> Vec<String> {
        let mut cutter = Lines::new(limit);
        let mut out = Vec::new();
        for chunk in chunks {
            cutter.push(chunk, |line| out.push(line.to_owned()));
        }
        cutter.finish(|line| out.push(line.to_owned()));
        out
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        assert_eq!(lines(&[b"12345", b"678", b"9\nab", b"c\n"], 4), ["1234", "abc"]);
        assert_eq!(lines(&[b"123456789\nabc\r\n\n"], 4), ["1234", "abc", ""]);
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(lines(&[b"a\xffb\n"], 100), ["a\u{fffd}b"]);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200), size in 1_usize..20, limit in 1_usize..50) {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(lines(&chunks, limit), lines(&[&bytes], limit));
        }
    }
}
