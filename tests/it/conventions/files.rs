//! File rules: length, names, module docs, actor names, sleeping tests, unfinished code.

use std::collections::BTreeSet;

use regex::Regex;

use super::source_parser::{File, Tree};
use super::{assert_follows, assert_violates};

/// A file of this many lines has more than one subject.
const LINES: usize = 400;

/// Tests that may sleep: the file, a part of the line, and why there is no event to wait for.
const SLEEPS: [(&str, &str, &str); 10] = [
    (
        "tests/it/cluster/alerts.rs",
        "sleep(QUIET_PERIOD)",
        "that an alert is not told again has no event: it would be within this time",
    ),
    (
        "tests/it/cluster/slow_proxy.rs",
        "sleep(delay)",
        "it is the slowness of the line itself",
    ),
    (
        "tests/it/cluster/chaos.rs",
        "sleep(",
        "how long each trouble lasts is drawn by chance: that is the test",
    ),
    (
        "tests/it/cluster/chaos/traffic.rs",
        "sleep(RETRY_DELAY)",
        "an instance that is being started has no event to wait for; who asks again at once fills the machine",
    ),
    (
        "src/provider/paused_system.rs",
        "sleep(time)",
        "it moves the paused clock: no time passes outside",
    ),
    (
        "src/provider/scripted_client.rs",
        "sleep(pause)",
        "it is the provider's own pause, on a clock that tests pause",
    ),
    (
        "src/provider/stall_clock.rs",
        "thread::sleep(ms(",
        "it is the thread that is blocked, which the test is of",
    ),
    (
        "src/provider/test_bench.rs",
        "sleep(after)",
        "it is the actor that is behind, on a clock that tests pause",
    ),
    (
        "src/store/flaky.rs",
        "sleep(delay)",
        "it is the slow store itself, on a clock that tests pause",
    ),
    (
        "tests/it/store.rs",
        "sleep(CHECKPOINT_INTERVAL)",
        "what a kill may cost is a promise of time, so text must come in time; a disk does not tell that it has room",
    ),
];

/// Returns `true` if the file is written by hand and belongs to the project.
fn is_ours(file: &File) -> bool {
    let written = ["rs", "js", "mjs", "css", "html", "sh", "toml"];
    let ending = file.path.rsplit('.').next().unwrap_or_default();
    written.contains(&ending)
        && ["benches/", "src/", "static/", "templates/", "tests/"]
            .iter()
            .any(|folder| file.path.starts_with(folder))
        && !file.path.starts_with("static/vendor/")
}

fn lengths(tree: &Tree) -> Vec<String> {
    let long = tree
        .files
        .iter()
        .filter(|file| is_ours(file) && file.lines.len() >= LINES);
    let violations = long.map(|file| {
        let what = format!(
            "a file stays under {LINES} lines, and this has {}: split it by subject",
            file.lines.len()
        );
        file.violation(LINES, &what)
    });
    violations.collect()
}

fn names(tree: &Tree) -> Vec<String> {
    let empty =
        Regex::new(r"(?i)(?:^|[/_.-])(?:utils?|helpers?|common|managers?)(?:[/_.-]|$)").unwrap();
    let files = tree
        .files
        .iter()
        .filter(|file| is_ours(file) && empty.is_match(&file.path));
    let violations = files.map(|file| {
        file.violation(
            1,
            "a name that says nothing: name the file after its content",
        )
    });
    violations.collect()
}

fn docs(tree: &Tree) -> Vec<String> {
    let first = |file: &&File| {
        file.lines
            .first()
            .is_some_and(|line| line.raw.starts_with("//! "))
    };
    let files = tree
        .rust()
        .filter(|file| file.path.starts_with("src/") && !first(file));
    let violations =
        files.map(|file| file.violation(1, "begin with `//! ` and the purpose of the file"));
    violations.collect()
}

fn actors(tree: &Tree) -> Vec<String> {
    let made = Regex::new(r"\b(?:struct|enum|union|trait|type)\s+(\w+Actor)\b").unwrap();
    let acts = Regex::new(r"\bimpl\b[^;{}]*\bActor\s+for\s+(?:\w+::)*(\w+)").unwrap();
    let find = |pattern: &Regex| {
        let mut found = Vec::new();
        for file in tree.rust() {
            let code = file.code();
            for hit in pattern.captures_iter(&code) {
                let name = hit.get(1).unwrap();
                let line = code[..name.start()].matches('\n').count() + 1;
                found.push((file, line, name.as_str().to_owned()));
            }
        }
        found
    };
    let acting = find(&acts);
    let known: BTreeSet<_> = acting.iter().map(|(_, _, name)| name.clone()).collect();
    let mut violations = Vec::new();
    for (file, line, name) in &acting {
        if !name.ends_with("Actor") {
            violations.push(file.violation(
                *line,
                &format!("`{name}` is an actor: its name must end in `Actor`"),
            ));
        }
    }
    for (file, line, name) in find(&made) {
        if !known.contains(&name) {
            violations.push(file.violation(
                line,
                &format!("`{name}` is no actor: only actors end in `Actor`"),
            ));
        }
    }
    violations
}

fn sleeps(tree: &Tree, allowed: &[(&str, &str, &str)]) -> Vec<String> {
    let sleep = Regex::new(r"\bsleep(?:_until|_ms)?\s*\(").unwrap();
    let may = |file: &File, code: &str| {
        let mut allowed = allowed.iter();
        allowed.any(|(path, part, _)| file.path == *path && code.contains(part))
    };
    let mut violations = Vec::new();
    for file in tree.rust() {
        let wrong = |line: &super::source_parser::Line| {
            line.test && sleep.is_match(&line.code) && !may(file, &line.code)
        };
        violations.extend(file.lines_where(
            wrong,
            "a test waits for events, never for time: no sleep, or a reasoned entry in SLEEPS",
        ));
    }
    for (path, part, _) in allowed {
        let used = |file: &File| {
            file.path == *path && file.lines.iter().any(|line| line.code.contains(part))
        };
        if !tree.files.iter().any(used) {
            violations.push(format!(
                "{path}:1: no longer sleeps with `{part}`: take it out of SLEEPS"
            ));
        }
    }
    violations
}

fn leftovers(tree: &Tree) -> Vec<String> {
    let left = Regex::new(r"\b(?:todo|unimplemented|dbg)!").unwrap();
    let files = tree.rust();
    let violations = files.flat_map(|file| {
        file.lines_where(
            |line| left.is_match(&line.code),
            "unfinished code: finish it or remove it",
        )
    });
    violations.collect()
}

#[test]
fn files_stay_below_the_line_limit() {
    assert_follows(lengths);
    let text = |lines: usize| "x\n".repeat(lines);
    for path in [
        "src/a.rs",
        "static/chat.js",
        "templates/chat.html",
        "tests/it/a.rs",
        "tests/run.sh",
    ] {
        assert_violates(lengths, &[(path, &text(400))], &[&format!("{path}:400")]);
        assert_violates(lengths, &[(path, &text(399))], &[]);
    }
    for path in [
        "static/vendor/x.js",
        "tests/fixtures/openai.sse",
        "Cargo.lock",
    ] {
        assert_violates(lengths, &[(path, &text(5_000))], &[]);
    }
}

#[test]
fn file_names_are_specific() {
    assert_follows(names);
    for path in [
        "src/utils.rs",
        "src/web/helpers.rs",
        "src/common/ids.rs",
        "tests/it/test_helper.rs",
        "static/manager.js",
        "src/session-manager/a.rs",
    ] {
        assert_violates(names, &[(path, "")], &[&format!("{path}:1")]);
    }
    for path in [
        "src/futile.rs",
        "src/uncommon.rs",
        "static/vendor/utils.js",
        "tests/it/management.rs",
    ] {
        assert_violates(names, &[(path, "")], &[]);
    }
}

#[test]
fn source_files_begin_with_module_docs() {
    assert_follows(docs);
    assert_violates(docs, &[("src/a.rs", "use b;\n//! Late.")], &["src/a.rs:1"]);
    assert_violates(docs, &[("src/a.rs", "")], &["src/a.rs:1"]);
    assert_violates(
        docs,
        &[("src/a.rs", "//! For this."), ("static/a.js", "let a;")],
        &[],
    );
}

#[test]
fn exactly_the_actors_are_named_actor() {
    assert_follows(actors);
    assert_violates(
        actors,
        &[(
            "src/a.rs",
            "struct Router;\nimpl actix::Actor for Router {}",
        )],
        &["src/a.rs:2"],
    );
    assert_violates(
        actors,
        &[("src/a.rs", "impl<T>\n    Actor\n    for Router<T> {}")],
        &["src/a.rs:3"],
    );
    assert_violates(
        actors,
        &[("src/a.rs", "\npub struct RouterActor;")],
        &["src/a.rs:2"],
    );
    assert_violates(
        actors,
        &[("src/a.rs", "type AnyActor = u8;")],
        &["src/a.rs:1"],
    );
    let apart = [
        (
            "src/a.rs",
            "pub struct RouterActor<T>(T);\nenum ActorState {}\nuse actix::Actor;",
        ),
        (
            "src/b.rs",
            "impl<T: Clone> Actor for super::a::RouterActor<T> {}\nimpl Handler<A> for X {}",
        ),
    ];
    assert_violates(actors, &apart, &[]);
}

#[test]
fn tests_wait_for_events() {
    assert_follows(|tree| sleeps(tree, &SLEEPS));
    let none: super::Rule = |tree| sleeps(tree, &[]);
    assert_violates(
        none,
        &[("tests/it/a.rs", "\ntokio::time::sleep(ms).await;")],
        &["tests/it/a.rs:2"],
    );
    assert_violates(
        none,
        &[("tests/it/a.rs", "thread::sleep(ms); sleep_until (x)")],
        &["tests/it/a.rs:1"],
    );
    assert_violates(
        none,
        &[("src/a.rs", "#[cfg(test)]\nmod tests {\n    sleep(ms);\n}")],
        &["src/a.rs:3"],
    );
    assert_violates(
        none,
        &[
            ("src/a.rs", "sleep(ms).await;\n// sleep(1)\n"),
            ("tests/run.sh", "sleep (1)"),
        ],
        &[],
    );
    let some: super::Rule = |tree| sleeps(tree, &[("tests/it/a.rs", "sleep(KEPT)", "why")]);
    assert_violates(
        some,
        &[("tests/it/a.rs", "sleep(KEPT);\nsleep(more);")],
        &["tests/it/a.rs:2"],
    );
    assert_violates(some, &[("tests/it/a.rs", "wait();")], &["tests/it/a.rs:1"]);
}

#[test]
fn no_unfinished_code_remains() {
    assert_follows(leftovers);
    for line in ["todo!()", "unimplemented!(\"later\")", "dbg!(x)"] {
        assert_violates(leftovers, &[("src/a.rs", line)], &["src/a.rs:1"]);
        assert_violates(leftovers, &[("tests/it/a.rs", line)], &["tests/it/a.rs:1"]);
    }
    assert_violates(
        leftovers,
        &[(
            "src/a.rs",
            "// todo!()\nlet a = \"dbg!\"; todo(); tododbg!()",
        )],
        &[],
    );
}
