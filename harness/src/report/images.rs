//! A line for each image of a run: how its cases ended, and how long it took to come to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::run::{CaseReport, Kind, StartKind, Totals};

/// What is known of the images of a run.
#[derive(Debug, Default)]
pub(super) struct Images(BTreeMap<String, Image>);

#[derive(Debug, Default)]
struct Image {
    totals: Totals,
    modules: Option<Duration>,
    boot: Option<Duration>,
    cold: Vec<Duration>,
    warm: Vec<Duration>,
}

impl Images {
    /// An image's cases can begin.
    pub(super) fn ready(&mut self, image: &str, modules: Duration, boot: Option<Duration>) {
        let of = self.0.entry(image.to_owned()).or_default();
        (of.modules, of.boot) = (Some(modules), boot);
    }

    /// A case is over.
    pub(super) fn case(&mut self, report: &CaseReport) {
        let of = self.0.entry(report.id.image.clone()).or_default();
        of.totals.add(report.outcome.kind());
        match report.start {
            Some(start) if start.kind == StartKind::Warm => of.warm.push(start.time),
            Some(start) => of.cold.push(start.time),
            None => {}
        }
    }

    /// The lines, where there is more than one image.
    pub(super) fn table(&self) -> Option<String> {
        if self.0.len() < 2 {
            return None;
        }
        let width = self.0.keys().map(String::len).max().unwrap_or_default().max("image".len());
        let mut table = format!("{:width$}", "image");
        for kind in Kind::ALL {
            let _ = write!(table, " {:>7}", kind.name());
        }
        let _ = write!(table, " {:>9} {:>9} {:>9} {:>9}", "modules", "cold", "warm", "cold/warm");
        for (name, of) in &self.0 {
            let _ = write!(table, "\n{name:width$}");
            for kind in Kind::ALL {
                let _ = write!(table, " {:>7}", of.totals.of(kind));
            }
            let (cold, warm) = (of.boot.or_else(|| median(&of.cold)), median(&of.warm));
            let ratio = cold.zip(warm).map(|(cold, warm)| cold.as_secs_f64() / warm.as_secs_f64().max(1e-3));
            for time in [of.modules, cold, warm] {
                let _ = write!(table, " {:>9}", time.map_or("-".to_owned(), shown));
            }
            let _ = write!(table, " {:>9}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.1}")));
        }
        Some(table)
    }
}

fn shown(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_images_has_a_line() {
        let mut images = Images::default();
        images.ready("arm", Duration::from_millis(12_340), Some(Duration::from_secs(4)));
        assert_eq!(images.table(), None);
        images.ready("x86_64-5.10", Duration::ZERO, None);
        let arm = images.0.get_mut("arm").unwrap();
        arm.warm = [500, 100, 200].map(Duration::from_millis).into();
        [Kind::Pass, Kind::Pass, Kind::Skip].into_iter().for_each(|kind| arm.totals.add(kind));
        let table = images.table().unwrap();
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0][..3], ["image", "pass", "skip"]);
        assert_eq!(
            words[1],
            ["arm", "2", "1", "0", "0", "0", "0", "12.34", "s", "4.00", "s", "0.20", "s", "20.0"]
        );
        assert_eq!(words[2][7..], ["0.00", "s", "-", "-", "-"]);
    }
}
