//! Bytes from the guest, kept within bounds.

use std::collections::VecDeque;

/// A line longer than this, in bytes, is cut rather than left out.
const LINE: usize = 4096;

/// A stream's bytes: its beginning and its end, where it is longer than its limit.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Capture {
    /// Keeps at most `limit` bytes: the first half of them from the beginning, the rest from the end.
    pub fn new(limit: usize) -> Self {
        Capture { limit, ..Capture::default() }
    }

    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (self.limit / 2).saturating_sub(self.head.len()).min(bytes.len());
        let (head, tail) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        self.tail.extend(tail);
        let most = self.limit - self.limit / 2;
        if self.tail.len() > most {
            self.tail.drain(..self.tail.len() - most);
        }
    }

    /// How many bytes there were in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of them were not kept.
    pub fn cut(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }

    /// The last `count` bytes, as far as they were kept.
    pub fn last(&self, count: usize) -> Vec<u8> {
        let from_head = count.saturating_sub(self.tail.len()).min(self.head.len());
        let mut bytes = self.head[self.head.len() - from_head..].to_vec();
        bytes.extend(self.tail.range(self.tail.len().saturating_sub(count)..));
        bytes
    }

    /// What was kept; where something was cut, a line says so. Broken lines around the cut are left out, unless they are
    /// long.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        if self.cut() == 0 {
            bytes.extend(&self.tail);
            return bytes;
        }
        let broken = bytes.iter().rev().take(LINE).position(|&byte| byte == b'\n').unwrap_or(0);
        bytes.truncate(bytes.len() - broken);
        let begin = self.tail.iter().take(LINE).position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let left = (bytes.len() + self.tail.len() - begin) as u64;
        if bytes.last().is_some_and(|&byte| byte != b'\n') {
            bytes.push(b'\n');
        }
        bytes.extend(format!("[kmodlab: {} bytes were cut here]\n", self.total - left).into_bytes());
        bytes.extend(self.tail.range(begin..));
        bytes
    }

    /// As [`Capture::bytes`]; what is not UTF-8 becomes replacement characters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_whole() {
        let mut capture = Capture::new(8);
        capture.push(b"abc");
        capture.push(b"defgh");
        assert_eq!((capture.bytes().as_slice(), capture.cut()), (&b"abcdefgh"[..], 0));
    }

    #[test]
    fn a_flood_without_lines_is_cut_all_the_same() {
        let mut capture = Capture::new(4 * LINE);
        capture.push(&vec![b'a'; 3 * LINE]);
        capture.push(&vec![b'b'; 3 * LINE]);
        let (a, b) = ("a".repeat(2 * LINE), "b".repeat(2 * LINE));
        assert_eq!(capture.text(), format!("{a}\n[kmodlab: {} bytes were cut here]\n{b}", 2 * LINE));
    }

    #[test]
    fn a_flood_leaves_its_beginning_its_end_and_a_word() {
        let mut capture = Capture::new(64);
        for line in 0..1000 {
            capture.push(format!("line {line}\n").as_bytes());
        }
        let text = capture.text();
        assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 999\n"), "{text}");
        assert_eq!(capture.total(), 10 * 7 + 90 * 8 + 900 * 9);
        let kept: u64 =
            text.lines().filter(|line| line.starts_with("line")).map(|line| line.len() as u64 + 1).sum();
        assert!(
            text.contains(&format!("[kmodlab: {} bytes were cut here]", capture.total() - kept)),
            "{text}"
        );
    }
}
