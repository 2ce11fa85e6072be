//! The project builds anywhere: nothing in it points at one machine or one mirror.

use regex::Regex;

use super::source_parser::{File, Tree};
use super::{breaks, holds};

/// The one registry that a locked package may come from, as Cargo names it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Whether the text of a file is the project's own to answer for. These laws hold what they forbid.
fn ours(file: &File) -> bool {
    !file.path.starts_with("static/vendor/") && !file.path.starts_with("tests/it/conventions/")
}

fn places(tree: &Tree) -> Vec<String> {
    let path = Regex::new(r"(?:^|[^\w./~-])/(?:home|root|Users|tmp|work|build|mnt)/\w").unwrap();
    let what = "a path of one machine: take it from the settings, from the environment, or from a temporary folder";
    let files = tree.files.iter().filter(|file| ours(file));
    let breaches = files.flat_map(|file| file.lines_that(|line| path.is_match(&line.raw), what));
    breaches.collect()
}

fn registries(tree: &Tree) -> Vec<String> {
    let host = Regex::new(concat!(
        r"(?i)\b(?:index|static)\.crates\.io|\bregistry\.(?:npmjs|yarnpkg)\.|\b(?:deb|security)\.debian\.org",
        r"|\b(?:artifactory|nexus|mirror|registry)\.[a-z0-9-]+\.[a-z]|^\s*\[(?:source|registries|registry)\b",
    ))
    .unwrap();
    let what = "a registry: which one is the machine's own affair";
    let files = tree
        .files
        .iter()
        .filter(|file| ours(file) && file.path != "Cargo.lock");
    let mut breaches: Vec<_> = files
        .flat_map(|file| file.lines_that(|line| host.is_match(&line.raw), what))
        .collect();
    for file in tree.files.iter().filter(|file| file.path == "Cargo.lock") {
        let foreign = |line: &super::source_parser::Line| {
            let source = line.raw.strip_prefix("source = ");
            source.is_some_and(|source| source.trim_matches('"') != CRATES_IO)
        };
        breaches.extend(file.lines_that(foreign, "a package from elsewhere than crates.io"));
    }
    breaches
}

#[test]
fn no_path_of_one_machine() {
    holds(places);
    for text in [
        "let a = \"/home/me/x\";",
        "/tmp/x",
        "see (/root/x)",
        "cd=/Users/x",
        "`/work/a`",
    ] {
        breaks(places, &[("src/a.rs", text)], &["src/a.rs:1"]);
        breaks(places, &[("README.md", text)], &["README.md:1"]);
    }
    for text in [
        "https://example.com/home/page",
        "\"/var/lib/failsoft\"",
        "./build/x",
        "/homepage",
        "a /tmp of one's own",
    ] {
        breaks(places, &[("src/a.rs", text)], &[]);
    }
}

#[test]
fn no_registry_of_ones_own() {
    holds(registries);
    for text in [
        "https://index.crates.io/",
        "registry.npmjs.org",
        "https://mirror.corp.example/x",
        "[source.crates-io]",
        "[registries.mine]",
    ] {
        breaks(
            registries,
            &[(".cargo/config.toml", text)],
            &[".cargo/config.toml:1"],
        );
    }
    let lock = |source: &str| format!("[[package]]\nname = \"a\"\nsource = \"{source}\"\n");
    breaks(
        registries,
        &[("Cargo.lock", &lock("registry+https://mine/index"))],
        &["Cargo.lock:3"],
    );
    breaks(
        registries,
        &[("Cargo.lock", &lock("git+https://github.com/a/b"))],
        &["Cargo.lock:3"],
    );
    breaks(
        registries,
        &[
            ("Cargo.lock", &lock(CRATES_IO)),
            ("a.md", "crates.io, a registry. Here:"),
        ],
        &[],
    );
}
