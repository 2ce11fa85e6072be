//! Reading of files: all problems at once and in order, without secrets.

use super::super::{Settings, config_path};
use super::{CANARY, empty, load, problems};
use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};

#[test]
fn all_problems_are_reported_in_order() {
    let text = "[server]\nlistn = \"x\"\ndrain = \"soon\"\n[[providers]]\nname = \"A\"\ndialect = \"opnai\"\nbreaker = { probes = 0 }\n\
                [[providers]]\ndialect = \"ollama\"\nname = \"b\"\n[routing]\nmax_attempts = 0\n";
    let found = problems(text);
    let keys: Vec<&str> = found
        .iter()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "server.listn",
            "server.drain",
            "providers[0].model",
            "providers[0].name",
            "providers[0].dialect",
            "providers[0].breaker.probes",
            "providers[1].model",
            "routing.max_attempts",
        ]
    );
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (text, start) in [
        ("[server\n", "1: not TOML at column 8: "),
        ("[server]\ndrain = \n", "2: not TOML at column 9: "),
        ("[server]\ndrain = 30s\n", "2: not TOML at column 9: "),
        (
            "[server]\nlisten = \"127.0.0.1:1\n",
            "2: not TOML at column ",
        ),
        (
            "[server]\ndrain = \"1s\"\ndrain = \"2s\"\n",
            "3: not TOML at column 1: duplicate key",
        ),
        (
            "[chat]\n[server]\n[chat]\n",
            "3: not TOML at column 2: duplicate key",
        ),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{found:#?}\nin\n{text}");
        assert!(found[0].starts_with(start), "{found:?} for {text}");
    }
    let both = problems("[server]\nlistn = 1\ndrain = \n[routing]\nmax_attempts = 0\n");
    let lines: Vec<&str> = both
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(lines, ["2:", "3:", "5:"], "{both:#?}");
}

#[test]
fn unreadable_files_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &Path| Settings::load(Some(path), &empty).unwrap_err().to_string();
    let missing = folder.path().join("missing.toml");
    assert!(read(&missing).starts_with(&format!("{}: cannot be read: ", missing.display())));
    assert!(read(folder.path()).contains("cannot be read"));
    let mut bytes = tempfile::NamedTempFile::new().unwrap();
    bytes.write_all(b"[server]\n# \xff\n").unwrap();
    assert_eq!(
        read(bytes.path()),
        format!("{}:2: not UTF-8 text", bytes.path().display())
    );
}

#[test]
fn reload_rejects_a_pipe() {
    let reload = |path: &str| Settings::reload(Some(Path::new(path)), &empty);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(writer);
    let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    assert!(
        reload(&pipe)
            .unwrap_err()
            .to_string()
            .contains("came through a pipe")
    );
    // A file and `/dev/null` can be reloaded.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\ndrain = \"1s\"").unwrap();
    let drain = reload(file.path().to_str().unwrap())
        .unwrap()
        .settings
        .server
        .drain;
    assert_eq!(drain, std::time::Duration::from_secs(1));
    assert!(reload("/dev/null").is_ok());
}

#[test]
fn byte_order_mark_is_ignored() {
    assert!(load("\u{feff}[server]\ndrain = \"1s\"").is_ok());
}

#[test]
fn config_path_prefers_argument_then_environment_then_default() {
    let env = |name: &str| (name == "FAILSOFT_CONFIG").then(|| "from-env.toml".to_owned());
    assert_eq!(
        config_path(Some(Path::new("named.toml")), &env),
        Some(PathBuf::from("named.toml"))
    );
    assert_eq!(
        config_path(None, &env),
        Some(PathBuf::from("from-env.toml"))
    );
    // Tests run in the root of the crate, where the default file does not exist.
    assert_eq!(config_path(None, &empty), None);
}

#[test]
fn problems_contain_no_secret() {
    for text in [
        "[server]\nadmin_token = \"canary\\u0007\"",
        "[server]\nadmin_token = canary",
        "[server]\napi_keys = \"canary\"",
        "[alerts]\nslack_webhook = \"hooks.example/canary\"",
        "[store]\nredis_url = \"canary\"",
        "[[providers]]\napi_key = \"canary-é\"\nheaders = { authorization = \"canary\\n\" }\nbase_url = \"http://canary@x\"",
    ] {
        let messages = problems(text).join("\n");
        assert!(!messages.contains(CANARY), "{messages}");
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn random_toml_never_panics(lines in proptest::collection::vec(line(), 0..20)) {
        let text = lines.join("\n");
        if let Err(problems) = load(&text) {
            prop_assert!(!problems.0.is_empty());
            let last = text.lines().count().max(1) + 1;
            prop_assert!(problems.0.iter().all(|problem| problem.line.is_none_or(|line| (1..=last).contains(&line))));
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let key = "(server|chat|providers|drills|breaker|timeouts|retry|name|dialect|model|at|first_token|open_for|headers|x)";
    let value = "(1|-0.5|1e400|true|\"\"|\"1s\"|\"openai\"|\"env:X\"|\\[\\]|\\[\"1s\", 2\\]|\\{ a = 1 \\}|1979-05-27|\"|\\[|\\{|é)";
    prop_oneof![
        key.prop_map(|key| format!("[{key}]")),
        key.prop_map(|key| format!("[[{key}]]")),
        (key, key).prop_map(|(outer, inner)| format!("[{outer}.{inner}]")),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        (key, key, value).prop_map(|(outer, inner, value)| format!("{outer}.{inner} = {value}")),
        Just("\"\"\"".to_owned()),
    ]
}
