//! Portability rules: no paths of one machine, no package registry other than crates.io.

use regex::Regex;

use super::source_parser::{File, Tree};
use super::{assert_follows, assert_violates};

/// The only registry for locked packages, in Cargo's notation.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Returns `false` for vendored files and for these rules, which contain what they forbid.
fn is_ours(file: &File) -> bool {
    !file.path.starts_with("static/vendor/") && !file.path.starts_with("tests/it/conventions/")
}

fn machine_paths(tree: &Tree) -> Vec<String> {
    let path = Regex::new(r"(?:^|[^\w./~-])/(?:home|root|Users|tmp|work|build|mnt)/\w").unwrap();
    let what = "a path of one machine: take it from the settings, from the environment, or from a temporary folder";
    let files = tree.files.iter().filter(|file| is_ours(file));
    let violations = files.flat_map(|file| file.lines_where(|line| path.is_match(&line.raw), what));
    violations.collect()
}

fn registries(tree: &Tree) -> Vec<String> {
    let host = Regex::new(concat!(
        r"(?i)\b(?:index|static)\.crates\.io|\bregistry\.(?:npmjs|yarnpkg)\.|\b(?:deb|security)\.debian\.org",
        r"|\b(?:artifactory|nexus|mirror|registry)\.[a-z0-9-]+\.[a-z]|^\s*\[(?:source|registries|registry)\b",
    ))
    .unwrap();
    let what = "a package registry: which one is used is up to the machine";
    let files = tree
        .files
        .iter()
        .filter(|file| is_ours(file) && file.path != "Cargo.lock");
    let mut violations: Vec<_> = files
        .flat_map(|file| file.lines_where(|line| host.is_match(&line.raw), what))
        .collect();
    for file in tree.files.iter().filter(|file| file.path == "Cargo.lock") {
        let foreign = |line: &super::source_parser::Line| {
            let source = line.raw.strip_prefix("source = ");
            source.is_some_and(|source| source.trim_matches('"') != CRATES_IO)
        };
        violations.extend(file.lines_where(foreign, "a package that is not from crates.io"));
    }
    violations
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    assert_follows(machine_paths);
    for text in [
        "let a = \"/home/me/x\";",
        "/tmp/x",
        "see (/root/x)",
        "cd=/Users/x",
        "`/work/a`",
    ] {
        assert_violates(machine_paths, &[("src/a.rs", text)], &["src/a.rs:1"]);
        assert_violates(machine_paths, &[("README.md", text)], &["README.md:1"]);
    }
    for text in [
        "https://example.com/home/page",
        "\"/var/lib/failsoft\"",
        "./build/x",
        "/homepage",
        "a /tmp of one's own",
    ] {
        assert_violates(machine_paths, &[("src/a.rs", text)], &[]);
    }
}

#[test]
fn no_file_names_a_registry() {
    assert_follows(registries);
    for text in [
        "https://index.crates.io/",
        "registry.npmjs.org",
        "https://mirror.corp.example/x",
        "[source.crates-io]",
        "[registries.mine]",
    ] {
        assert_violates(
            registries,
            &[(".cargo/config.toml", text)],
            &[".cargo/config.toml:1"],
        );
    }
    let lock = |source: &str| format!("[[package]]\nname = \"a\"\nsource = \"{source}\"\n");
    assert_violates(
        registries,
        &[("Cargo.lock", &lock("registry+https://mine/index"))],
        &["Cargo.lock:3"],
    );
    assert_violates(
        registries,
        &[("Cargo.lock", &lock("git+https://github.com/a/b"))],
        &["Cargo.lock:3"],
    );
    assert_violates(
        registries,
        &[
            ("Cargo.lock", &lock(CRATES_IO)),
            ("a.md", "crates.io, a registry. Here:"),
        ],
        &[],
    );
}
