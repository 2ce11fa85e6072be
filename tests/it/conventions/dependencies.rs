//! Import rules: the direction of imports between top modules, and the files that must stay pure.

use std::collections::BTreeSet;

use regex::Regex;

use super::source_parser::{File, Tree};
use super::{assert_follows, assert_violates};

/// Each top module with the modules directly below it. A module may import whatever is below it, at any depth.
const DIRECT_IMPORTS: [(&str, &[&str]); 19] = [
    ("fuzzing", &["web"]),
    ("main", &["cli"]),
    ("cli", &["app"]),
    ("app", &["web", "ops", "cluster", "simulator"]),
    ("web", &["session", "ops"]),
    ("ops", &["session"]),
    // Reports and counts beside everything else. Nothing waits for it, so only `app` imports it.
    ("cluster", &["session"]),
    ("session", &["turn"]),
    ("turn", &["router", "degradation"]),
    ("router", &["provider"]),
    ("provider", &["store"]),
    ("degradation", &["answer_cache"]),
    ("answer_cache", &["store"]),
    ("simulator", &["telemetry"]),
    ("store", &["actor_exit"]),
    ("actor_exit", &["telemetry"]),
    ("telemetry", &["config"]),
    ("config", &["domain"]),
    ("domain", &[]),
];

/// Modules that only those listing them in [`DIRECT_IMPORTS`] may import, not modules further up.
const DIRECT_ONLY: [&str; 3] = ["ops", "cluster", "simulator"];

/// Files that only decide: no actor, task, socket, clock or random source. Time and chance are arguments.
const PURE: &str = concat!(
    r"^src/(?:domain\b|provider/(?:breaker|status\b|backoff\b|fault_injection/(?:fault|events)\b",
    r"|sliding_window\b|dialect\b|latency\b|cost\b|event\b)",
    r"|router/(?:ordering|retry_policy|retry_budget)\b",
    r"|turn/(?:merge|quality|followups/queue)\b|session/rate_limit/bucket\b",
    r"|cluster/(?:message|peer_state|spend_share|simulation)\b",
    r"|ops/(?:incidents|uptime|hourly_history|anomaly\b|drills/report)\b",
    r"|ops/alerts/(?:payload|queue|rules|conditions)\b",
    r"|answer_cache/(?:key|lru_map|pii|policy)\b|degradation/(?:fallback_chain|replies|intent|summary|text)\b",
    r"|degradation/knowledge/(?:index|passages)\b)",
);

const IMPURE: &str = concat!(
    r"\b(?:actix\w*|tokio\w*|reqwest|rand|rand_core|getrandom|fastrand)::",
    r"|\b(?:use|extern crate)\s+(?:actix\w*|tokio\w*|reqwest|rand|rand_core|getrandom|fastrand)\b",
    r"|\b\w+::now\b|\.elapsed\(\)",
);

fn direct_imports(module: &str) -> Option<&'static [&'static str]> {
    let row = DIRECT_IMPORTS.iter().find(|(name, _)| *name == module)?;
    Some(row.1)
}

fn may_import(from: &str, to: &str) -> bool {
    fn reaches(from: &str, to: &str) -> bool {
        let under = direct_imports(from).unwrap_or_default();
        under.contains(&to) || under.iter().any(|next| reaches(next, to))
    }
    let near = direct_imports(from).unwrap_or_default().contains(&to);
    from == to || near || (reaches(from, to) && !DIRECT_ONLY.contains(&to))
}

/// The top module of a file: `provider` for `src/provider/actor.rs`.
fn module_of(file: &File) -> Option<&str> {
    let first = file.path.strip_prefix("src/")?.split('/').next()?;
    Some(first.trim_end_matches(".rs"))
}

/// The top modules that a file names, with line numbers: by `crate::`, by `failsoft::`, or by enough `super::`.
fn imported_modules(file: &File) -> Vec<(usize, String)> {
    let roots = Regex::new(r"\b(?:crate|failsoft)::|\b(?:super::)+").unwrap();
    let word = Regex::new(r"^\s*(\w+)").unwrap();
    let code = file.code();
    let stem = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = stem.matches('/').count();
    let mut found = Vec::new();
    for root in roots.find_iter(&code) {
        let line = code[..root.start()].matches('\n').count() + 1;
        let depth = depth + file.lines[line - 1].depth;
        let supers = root.as_str().matches("super").count();
        if supers != 0 && supers != depth {
            continue;
        }
        let rest = &code[root.end()..];
        for (at, part) in branches(rest) {
            if let Some(name) = word.captures(part) {
                let line = line + rest[..at].matches('\n').count() + name[0].matches('\n').count();
                found.push((line, name[1].to_owned()));
            }
        }
    }
    found
}

/// The continuations of a path, with their offsets: the rest itself, or each member of a leading `{…}` group.
fn branches(rest: &str) -> Vec<(usize, &str)> {
    if !rest.starts_with('{') {
        return vec![(0, rest)];
    }
    let mut parts = vec![(1, &rest[1..])];
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => parts.push((at + 1, &rest[at + 1..])),
            _ => {}
        }
    }
    parts
}

fn imports(tree: &Tree) -> Vec<String> {
    let modules: BTreeSet<_> = tree.files.iter().filter_map(module_of).collect();
    let mut violations = Vec::new();
    for file in tree.rust().filter(|file| file.path != "src/lib.rs") {
        let Some(from) = module_of(file) else {
            continue;
        };
        if direct_imports(from).is_none() {
            violations.push(file.violation(
                1,
                &format!(
                    "`{from}` is not in DIRECT_IMPORTS: add it with the modules that it may import"
                ),
            ));
            continue;
        }
        for (line, to) in imported_modules(file) {
            let known = modules.contains(to.as_str()) || direct_imports(&to).is_some();
            if known && !may_import(from, &to) {
                violations.push(file.violation(
                    line,
                    &format!("`{from}` must not import `{to}`: imports go one way"),
                ));
            }
        }
    }
    violations
}

fn purity(tree: &Tree) -> Vec<String> {
    let pure = Regex::new(PURE).unwrap();
    let impure = Regex::new(IMPURE).unwrap();
    let what =
        "a pure file uses no actor, runtime, network, clock or random source: make it an argument";
    let files = tree.rust().filter(|file| pure.is_match(&file.path));
    let violations = files
        .flat_map(|file| file.lines_where(|line| !line.test && impure.is_match(&line.code), what));
    violations.collect()
}

#[test]
fn imports_go_one_way() {
    assert_follows(imports);
}

#[test]
fn pure_files_stay_pure() {
    assert_follows(purity);
}

#[test]
fn direct_imports_are_acyclic_and_list_each_module_once() {
    let names: BTreeSet<_> = DIRECT_IMPORTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), DIRECT_IMPORTS.len());
    for (n, (name, under)) in DIRECT_IMPORTS.iter().enumerate() {
        for lower in *under {
            let at = DIRECT_IMPORTS.iter().position(|(name, _)| name == lower);
            assert!(at.is_some_and(|at| at > n), "{name} over {lower}");
        }
    }
}

#[test]
fn an_upward_import_is_reported() {
    for (path, text, place) in [
        (
            "src/domain/mod.rs",
            "\nuse crate::store::Store;",
            "src/domain/mod.rs:2",
        ),
        (
            "src/store/sled.rs",
            "use super::super::turn::run;",
            "src/store/sled.rs:1",
        ),
        (
            "src/store/mod.rs",
            "use super::turn::run;",
            "src/store/mod.rs:1",
        ),
        ("src/store.rs", "use super::turn::run;", "src/store.rs:1"),
        (
            "src/router/retry_policy.rs",
            "fn f() { crate::degradation::answer() }",
            "src/router/retry_policy.rs:1",
        ),
        (
            "src/degradation/actor.rs",
            "type A = crate::router::RouterActor;",
            "src/degradation/actor.rs:1",
        ),
        (
            "src/session/actor.rs",
            "use crate::ops::Supervisor;",
            "src/session/actor.rs:1",
        ),
        (
            "src/ops/drills.rs",
            "use crate::{\n    domain::{At, Mode},\n    web::routes,\n};",
            "src/ops/drills.rs:3",
        ),
        (
            "src/ops/drills.rs",
            "use crate::simulator::Fault;",
            "src/ops/drills.rs:1",
        ),
        (
            "src/main.rs",
            "use failsoft::ops::Supervisor;",
            "src/main.rs:1",
        ),
        (
            "src/config.rs",
            "#[cfg(test)]\nmod tests {\n    use super::super::store;\n}",
            "src/config.rs:3",
        ),
        (
            "src/brain/mod.rs",
            "use crate::domain::At;",
            "src/brain/mod.rs:1",
        ),
    ] {
        assert_violates(imports, &[(path, text)], &[place]);
    }
}

#[test]
fn a_downward_import_is_allowed() {
    for (path, text) in [
        (
            "src/main.rs",
            "mod cli;\nuse failsoft::app::App;\nuse failsoft::config;",
        ),
        (
            "src/app.rs",
            "use crate::{domain::At, ops::Supervisor, simulator, web};",
        ),
        (
            "src/turn/run.rs",
            "use super::attempt;\nuse super::super::router::Pick;\nuse crate::provider;",
        ),
        (
            "src/ops/supervisor.rs",
            "use crate::session::SessionActor;\nuse crate::store::Store;",
        ),
        (
            "src/provider/dialect/mod.rs",
            "// crate::web\nuse super::upstream::Step;\nlet a = \"crate::web\";",
        ),
        (
            "src/provider/actor.rs",
            "use crate::provider::breaker;\nuse std::sync::Arc;\ncrate::VERSION;",
        ),
        (
            "src/config.rs",
            "#[cfg(test)]\nmod tests {\n    use super::*;\n    use super::store;\n}",
        ),
        ("src/lib.rs", "pub mod web;\npub use crate::web::routes;"),
        ("tests/it/domain.rs", "use failsoft::ops;"),
    ] {
        assert_violates(imports, &[(path, text)], &[]);
    }
}

#[test]
fn impure_code_in_a_pure_file_is_reported() {
    for path in [
        "src/domain/ids.rs",
        "src/provider/breaker.rs",
        "src/provider/breaker_view.rs",
        "src/provider/breaker/window.rs",
        "src/provider/sliding_window.rs",
        "src/provider/dialect/openai.rs",
        "src/router/ordering.rs",
        "src/router/retry_policy.rs",
        "src/router/retry_budget.rs",
        "src/provider/backoff.rs",
        "src/turn/merge.rs",
        "src/degradation/fallback_chain.rs",
        "src/degradation/replies.rs",
        "src/degradation/intent.rs",
        "src/degradation/summary/sentences.rs",
        "src/degradation/text.rs",
        "src/degradation/knowledge/index.rs",
    ] {
        for line in [
            "use tokio::sync::watch;",
            "use actix_web::web;",
            "fn f() -> reqwest::Client {}",
            "let now = Instant::now();",
            "let now = std::time::SystemTime::now();",
            "let f = Instant::now;",
            "since.elapsed()",
            "getrandom::fill(&mut bytes);",
            "use rand;",
        ] {
            let text = format!("//! Doc.\n{line}\n");
            assert_violates(purity, &[(path, &text)], &[&format!("{path}:2")]);
        }
    }
}

#[test]
fn pure_code_and_unlisted_files_are_allowed() {
    let world = "use tokio::sync::watch;\nlet now = Instant::now();";
    let tests = format!("fn f(now: Instant) {{}}\n#[cfg(test)]\nmod tests {{\n    {world}\n}}\n");
    for (path, text) in [
        ("src/provider/actor.rs", world),
        ("src/provider/health.rs", world),
        ("src/turn/merges.rs", world),
        ("tests/it/domain.rs", world),
        (
            "src/domain/time.rs",
            "// Instant::now()\nlet operand = brand::new(); let now = at.now;",
        ),
        ("src/router/ordering.rs", tests.as_str()),
    ] {
        assert_violates(purity, &[(path, text)], &[]);
    }
}
