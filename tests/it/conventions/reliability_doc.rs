//! Every promise of `docs/reliability.md` names a test that exists.

use std::collections::BTreeSet;

use regex::Regex;

use super::source_parser::Tree;
use super::{assert_follows, assert_violates};

const DOCUMENT: &str = "docs/reliability.md";

/// The paths of all tests in the notation of the document.
fn tests(tree: &Tree) -> BTreeSet<String> {
    let (mark, name) = (
        Regex::new(r"^\s*#\[(?:tokio::|actix::|actix_rt::)?test\b").unwrap(),
        Regex::new(r"^\s*(?:async )?fn (\w+)").unwrap(),
    );
    let mut found = BTreeSet::new();
    for file in tree.rust() {
        let path = file
            .path
            .trim_start_matches("tests/it/")
            .trim_start_matches("src/");
        let module = path
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .replace('/', "::");
        let mut marked = false;
        for line in &file.lines {
            marked |= mark.is_match(&line.raw);
            if let Some(found_name) = name.captures(&line.raw).filter(|_| marked) {
                found.insert(format!("{module}::{}", &found_name[1]));
                marked = false;
            }
        }
    }
    found
}

fn promises(tree: &Tree) -> Vec<String> {
    let named = Regex::new(r"`((?:\w+::)+[a-z0-9_]+)`").unwrap();
    let tests = tests(tree);
    let mut violations = Vec::new();
    for file in tree.files.iter().filter(|file| file.path == DOCUMENT) {
        for line in &file.lines {
            let mut count = 0;
            for path in named.captures_iter(&line.raw) {
                let path = &path[1];
                let module = tests
                    .iter()
                    .any(|test| test.starts_with(&format!("{path}::")));
                count += 1;
                if !module && !tests.contains(path) {
                    violations
                        .push(file.violation(line.number, &format!("no test is called {path}")));
                }
            }
            let row = line.raw.starts_with("| ") && !line.raw.ends_with("| shown by |");
            if row && count == 0 {
                violations.push(file.violation(line.number, "a row without a test"));
            }
        }
    }
    violations
}

#[test]
fn every_promise_names_an_existing_test() {
    assert_follows(promises);
    let test = ("tests/it/service/a.rs", "#[tokio::test]\nasync fn b() {}\n");
    for (row, wrong) in [
        ("| x | y | `service::a::b` |", false),
        ("| x | y | `service::a::c` |", true),
        ("| x | y | nothing |", true),
        ("| x | y | shown by |", false),
        ("|---|---|---|", false),
        ("See `service::a` and `service::a::b`.", false),
        ("See `service::c`.", true),
    ] {
        let places = if wrong {
            vec!["docs/reliability.md:1"]
        } else {
            Vec::new()
        };
        assert_violates(promises, &[(DOCUMENT, row), test], &places);
    }
}
