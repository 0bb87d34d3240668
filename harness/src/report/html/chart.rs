//! A module's use count over time, drawn.

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::document::{Change, ChangeKind, Module};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
/// What is left for the axes' words.
const LEFT: f64 = 32.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 36.0;
/// Half of a mark's size.
const MARK: f64 = 6.0;

/// All that the page shows of a module.
#[derive(Serialize)]
pub(super) struct Chart {
    name: String,
    width: f64,
    height: f64,
    axis: String,
    path: String,
    ticks: Vec<Tick>,
    points: Vec<Point>,
    changes: Vec<Row>,
    more: usize,
    held: bool,
}

#[derive(Serialize)]
struct Tick {
    x: String,
    y: String,
    anchor: &'static str,
    text: String,
}

#[derive(Serialize)]
struct Point {
    class: &'static str,
    path: String,
    title: String,
}

#[derive(Serialize)]
struct Row {
    time: String,
    what: &'static str,
    task: String,
    by: String,
    count: i64,
    held: bool,
}

/// Where things stand in the drawing.
struct Scale {
    begin: f64,
    end: f64,
    least: i64,
    most: i64,
}

impl Scale {
    fn of(changes: &[Change]) -> Self {
        let times = || changes.iter().map(|change| change.time).filter(|time| time.is_finite());
        let counts = || changes.iter().map(|change| change.count);
        let begin = times().fold(f64::INFINITY, f64::min);
        let end = times().fold(f64::NEG_INFINITY, f64::max);
        Scale {
            begin: if begin.is_finite() { begin } else { 0.0 },
            end: if end.is_finite() { end } else { 0.0 },
            least: counts().min().unwrap_or(0).min(0),
            most: counts().max().unwrap_or(0).max(1),
        }
    }

    fn x(&self, time: f64) -> f64 {
        let part = (time - self.begin) / (self.end - self.begin).max(1e-9);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, count: i64) -> f64 {
        let part = (count as f64 - self.least as f64) / (self.most as f64 - self.least as f64);
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

pub(super) fn chart(module: &Module) -> Chart {
    let scale = Scale::of(&module.changes);
    let mut path = String::new();
    for change in &module.changes {
        let (x, y) = (scale.x(change.time), scale.y(change.count));
        // Writing to a String cannot fail.
        let _ = if path.is_empty() { write!(path, "M{x:.1} {y:.1}") } else { write!(path, "H{x:.1}V{y:.1}") };
    }
    let _ = write!(path, "H{:.1}", WIDTH - RIGHT);
    let bottom = HEIGHT - BOTTOM;
    Chart {
        name: module.module.clone(),
        width: WIDTH,
        height: HEIGHT,
        axis: format!("M{LEFT} {TOP}V{bottom}H{}", WIDTH - RIGHT),
        path,
        ticks: ticks(&scale),
        points: module.changes.iter().map(|change| point(change, &scale)).collect(),
        changes: module.changes.iter().map(row).collect(),
        more: module.more,
        held: module.changes.iter().any(|change| change.held),
    }
}

fn ticks(scale: &Scale) -> Vec<Tick> {
    let count = |count: i64| Tick {
        x: format!("{:.1}", LEFT - 8.0),
        y: format!("{:.1}", scale.y(count) + 4.0),
        anchor: "end",
        text: count.to_string(),
    };
    let time = |time: f64, anchor: &'static str| Tick {
        x: format!("{:.1}", scale.x(time)),
        y: format!("{:.1}", HEIGHT - 8.0),
        anchor,
        text: format!("{time:.6} s"),
    };
    vec![count(scale.least), count(scale.most), time(scale.begin, "start"), time(scale.end, "end")]
}

fn point(change: &Change, scale: &Scale) -> Point {
    let (x, y, m) = (scale.x(change.time), scale.y(change.count), MARK);
    let (class, path) = match change.kind {
        ChangeKind::Taken if change.held => {
            ("held", format!("M{:.1} {:.1}h{w}v{w}h-{w}z", x - m, y - m, w = 2.0 * m))
        }
        ChangeKind::Taken => ("taken", format!("M{:.1} {:.1}l{m} {w}h-{w}z", x, y - m, w = 2.0 * m)),
        ChangeKind::Given => ("given", format!("M{:.1} {:.1}l{m} -{w}h-{w}z", x, y + m, w = 2.0 * m)),
        ChangeKind::Loaded | ChangeKind::Removed => {
            ("other", format!("M{:.1} {:.1}h2v{w}h-2z", x - 1.0, y - m, w = 2.0 * m))
        }
    };
    let place = if change.by.is_empty() { String::new() } else { format!(" in {}", change.by) };
    let title =
        format!("{}: {} by {}{place}, use count {}", time(change), what(change), change.task, change.count);
    Point { class, path, title }
}

fn row(change: &Change) -> Row {
    Row {
        time: time(change),
        what: what(change),
        task: change.task.clone(),
        by: change.by.clone(),
        count: change.count,
        held: change.held,
    }
}

fn time(change: &Change) -> String {
    format!("{:.6}", change.time)
}

fn what(change: &Change) -> &'static str {
    match change.kind {
        ChangeKind::Loaded => "loaded",
        ChangeKind::Taken if change.held => "taken and not given back",
        ChangeKind::Taken => "taken",
        ChangeKind::Given => "given back",
        ChangeKind::Removed => "removed",
    }
}
