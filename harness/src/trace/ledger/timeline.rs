//! A count over time, in bounded memory.

use super::report::CountAt;
use crate::trace::event::Timestamp;

/// As many points as a screen can show, and more.
const MAX_POINTS: usize = 512;

/// The points so far; each stands for `stride` changes, with the highest count in them.
#[derive(Debug)]
pub(super) struct Timeline {
    points: Vec<CountAt>,
    stride: u64,
    /// The changes since the last point, and the highest of them.
    changes: u64,
    highest: Option<CountAt>,
    last: i64,
    last_time: String,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline {
            points: Vec::new(),
            stride: 1,
            changes: 0,
            highest: None,
            last: i64::MIN,
            last_time: String::new(),
        }
    }
}

impl Timeline {
    /// Takes the count from `time` on.
    pub(super) fn push(&mut self, time: &str, use_count: i64) {
        if use_count == self.last {
            return;
        }
        self.last = use_count;
        time.clone_into(&mut self.last_time);
        if self.highest.as_ref().is_none_or(|highest| use_count > highest.use_count) {
            self.highest = Some(CountAt { time: Timestamp(time.to_owned()), use_count });
        }
        self.changes += 1;
        if self.changes >= self.stride {
            self.changes = 0;
            self.points.extend(self.highest.take());
            if self.points.len() >= MAX_POINTS {
                self.thin();
            }
        }
    }

    /// The points, the last of which is the count at the end.
    pub(super) fn finish(mut self) -> Vec<CountAt> {
        self.points.extend(self.highest.take());
        if self.points.last().is_some_and(|point| point.use_count != self.last) {
            self.points.push(CountAt { time: Timestamp(self.last_time), use_count: self.last });
        }
        self.points
    }

    /// Makes one point of every two.
    fn thin(&mut self) {
        let mut points = std::mem::take(&mut self.points).into_iter();
        while let Some(first) = points.next() {
            let second = points.next().filter(|second| second.use_count > first.use_count);
            self.points.push(second.unwrap_or(first));
        }
        self.stride *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(changes: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut timeline = Timeline::default();
        changes.enumerate().for_each(|(at, count)| timeline.push(&at.to_string(), count));
        timeline.finish().into_iter().map(|point| point.use_count).collect()
    }

    #[test]
    fn every_change_is_a_point() {
        assert_eq!(counts([0, 1, 1, 2, 1, 0].into_iter()), [0, 1, 2, 1, 0]);
        assert!(counts(std::iter::empty()).is_empty());
    }

    #[test]
    fn a_long_trace_keeps_its_peaks_and_its_end() {
        let points = counts((0..100_000).map(|at| if at == 54_321 { 9 } else { at % 2 }).chain([0]));
        assert!(points.len() <= MAX_POINTS + 2, "{}", points.len());
        assert_eq!(points.iter().max(), Some(&9));
        assert_eq!(points.last(), Some(&0));
    }
}
