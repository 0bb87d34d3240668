//! The report as a folder of pages: an overview, and a page for each case, so that ten thousand of them can be opened.
//!
//! Every text goes through the template engine's escaping, whatever it is.

mod chart;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use fs_err as fs;
use minijinja::Environment;
use minijinja::value::Serde;

use super::document::Document;
use view::{Overview, Page};

const TEMPLATES: [(&str, &str); 3] = [
    ("base.html", include_str!("base.html")),
    ("index.html", include_str!("index.html")),
    ("case.html", include_str!("case.html")),
];
const FILES: [(&str, &str); 2] =
    [("style.css", include_str!("style.css")), ("report.js", include_str!("report.js"))];

/// Why a folder cannot take a report.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not empty and has no report of kmodlab's in it\nname another folder")]
pub struct NotOurs(String);

/// Says whether a report may be written to `dir`: it does not exist, is empty, or has an earlier report, which is replaced.
///
/// # Errors
///
/// Where it has something else in it.
pub fn may_write(dir: &Path) -> Result<(), NotOurs> {
    let mut entries = fs::read_dir(dir).into_iter().flatten();
    let marked = || {
        let index = fs::read_to_string(dir.join("index.html")).unwrap_or_default();
        index.contains(r#"<meta name="generator" content="kmodlab">"#)
    };
    if entries.next().is_none() || marked() { Ok(()) } else { Err(NotOurs(dir.display().to_string())) }
}

/// Writes the pages beside the folder first, and then puts them in its place.
pub(super) fn write(document: &Document, dir: &Path) -> io::Result<()> {
    may_write(dir).map_err(io::Error::other)?;
    let dir = std::path::absolute(dir)?;
    let beside = dir.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(beside)?;
    let fresh = tempfile::Builder::new().prefix(".kmodlab-report-").tempdir_in(beside)?;
    let new = fresh.path().join("new");
    fs::create_dir_all(new.join("cases"))?;
    pages(document, &new)?;
    if dir.exists() {
        fs::rename(&dir, fresh.path().join("old"))?;
    }
    fs::rename(&new, &dir)
}

fn pages(document: &Document, dir: &Path) -> io::Result<()> {
    for (name, content) in FILES {
        fs::write(dir.join(name), content)?;
    }
    let mut templates = Environment::new();
    for (name, source) in TEMPLATES {
        templates.add_template(name, source).map_err(io::Error::other)?;
    }
    let names = Names::of(document);
    let index = templates.get_template("index.html").map_err(io::Error::other)?;
    let overview = index.render(Serde(Overview::of(document, &names))).map_err(io::Error::other)?;
    fs::write(dir.join("index.html"), overview)?;
    let template = templates.get_template("case.html").map_err(io::Error::other)?;
    let same: HashMap<&str, usize> =
        document.crashes.iter().map(|group| (group.title.as_str(), group.cases.len())).collect();
    let mut previous = None;
    for (at, case) in document.cases.iter().enumerate() {
        let mut page = Page::of(case);
        page.previous = previous;
        let is_bad = |of: &usize| document.cases[*of].outcome.is_bad();
        page.next = (at + 1..document.cases.len()).find(is_bad).map(|of| names.page(of));
        let others = case.crash.as_ref().and_then(|crash| same.get(crash.title.as_str()));
        page.others = others.map_or(0, |cases| cases - 1);
        let page = template.render(Serde(page)).map_err(io::Error::other)?;
        fs::write(dir.join("cases").join(names.page(at)), page)?;
        previous = if case.outcome.is_bad() { Some(names.page(at)) } else { previous };
    }
    Ok(())
}

/// The pages' file names: harmless ones, each once.
struct Names(Vec<String>);

impl Names {
    fn of(document: &Document) -> Self {
        let mut taken = BTreeSet::new();
        let names = document.cases.iter().enumerate().map(|(at, case)| {
            let harmless = |c: char| if c.is_ascii_alphanumeric() || "-_@".contains(c) { c } else { '.' };
            let id = case.id();
            let plain: String = id.chars().take(120).map(harmless).collect();
            let plain = plain.trim_start_matches('.').to_owned();
            // File systems differ in whether they tell upper case from lower.
            let plain = if taken.insert(plain.to_lowercase()) { plain } else { format!("{plain}.{at}") };
            format!("{plain}.html")
        });
        Names(names.collect())
    }

    fn page(&self, at: usize) -> &str {
        self.0.get(at).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests;
