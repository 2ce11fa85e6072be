//! Upper limits on figures that make source hard to read: size, vague or ambiguous names, empty docs, file cycles.
//!
//! All figures leave tests out. A limit that is no longer needed at its height should be lowered, never raised.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::source_parser::{File, Tree};
use super::{assert_follows, assert_violates};

/// Lines of `src/`, comments and blank lines included.
const MAX_LINES: usize = 45_300;
/// Type names of a single word, in per cent of all types.
const MAX_ONE_WORD_TYPES: usize = 40;
/// Types that share their name with another type, in per cent of all types.
const MAX_SHARED_TYPE_NAMES: usize = 12;
/// Doc comments that begin with a bare question word, in per cent of all doc comments.
const MAX_HEADLESS_DOCS: usize = 2;
/// Doc comments of at most four words, in per cent of all doc comments.
const MAX_SHORT_DOCS: usize = 6;
const MAX_TUPLE_LETS: usize = 15;
/// Files shorter than [`SMALL_FILE_LINES`], `mod.rs` files aside.
const MAX_SMALL_FILES: usize = 12;
const SMALL_FILE_LINES: usize = 40;

/// The lines of a file of `src/` that belong to no test.
fn code_lines(file: &File) -> usize {
    file.lines.iter().filter(|line| !line.test).count()
}

/// The files of `src/` that hold more than tests.
fn sources(tree: &Tree) -> impl Iterator<Item = &File> {
    let files = tree.files.iter();
    files.filter(|file| {
        file.path.starts_with("src/") && file.path.ends_with(".rs") && code_lines(file) > 0
    })
}

/// Reports `found` as one violation if it is more than `max`, with the first few places.
fn limit(what: &str, max: usize, found: usize, places: &[String]) -> Vec<String> {
    if found <= max {
        return Vec::new();
    }
    let shown: Vec<_> = places.iter().take(20).map(String::as_str).collect();
    vec![format!(
        "{what}: {found}, at most {max}\n  {}",
        shown.join("\n  ")
    )]
}

/// `part` of `all` in per cent, rounded up.
fn percent(part: usize, all: usize) -> usize {
    (part * 100).div_ceil(all.max(1))
}

fn total_lines(tree: &Tree) -> Vec<String> {
    limit(
        "lines of src/",
        MAX_LINES,
        sources(tree).map(code_lines).sum(),
        &[],
    )
}

/// All types with their places.
fn types(tree: &Tree) -> Vec<(String, String)> {
    let declaration =
        Regex::new(r"^(\s*)(?:pub(?:\([^)]*\))?\s+)?(struct|enum|union|trait|type)\s+(\w+)")
            .unwrap();
    let mut found = Vec::new();
    for file in sources(tree) {
        for line in file.lines.iter().filter(|line| !line.test) {
            let Some(hit) = declaration.captures(&line.code) else {
                continue;
            };
            // An indented `type` is an associated type: its name is the trait's choice.
            if !(hit[1].is_empty() || &hit[2] != "type") {
                continue;
            }
            found.push((hit[3].to_owned(), file.violation(line.number, &hit[3])));
        }
    }
    found
}

fn one_word_types(tree: &Tree) -> Vec<String> {
    let word = Regex::new(r"[A-Z]+(?:[^A-Za-z]|$)|[A-Z][a-z0-9]*").unwrap();
    let types = types(tree);
    let single: Vec<_> = types
        .iter()
        .filter(|(name, _)| word.find_iter(name).count() <= 1)
        .map(|(_, place)| place.clone())
        .collect();
    let share = percent(single.len(), types.len());
    limit(
        "type names of one word, %",
        MAX_ONE_WORD_TYPES,
        share,
        &single,
    )
}

fn shared_type_names(tree: &Tree) -> Vec<String> {
    let types = types(tree);
    let mut places: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (name, place) in &types {
        places.entry(name).or_default().push(place);
    }
    let shared: Vec<_> = places
        .values()
        .filter(|places| places.len() > 1)
        .flatten()
        .map(|place| (*place).clone())
        .collect();
    let share = percent(shared.len(), types.len());
    limit(
        "types that share a name, %",
        MAX_SHARED_TYPE_NAMES,
        share,
        &shared,
    )
}

/// All doc comments: where they begin, and their words.
fn docs(tree: &Tree) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for file in sources(tree) {
        let mut last = "";
        for line in &file.lines {
            let text = line.raw.trim_start();
            let kind = if line.test {
                ""
            } else {
                text.get(..3).unwrap_or_default()
            };
            if kind != "///" && kind != "//!" {
                last = "";
                continue;
            }
            let words = text[3..].split_whitespace().map(str::to_owned);
            match found.last_mut().filter(|_| last == kind) {
                Some((_, doc)) => doc.extend(words),
                None => found.push((file.violation(line.number, text), words.collect())),
            }
            last = if kind == "///" { "///" } else { "//!" };
        }
    }
    found
}

fn headless_docs(tree: &Tree) -> Vec<String> {
    let docs = docs(tree);
    let headless = |words: &Vec<String>| {
        let first = words
            .first()
            .map_or("", |word| word.trim_end_matches([',', ':', ';']));
        ["What", "Who", "Whose", "Whether", "How", "Where"].contains(&first)
    };
    let found: Vec<_> = docs
        .iter()
        .filter(|(_, words)| headless(words))
        .map(|(place, _)| place.clone())
        .collect();
    let share = percent(found.len(), docs.len());
    limit(
        "docs that begin with a question word, %",
        MAX_HEADLESS_DOCS,
        share,
        &found,
    )
}

fn short_docs(tree: &Tree) -> Vec<String> {
    let docs = docs(tree);
    let found: Vec<_> = docs
        .iter()
        .filter(|(_, words)| words.len() <= 4)
        .map(|(place, _)| place.clone())
        .collect();
    let share = percent(found.len(), docs.len());
    limit(
        "docs of at most four words, %",
        MAX_SHORT_DOCS,
        share,
        &found,
    )
}

fn tuple_lets(tree: &Tree) -> Vec<String> {
    let tuple = Regex::new(r"(?m)^\s*let \((?:mut )?\w+,[^=\n]*\)\s*=\s*\(").unwrap();
    let mut found = Vec::new();
    for file in sources(tree) {
        let code = file.code();
        for hit in tuple.find_iter(&code) {
            let line = code[..hit.start()].matches('\n').count() + 1;
            let start = line + hit.as_str().len() - hit.as_str().trim_start_matches('\n').len();
            if !file.lines[start - 1].test {
                found.push(file.violation(start, "one `let` a line"));
            }
        }
    }
    limit(
        "lets of a tuple from a tuple",
        MAX_TUPLE_LETS,
        found.len(),
        &found,
    )
}

fn small_files(tree: &Tree) -> Vec<String> {
    let small =
        |file: &&File| code_lines(file) < SMALL_FILE_LINES && !file.path.ends_with("/mod.rs");
    let found: Vec<_> = sources(tree)
        .filter(small)
        .map(|file| file.path.clone())
        .collect();
    limit("files under 40 lines", MAX_SMALL_FILES, found.len(), &found)
}

/// The module path of a file: `src/turn/log/mod.rs` is `[turn, log]`.
fn module_path(path: &str) -> Vec<String> {
    let mut parts: Vec<_> = path["src/".len()..]
        .trim_end_matches(".rs")
        .split('/')
        .collect();
    if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
        parts.pop();
    }
    parts.into_iter().map(str::to_owned).collect()
}

/// The files that each file imports from. A module's imports from its own submodules are containment, not dependence.
fn imports(tree: &Tree) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<Vec<String>, String> = sources(tree)
        .filter(|file| file.path != "src/main.rs")
        .map(|file| (module_path(&file.path), file.path.clone()))
        .collect();
    let import = Regex::new(r"\buse\s+([^;]+);").unwrap();
    let mut found = BTreeMap::new();
    for (module, path) in &files {
        let Some(file) = sources(tree).find(|file| file.path == *path) else {
            continue;
        };
        let code: Vec<_> = file
            .lines
            .iter()
            .map(|line| if line.test { "" } else { line.code.as_str() })
            .collect();
        let mut targets = BTreeSet::new();
        for hit in import.captures_iter(&code.join("\n")) {
            for mut segments in paths_of(&hit[1]) {
                let mut absolute = module.clone();
                match segments.first().map(String::as_str) {
                    Some("crate") => absolute.clear(),
                    Some("self") => {}
                    Some("super") => {
                        let ups = segments.iter().take_while(|part| *part == "super").count();
                        absolute.truncate(absolute.len().saturating_sub(ups));
                        segments.drain(1..ups);
                    }
                    _ => continue,
                }
                absolute.extend(segments.into_iter().skip(1));
                while !absolute.is_empty() && !files.contains_key(&absolute) {
                    absolute.pop();
                }
                if absolute != *module && !absolute.starts_with(module) {
                    targets.extend(files.get(&absolute).cloned());
                }
            }
        }
        found.insert(path.clone(), targets);
    }
    found
}

/// The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths_of(tree: &str) -> Vec<Vec<String>> {
    let compact: String = tree.chars().filter(|c| !c.is_whitespace()).collect();
    let (prefix, rest) = match compact.split_once('{') {
        Some((prefix, rest)) => (prefix, rest.strip_suffix('}').unwrap_or(rest)),
        None => return vec![compact.split("::").map(str::to_owned).collect()],
    };
    let mut depth = 0;
    let branches = rest.split(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    });
    let parts = branches
        .filter(|branch| !branch.is_empty())
        .flat_map(paths_of);
    let head: Vec<_> = prefix
        .split("::")
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    parts
        .map(|part| head.iter().cloned().chain(part).collect())
        .collect()
}

/// Groups of files that import each other in a circle: each file that reaches itself is reported.
fn cycles(tree: &Tree) -> Vec<String> {
    let imports = imports(tree);
    let reached = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = imports[start].iter().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file) {
                next.extend(&imports[file]);
            }
        }
        seen
    };
    imports
        .keys()
        .filter(|file| reached(file).contains(file))
        .map(|file| {
            format!("{file}:1: imports itself through other files: move what both need below them")
        })
        .collect()
}

#[test]
fn source_stays_within_its_figures() {
    for figure in [
        total_lines,
        one_word_types,
        shared_type_names,
        headless_docs,
        short_docs,
        tuple_lets,
        small_files,
    ] {
        assert_follows(figure);
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_follows(cycles);
    let ring = [
        ("src/lib.rs", "mod a;\nmod b;"),
        ("src/a.rs", "use crate::b::B;"),
        ("src/b/mod.rs", "use self::c::C;"),
        ("src/b/c.rs", "use super::super::{a::{A, D}};"),
    ];
    assert_violates(cycles, &ring, &[]);
    let closed = [ring[0], ring[1], ("src/b/mod.rs", "use super::a::A;")];
    assert_violates(cycles, &closed, &["src/a.rs:1", "src/b/mod.rs:1"]);
}

#[test]
fn figures_above_their_limit_are_reported() {
    let bad = |figure: super::Rule, text: &str| figure(&Tree::of([("src/a.rs", text)]));
    for (figure, text, good) in [
        (
            one_word_types as super::Rule,
            "struct Told;\nenum Found {}",
            "struct ToldAgain;\nstruct X { t: T }\nenum FoundIt {}",
        ),
        (
            shared_type_names,
            "struct A;\nmod b {\n    struct A;\n}",
            "struct A;\nstruct B;",
        ),
        (
            headless_docs,
            "/// What it is.\nstruct A;",
            "/// The thing\n/// What follows.\nstruct A;",
        ),
        (
            short_docs,
            "/// The thing.\nstruct A;",
            "/// A thing of five words.\nstruct A;",
        ),
    ] {
        assert_eq!(bad(figure, text).len(), 1, "{text}");
        assert!(bad(figure, good).is_empty(), "{good}");
        let in_test = format!("#[cfg(test)]\nmod tests {{\n{text}\n}}");
        assert!(bad(figure, &in_test).is_empty(), "{in_test}");
    }
    let many = "    let (a, mut b) = (1, 2);\n".repeat(MAX_TUPLE_LETS + 1);
    assert_eq!(bad(tuple_lets, &many).len(), 1);
    assert!(bad(tuple_lets, "let (a, b) = f();\n".repeat(50).as_str()).is_empty());
    let small: Vec<_> = (0..=MAX_SMALL_FILES)
        .map(|n| (format!("src/f{n}.rs"), "a();"))
        .collect();
    assert_eq!(small_files(&Tree::of(small)).len(), 1);
    assert_eq!(bad(total_lines, &"a();\n".repeat(MAX_LINES + 1)).len(), 1);
}
