//! The laws of the source tree, held by a test so that nobody has to hold them.
//!
//! A law takes the tree and returns its breaches, each as `file:line: what, and what would be right`. Beside each law over the
//! tree as it is stands the same law over a few lines that break it: a law that cannot fail is none.

mod dependencies;
mod figures;
mod files;
mod portability;
mod reliability_doc;
mod source_parser;

use std::sync::LazyLock;

use source_parser::Tree;

type Law = fn(&Tree) -> Vec<String>;

static HERE: LazyLock<Tree> = LazyLock::new(Tree::here);

#[track_caller]
fn holds(law: Law) {
    let breaches = law(&HERE);
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// Asserts that a tree of these files breaks the law at these places, given as `file:line`, and nowhere else.
#[track_caller]
fn breaks(law: Law, files: &[(&str, &str)], places: &[&str]) {
    let breaches = law(&Tree::of(files.iter().copied()));
    let found: Vec<_> = breaches
        .iter()
        .map(|breach| breach.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(found, places, "\n{}\n", breaches.join("\n"));
}

#[test]
fn the_tree_is_read() {
    for path in [
        "src/lib.rs",
        "src/chat/fault.rs",
        "tests/it/conventions/source_parser.rs",
        "tests/run.sh",
        "Cargo.lock",
    ] {
        assert!(HERE.files.iter().any(|file| file.path == path), "{path}");
    }
}
