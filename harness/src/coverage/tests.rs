use std::path::{Path, PathBuf};

use fs_err as fs;

use super::*;

/// What gcov says of an object of two files, in the parts that are read; a line that two functions share is there twice.
fn gcov(count: u32) -> String {
    format!(
        r#"{{"format_version": "1", "current_working_directory": "/build", "files": [
          {{"file": "mod/mod.c",
            "functions": [
              {{"name": "called", "start_line": 3, "execution_count": {count}, "blocks": 4}},
              {{"name": "idle", "start_line": 9, "execution_count": 0}}],
            "lines": [
              {{"line_number": 3, "count": {count}, "branches": []}},
              {{"line_number": 4, "count": {count}, "function_name": "called",
                "branches": [{{"count": {count}, "throw": false}}, {{"count": 0}}]}},
              {{"line_number": 4, "count": 2, "branches": [{{"count": 2}}]}},
              {{"line_number": 9, "count": 0, "branches": [{{"count": 0}}]}}]}},
          {{"file": "include/x.h", "functions": [], "lines": [{{"line_number": 1, "count": 0, "branches": []}}]}}]}}
"#
    )
}

fn coverage(case: &str, printed: &str) -> Coverage {
    read(case, printed.as_bytes(), &|ran_in, file| ran_in.join(file)).unwrap()
}

fn tracefile(coverage: &Coverage) -> String {
    let mut text = Vec::new();
    coverage.write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn what_gcov_says_becomes_a_tracefile() {
    let text = tracefile(&coverage("refcount/a-b", &gcov(7)));
    let untouched = "TN:\nSF:/build/include/x.h\nDA:1,0\nLF:1\nLH:0\nend_of_record\n";
    let touched = "TN:refcount_a_b\nSF:/build/mod/mod.c\nFN:3,called\nFN:9,idle\nFNDA:7,called\nFNDA:0,idle\nFNF:2\nFNH:1\n\
                   BRDA:4,0,0,7\nBRDA:4,0,1,0\nBRDA:4,0,2,2\nBRDA:9,0,0,-\nBRF:4\nBRH:2\n\
                   DA:3,7\nDA:4,9\nDA:9,0\nLF:3\nLH:2\nend_of_record\n";
    assert_eq!(text, format!("{untouched}{touched}"));
}

#[test]
fn cases_are_kept_apart_and_repeats_are_added_up() {
    let mut all = coverage("a", &gcov(1));
    all.add(coverage("a", &gcov(2)));
    all.add(coverage("b", &gcov(4)));
    // The header has one section, whoever did not execute it.
    all.add(coverage("c", &gcov(0).replace(r#""count": 2"#, r#""count": 0"#)));
    let text = tracefile(&all);
    let starts: Vec<&str> =
        text.lines().filter(|line| line.starts_with("TN") || line.starts_with("SF")).collect();
    let expected =
        ["TN:", "SF:/build/include/x.h", "TN:a", "SF:/build/mod/mod.c", "TN:b", "SF:/build/mod/mod.c"];
    assert_eq!(starts, expected);
    let counts: Vec<&str> =
        text.lines().filter(|line| line.ends_with(",called") && line.starts_with("FNDA")).collect();
    assert_eq!(counts, ["FNDA:3,called", "FNDA:4,called"]);
    assert_eq!(all.summary(), Summary { files: 2, lines: 4, executed: 2 });
}

#[test]
fn two_objects_with_code_from_one_header_are_added_up() {
    let header = r#"{"current_working_directory": "/b", "files": [{"file": "x.h", "functions": [],
        "lines": [{"line_number": 1, "count": 18446744073709551615, "branches": []}]}]}"#;
    let text = tracefile(&coverage("a", &format!("{header}\n{header}\n")));
    assert!(text.contains(&format!("\nDA:1,{}\n", 2_u64 << 48)), "{text}");
}

#[test]
fn what_is_no_gcovs_is_told() {
    for printed in ["{", "nonsense", r#"{"files": []}"#] {
        let error = read("a", printed.as_bytes(), &|_, file| file.to_owned()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read what gcov says: "), "{error}");
    }
    assert!(coverage("a", "").is_empty());
}

fn notes(dir: &Path, origin: Origin) -> Notes {
    Notes { dir: dir.to_owned(), gcov: "gcov".into(), origin }
}

#[test]
fn notes_are_found_by_the_end_of_the_path_that_leads_farthest() {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    };
    let fork = file("tree/kernel/fork.gcno");
    let module = file("module/fork/fork.gcno");
    file("secret.gcno");
    let kernel = notes(&dir.path().join("tree"), Origin::Kernel);
    let of_module = Origin::Module { name: "fork".into(), dir: PathBuf::new() };
    let all = [notes(&dir.path().join("module"), of_module), kernel];
    let find = |path: &str| Notes::find(&all, path).map(|found| found.file);
    assert_eq!(find("home/me/linux/kernel/fork.gcda"), Some(fork));
    assert_eq!(find("tmp/build-x/fork/fork.gcda"), Some(module));
    for path in [
        "kernel/exit.gcda",
        "kernel/fork.gcno",
        "x/../secret.gcda",
        "../secret.gcda",
        "",
        ".gcda",
        "a\0/b.gcda",
    ] {
        assert_eq!(find(path), None, "{path:?}");
    }
}

#[test]
fn sources_are_those_of_the_user_and_not_the_copy_that_was_compiled() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["mod/mod.c", "include/compat.h"] {
        fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
        fs::write(dir.path().join(path), "").unwrap();
    }
    let module = Origin::Module { name: "mod".into(), dir: dir.path().join("mod") };
    let source = |origin: &Origin, file: &str| origin.source(Path::new("/linux/out"), Path::new(file));
    assert_eq!(source(&module, "mod/mod.c"), dir.path().join("mod/mod.c"));
    assert_eq!(source(&module, "mod/../include/compat.h"), dir.path().join("include/compat.h"));
    assert_eq!(source(&module, "./include/linux/list.h"), Path::new("/linux/out/include/linux/list.h"));
    assert_eq!(source(&module, "/linux/x.h"), Path::new("/linux/x.h"));
    assert_eq!(source(&Origin::Kernel, "../kernel/./fork.c"), Path::new("/linux/kernel/fork.c"));
}
