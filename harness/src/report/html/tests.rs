use super::*;
use crate::report::document::tests::recorded;

fn page(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn there_is_an_overview_and_a_page_for_each_case() {
    let (document, dir) = (recorded(), tempfile::tempdir().unwrap());
    let dir = dir.path().join("report");
    write(&document, &dir).unwrap();
    let index = page(&dir, "index.html");
    for case in &document.cases {
        let name = format!("cases/{}.html", case.id().replace('/', "."));
        let href = format!("href=\"{}\"", name.replace('/', "&#x2f;"));
        assert!(index.contains(&href), "{name}");
        let text = page(&dir, &name);
        let again = case.again.replace('/', "&#x2f;");
        let step = case.steps.first().map_or("", |step| &step.name[..6]);
        assert!(text.contains(&again) && text.contains(step), "{name}");
    }
    assert_eq!(fs::read_dir(dir.join("cases")).unwrap().count(), document.cases.len());
    let wrong = page(&dir, "cases/topic.open-file-wrong@x86_64.html");
    for shown in [
        "<td>module refmod use-count</td><td>2</td><td class=\"fail\">1</td>",
        "taken and not given back",
        "Linux 6.1.0-",
        "use-count: 2, refcnt: 2",
    ] {
        assert!(wrong.contains(shown), "{shown} is not in\n{wrong}");
    }
    let crash = page(&dir, "cases/crash.warn@x86_64.html");
    assert!(
        crash.contains("<mark id=\"kernel-log-mark\">") && crash.contains("The same in 3 other cases"),
        "{crash}"
    );
}

#[test]
fn what_a_guest_says_stays_text() {
    let (mut document, dir) = (recorded(), tempfile::tempdir().unwrap());
    let evil = "</pre></title><script>alert(1)</script><b onclick='x'>\"{{ 7 * 7 }}{% raw %}";
    for case in &mut document.cases {
        let texts = [&mut case.title, &mut case.scenario, &mut case.file, &mut case.again];
        texts.into_iter().for_each(|text| text.push_str(evil));
        case.log.text.push_str(evil);
        case.trace.text.push_str(evil);
        (case.kernel, case.reason, case.expect) = (Some(evil.into()), Some(evil.into()), Some(evil.into()));
        case.mismatches.iter_mut().for_each(|of| (of.what, of.found) = (evil.into(), evil.into()));
        case.modules.iter_mut().for_each(|of| of.module.push_str(evil));
        for step in &mut case.steps {
            (step.source, step.ending) = (Some(evil.into()), Some(evil.into()));
            step.name.push_str(evil);
        }
        case.crash.iter_mut().for_each(|of| of.lines.push(evil.into()));
        case.warnings.push(evil.into());
    }
    document.crashes[0].title = evil.into();
    let dir = dir.path().join("report");
    write(&document, &dir).unwrap();
    let pages = fs::read_dir(dir.join("cases")).unwrap().map(|entry| entry.unwrap().path());
    for path in pages.chain([dir.join("index.html")]) {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("<script").count(), 1, "{text}");
        assert!(!text.contains("<b onclick") && text.contains("{{ 7 * 7 }}{% raw %}"), "{text}");
    }
}

#[test]
fn ids_that_are_alike_have_pages_of_their_own() {
    let mut document = recorded();
    document.cases.truncate(4);
    for (case, id) in document.cases.iter_mut().zip(["a/b", "a.b", "A.b", "../../../x"]) {
        (case.scenario, case.image) = (id.into(), "i".into());
    }
    let names = Names::of(&document);
    assert_eq!(names.0, ["a.b@i.html", "a.b@i.1.html", "A.b@i.2.html", "x@i.html"]);
}

#[test]
fn only_an_earlier_report_is_replaced() {
    let (document, dir) = (recorded(), tempfile::tempdir().unwrap());
    write(&document, dir.path()).unwrap();
    fs::write(dir.path().join("cases/old.html"), "").unwrap();
    write(&document, dir.path()).unwrap();
    assert!(!dir.path().join("cases/old.html").exists());
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("index.html"), "a page of somebody's").unwrap();
    let error = write(&document, other.path()).unwrap_err().to_string();
    assert!(error.contains("is not empty and has no report of kmodlab's"), "{error}");
    assert!(may_write(&other.path().join("new")).is_ok());
}
