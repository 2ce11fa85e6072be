//! Conventions of the source tree, checked by tests.
//!
//! A rule takes the tree and returns its violations, each as `file:line: problem, and the remedy`. Every rule is
//! also tested on a few lines that violate it, so that no rule passes because it cannot fail.

mod dependencies;
mod figures;
mod files;
mod portability;
mod reliability_doc;
mod source_parser;

use std::sync::LazyLock;

use source_parser::Tree;

type Rule = fn(&Tree) -> Vec<String>;

static PROJECT: LazyLock<Tree> = LazyLock::new(Tree::here);

#[track_caller]
fn assert_follows(rule: Rule) {
    let violations = rule(&PROJECT);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Asserts that a tree of these files violates the rule at exactly these places (`file:line`).
#[track_caller]
fn assert_violates(rule: Rule, files: &[(&str, &str)], places: &[&str]) {
    let violations = rule(&Tree::of(files.iter().copied()));
    let found: Vec<_> = violations
        .iter()
        .map(|violation| violation.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(found, places, "\n{}\n", violations.join("\n"));
}

#[test]
fn the_source_tree_is_found() {
    for path in [
        "src/lib.rs",
        "src/domain/failure.rs",
        "tests/it/conventions/source_parser.rs",
        "tests/run.sh",
        "Cargo.lock",
    ] {
        assert!(PROJECT.files.iter().any(|file| file.path == path), "{path}");
    }
}
