use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: String,
    #[serde(default)]
    refcount: Option<u32>,
    #[serde(default)]
    tags: OneOrMany<String>,
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    place: Option<Spanned<String>>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Step {
    Load(Load),
    Wait { is: u32, module: String },
    Clear,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(remote = "Self", deny_unknown_fields)]
struct Load {
    module: Spanned<String>,
    #[serde(default)]
    force: bool,
}

short_form!(Load, "module", "a module's name or a map");

/// `line:column message; hint` for each error.
fn errors(text: &str) -> Vec<String> {
    let line = |d: Diagnostic| {
        let hint = d.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}:{} {}{hint}", d.at.line, d.at.column, d.message)
    };
    from_str::<File>(text).map(|file| panic!("{file:?}")).unwrap_err().into_iter().map(line).collect()
}

#[test]
fn a_good_file_is_read_with_positions_and_short_forms() {
    let text = "name: 5.10\ntags: one\nsteps:\n  - load: refmod\n  - load: { module: x, force: true }\n  - clear\n  \
                - wait: { is: 0x10, module: 007 }\nplace: \"ä\"\nenv: { A: true, B: 1_0 }\n";
    let file: File = from_str(text).unwrap();
    assert_eq!(file.name, "5.10");
    assert_eq!(file.tags.0, ["one"]);
    assert_eq!(file.steps[2], Step::Clear);
    assert_eq!(file.steps[3], Step::Wait { is: 16, module: "007".into() });
    let Step::Load(load) = &file.steps[0] else { panic!() };
    assert_eq!(
        (load.module.at, load.module.as_str()),
        (Position { line: 4, column: 11, length: 6 }, "refmod")
    );
    assert_eq!(file.place.unwrap().at, Position { line: 8, column: 8, length: 3 });
    let (key, value) = file.env.first_key_value().unwrap();
    assert_eq!((key.as_str(), key.at.column, value.as_str()), ("A", 8, "true"));
}

#[rstest]
#[case::unknown_key("name: a\nrefcont: 1\n", "2:1 unknown key `refcont`; did you mean `refcount`?")]
#[case::far_off(
    "name: a\nsteps:\n  - lorem: a\n",
    "3:5 unknown key `lorem`; known are `load`, `wait`, `clear`"
)]
#[case::unknown_word("name: a\nsteps: [cler]\n", "2:9 unknown word `cler`; did you mean `clear`?")]
#[case::wrong_type(
    "name: a\nrefcount: many\n",
    "2:11 expected a whole number, not negative, found the text `many`"
)]
#[case::negative(
    "name: a\nrefcount: -1\n",
    "2:11 expected a whole number, not negative, found the number `-1`"
)]
#[case::list_for_text("name: [a]\n", "1:7 expected text, found a list")]
#[case::no_value("name: a\nrefcount:\n", "2:1 expected a whole number, not negative, found nothing")]
#[case::missing("tags: a\n", "1:1 the key `name` is missing")]
#[case::missing_deep("name: a\nsteps:\n  - wait: { is: 1 }\n", "3:11 the key `module` is missing")]
#[case::two_keys(
    "name: a\nsteps:\n  - load: a\n    wait: b\n",
    "3:5 expected a map with one key, found 2 keys"
)]
#[case::wants_value("name: a\nsteps: [load]\n", "2:9 `load` needs a value")]
#[case::takes_none("name: a\nsteps:\n  - clear: 1\n", "3:12 this word takes no value")]
#[case::empty_list("name: a\ntags: []\n", "2:7 the list is empty")]
#[case::short_null("name: a\nsteps:\n  - load:\n", "3:5 expected a module's name or a map, found nothing")]
#[case::duplicate("name: a\nname: b\n", "2:1 the key `name` is there twice; it is on line 1 already")]
#[case::odd_key("name: a\n? [x]\n: y\n", "2:3 a key must be a word, not a list, a map or nothing")]
#[case::empty("", "1:1 the file is empty")]
#[case::comments("# nothing\n", "1:1 the file is empty")]
#[case::documents(
    "name: a\n---\nname: b\n",
    "3:1 a second document begins here; a file holds one; remove the `---`"
)]
#[case::tab("name: a\nsteps:\n\t- clear\n", "3:2 tabs disallowed within this context (block indentation)")]
#[case::quote("name: \"a", "1:7 unclosed quote")]
#[case::anchor("name: *a\n", "1:7 alias references unknown anchor")]
#[case::tag("name: !x a\n", "1:10 unsupported tag `!x`")]
#[case::crlf("name: a\r\nrefcont: 1\r\n", "2:1 unknown key `refcont`; did you mean `refcount`?")]
#[case::bom("\u{feff}nme: a\nname: b\n", "1:1 unknown key `nme`; did you mean `name`?")]
#[case::not_a_map("hello\n", "1:1 expected a map, found the text `hello`")]
fn an_error_says_where_and_what(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(errors(text), [expected]);
}

#[test]
fn all_errors_come_at_once_and_none_twice() {
    let text = "refcont: 1\nname: a\nrefcount: x\nsteps:\n  - load: { modul: a }\n  - clar\n  - wait: { is: x, module: y }\n\
                name: b\ntags: [[a], b, {}]\n";
    assert_eq!(
        errors(text),
        [
            "1:1 unknown key `refcont`; did you mean `refcount`?",
            "3:11 expected a whole number, not negative, found the text `x`",
            "5:13 unknown key `modul`; did you mean `module`?",
            "6:5 unknown word `clar`; did you mean `clear`?",
            "7:17 expected a whole number, not negative, found the text `x`",
            "8:1 the key `name` is there twice; it is on line 2 already",
            "9:8 expected text, found a list",
            "9:16 expected text, found a map",
        ]
    );
}

#[test]
fn bombs_are_refused() {
    let mut wide = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        wide += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let deep = "[".repeat(100) + &"]".repeat(100);
    let large = "x".repeat(MAX_BYTES + 1);
    let merges: String = "a: &a { b: 1 }\n".to_owned() + &"c: { <<: *a }\n".repeat(2000);
    for text in [wide, deep, merges] {
        let error = parse(&text).1.remove(0);
        assert_eq!(error.message, "the file is too deep or too large here, with its aliases expanded");
    }
    assert_eq!(parse(&large).1[0].message, "the file is larger than 1024 KiB");
}

#[test]
fn a_byte_that_is_not_utf_8_is_placed() {
    let error = utf8(b"name: a\n\xc3\xa4: \xff\n").unwrap_err();
    assert_eq!((error.at.line, error.at.column, error.message.as_str()), (2, 4, "not UTF-8"));
}

#[test]
fn errors_are_shown_with_their_lines() {
    let text = "name: a\nsteps:\n  - load: { modul: ä }  # here\nplace:\n";
    let shown = render("scenarios/x.yaml", text, &from_str::<File>(text).unwrap_err());
    let expected = "\
error: unknown key `modul`
 --> scenarios/x.yaml:3:13
  |
3 |   - load: { modul: ä }  # here
  |             ^^^^^
  |
  = help: did you mean `module`?

error: expected text, found nothing
 --> scenarios/x.yaml:4:1
  |
4 | place:
  | ^^^^^
";
    assert_eq!(shown, expected);
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let errors = from_str::<File>(&text).err().unwrap_or_default();
        let _ = render("x", &text, &errors);
    }

    #[test]
    fn no_text_that_looks_like_a_file_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "name", ": ", "\n", "  ", "- ", "{", "}", "[", "]", "load", "&a ", "*a", "<<", "!!int ", "'", "\"", "|\n", "ä",
                "1", "\r\n", "# ", "? ", "---\n", "\t", "\u{feff}", "wait", "is",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        let errors = from_str::<File>(&text).err().unwrap_or_default();
        let _ = render("x", &text, &errors);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Err(error) = utf8(&bytes) {
            let _ = render("x", &String::from_utf8_lossy(&bytes), &[error]);
        }
    }
}
