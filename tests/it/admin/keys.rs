//! Every key of the configuration, changed at a reload: it counts at once, or the answer says that it needs a restart. None is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use failsoft::config::Settings;
use serde_json::{Value, json};

use super::service::{Configured, TOKEN};
use crate::harness::{Answer, ScriptedProvider};

/// From when a changed key counts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Counts {
    /// From the reload on.
    Now,
    /// The same, and it makes the providers go by other settings.
    Provider,
    /// From the next start on.
    Restart,
}
use Counts::{Now, Provider, Restart};

/// A table, one of its keys, another value than the one there is, and from when that counts.
type Row = (&'static str, &'static str, &'static str, Counts);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("server", "public_url", "\"https://chat.example.com\"", Now),
    ("server", "workers", "3", Restart),
    ("server", "allowed_origins", "[\"https://shop.example\"]", Now),
    ("server", "trusted_proxies", "[\"10.0.0.0/8\"]", Now),
    ("server", "api_keys", "[\"sk-program\"]", Now),
    ("server", "drain", "\"300ms\"", Now),
    ("chat", "title", "\"New\"", Now),
    ("chat", "greeting", "\"New\"", Now),
    ("chat", "system_prompt", "\"New\"", Now),
    ("chat", "max_message_chars", "7000", Now),
    ("chat", "history_turns", "3", Now),
    ("chat", "max_tokens", "99", Now),
    ("chat", "visitor_options", "true", Now),
    ("chat", "retention", "\"10d\"", Now),
    ("providers", "name", "\"gamma\"", Provider),
    ("providers", "dialect", "\"ollama\"", Provider),
    ("providers", "base_url", "\"http://127.0.0.1:9\"", Provider),
    ("providers", "model", "\"other\"", Provider),
    ("providers", "api_key", "\"sk-other\"", Provider),
    ("providers", "weight", "7", Provider),
    ("providers", "max_concurrent", "7", Provider),
    ("providers", "prefill", "\"assistant\"", Provider),
    ("providers", "context_tokens", "9000", Provider),
    ("providers", "temperature", "0.5", Provider),
    ("providers", "api_version", "\"2023-01-01\"", Provider),
    ("providers", "headers", "{ x-team = \"blue\" }", Provider),
    ("providers", "prices", "{ input = 1.0, output = 2.0 }", Provider),
    ("providers", "daily_budget_usd", "1.0", Provider),
    ("providers", "breaker", "{ probes = 2 }", Provider),
    ("providers", "health", "{ timeout = \"1s\" }", Provider),
    ("providers", "timeouts", "{ stall = \"9s\" }", Provider),
    ("providers", "retry", "{ same_provider = 2 }", Provider),
    ("routing", "strategy", "\"fastest\"", Now),
    ("routing", "max_attempts", "5", Now),
    ("routing", "mid_stream", "\"continue\"", Now),
    ("routing", "hedge_after", "\"9s\"", Now),
    ("timeouts", "connect", "\"2s\"", Provider),
    ("timeouts", "first_token", "\"4s\"", Provider),
    ("timeouts", "stall", "\"14s\"", Provider),
    ("timeouts", "attempt", "\"80s\"", Provider),
    ("timeouts", "turn", "\"110s\"", Now),
    ("breaker", "consecutive_failures", "6", Provider),
    ("breaker", "failure_rate", "0.6", Provider),
    ("breaker", "min_calls", "11", Provider),
    ("breaker", "window", "\"50s\"", Provider),
    ("breaker", "slow_factor", "6.0", Provider),
    ("breaker", "slow_rate", "0.9", Provider),
    ("breaker", "stream_failure_rate", "0.4", Provider),
    ("breaker", "open_for", "\"9s\"", Provider),
    ("breaker", "open_max", "\"30s\"", Provider),
    ("breaker", "blocked_for", "\"50s\"", Provider),
    ("breaker", "probes", "2", Provider),
    ("retry", "same_provider", "2", Provider),
    ("retry", "base", "\"100ms\"", Provider),
    ("retry", "max", "\"3s\"", Provider),
    ("retry", "max_retry_after", "\"3s\"", Provider),
    ("retry", "budget", "0.3", Now),
    ("health", "interval", "\"50s\"", Provider),
    ("health", "timeout", "\"3s\"", Provider),
    ("health", "probe", "\"off\"", Provider),
    ("health", "recovery_probe", "false", Provider),
    ("health", "expire", "\"6m\"", Provider),
    ("cache", "enabled", "true", Now),
    ("cache", "ttl", "\"2h\"", Now),
    ("cache", "revalidate", "\"1m\"", Now),
    ("cache", "stale_for", "\"23h\"", Now),
    ("cache", "share", "\"never\"", Now),
    ("cache", "repeated_min", "4", Now),
    ("cache", "max_entries", "9", Now),
    ("cache", "warm", "[\"What are your opening hours?\"]", Now),
    ("cache", "warm_interval", "\"5h\"", Now),
    ("cache", "warm_hours", "\"02:00-05:00\"", Now),
    ("degradation", "replies", "\"FOLDER/replies.toml\"", Now),
    ("degradation", "knowledge", "\"FOLDER/docs\"", Now),
    ("degradation", "fallback", "\"Soon.\"", Now),
    ("degradation", "outbox", "true", Now),
    ("quality", "min_chars", "2", Now),
    ("quality", "keywords", "[\"yes\"]", Now),
    ("alerts", "slack_webhook", "\"http://127.0.0.1:9/slack\"", Now),
    ("alerts", "webhook", "\"http://127.0.0.1:9/other\"", Now),
    ("alerts", "webhook_secret", "\"a-secret-of-its-own\"", Now),
    ("alerts", "min_interval", "\"4m\"", Now),
    ("drills", "at", "\"1 3 * * 1\"", Now),
    ("drills", "provider", "\"alpha\"", Now),
    ("drills", "fault", "\"cut\"", Now),
    ("drills", "for", "\"1m\"", Now),
    ("telemetry", "otlp_endpoint", "\"http://127.0.0.1:9\"", Restart),
    ("store", "backend", "\"redis\"", Restart),
    ("store", "redis_url", "\"redis://127.0.0.1:9\"", Restart),
    ("limits", "connections", "9000", Now),
    ("limits", "connections", "20001", Restart),
    ("limits", "connections_per_ip", "9000", Now),
    ("limits", "turns", "7", Now),
    ("limits", "messages_per_minute", "9000", Now),
    ("limits", "messages_per_minute_per_ip", "9000", Now),
    ("limits", "frame_bytes", "60000", Now),
    ("limits", "idle", "\"9m\"", Now),
    ("widget", "identity_secret", "\"a-secret-that-is-long-enough-for-its-use\"", Now),
    ("server", "admin_token", "\"admin-other\"", Now),
];

/// Keys that the harness sets itself, so that no file changes them here; that they are held back and named is a test beside that code.
const PLACED: [(&str, &str); 2] = [("server", "listen"), ("server", "data_dir")];

/// The tables with their lines, as far as they are not left out.
type Tables = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

fn tables(alpha: &ScriptedProvider) -> Tables {
    let mut tables = Tables::new();
    let mut set = |table, key, value: &str| {
        tables
            .entry(table)
            .or_default()
            .insert(key, value.to_owned());
    };
    set("server", "admin_token", &format!("\"{TOKEN}\""));
    set("server", "drain", "\"200ms\"");
    set("server", "workers", "2");
    set("cache", "enabled", "false");
    set("degradation", "outbox", "false");
    let of = [
        ("name", "beta"),
        ("dialect", "anthropic"),
        ("model", "beta-1"),
        ("api_key", "sk-canary-key"),
    ];
    for (key, value) in of {
        set("providers", key, &format!("\"{value}\""));
    }
    set(
        "providers",
        "base_url",
        &format!("\"{}\"", alpha.base_url()),
    );
    for (key, value) in [
        ("at", "0 3 * * 1"),
        ("fault", "down"),
        ("for", "2m"),
        ("provider", "omega"),
    ] {
        set("drills", key, &format!("\"{value}\""));
    }
    tables
}

fn text(tables: &Tables, alpha: &ScriptedProvider) -> String {
    let mut text = String::new();
    for (table, lines) in tables {
        let list = ["providers", "drills"].contains(table);
        let _ = writeln!(
            text,
            "{}{table}{}",
            if list { "[[" } else { "[" },
            if list { "]]" } else { "]" }
        );
        for (key, value) in lines {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    // The others, which stay.
    for name in ["alpha", "omega"] {
        text += &super::service::provider(name, alpha, "");
    }
    text
}

/// What an order with this token is answered.
async fn reload(service: &Configured, text: &str, token: &str) -> Answer {
    service.write(text);
    let order = service.app.request("POST", "/admin/reload");
    order
        .header("authorization", &format!("Bearer {token}"))
        .send()
        .await
}

/// The settings as they count, but for secrets, which are shown to nobody.
fn counting(service: &Configured) -> String {
    format!("{:?}", service.app.lobby.settings())
}

/// What the file says, with what the harness sets.
fn written(service: &Configured) -> String {
    let file = service.folder().join("failsoft.toml");
    let mut settings = Settings::load(Some(&file), &|_| None).unwrap().settings;
    let now = service.app.lobby.settings();
    settings.server.listen.clone_from(&now.server.listen);
    settings.server.data_dir.clone_from(&now.server.data_dir);
    format!("{settings:?}")
}

#[tokio::test]
async fn every_key_counts_at_once_or_is_named_as_one_that_needs_a_restart() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let base = tables(&alpha);
    let service = Configured::start(&text(&base, &alpha)).await;
    std::fs::write(service.folder().join("replies.toml"), "fallback = 'Later.'").unwrap();
    std::fs::create_dir(service.folder().join("docs")).unwrap();
    let folder = service.folder().display().to_string();
    let before = counting(&service);
    let mut token = TOKEN;
    for (table, key, value, from) in ROWS.iter().copied() {
        let mut changed = base.clone();
        changed
            .entry(table)
            .or_default()
            .insert(key, value.replace("FOLDER", &folder));
        if (table, key) == ("providers", "daily_budget_usd") {
            // What nothing is known to cost has no budget.
            changed
                .entry(table)
                .or_default()
                .insert("prices", "{ input = 1.0, output = 2.0 }".into());
        }
        let answer = reload(&service, &text(&changed, &alpha), token).await;
        assert_eq!(answer.status, 200, "{table}.{key}: {}", answer.body);
        let told = answer.json();
        let needed = if from == Restart {
            json!([format!("{table}.{key}")])
        } else {
            json!([])
        };
        assert_eq!(told["needs_restart"], needed, "{table}.{key}");
        if from == Restart {
            assert_eq!(counting(&service), before, "{table}.{key} is held back");
        } else {
            assert_eq!(
                counting(&service),
                written(&service),
                "{table}.{key} is taken over"
            );
            let secret = ["api_key", "admin_token"].contains(&key);
            assert!(
                secret || counting(&service) != before,
                "{table}.{key} is read"
            );
        }
        let touched = ["added", "changed", "removed"].map(|what| told["providers"][what].clone());
        let touches = touched.iter().any(|names| names != &json!([]));
        assert_eq!(touches, from == Provider, "{table}.{key}: {touched:?}");
        if key == "admin_token" {
            token = "admin-other";
        }
        // And back, before the next.
        let answer = reload(&service, &text(&base, &alpha), token).await;
        assert_eq!(
            (answer.status, counting(&service)),
            (200, before.clone()),
            "{table}.{key} goes back"
        );
        token = TOKEN;
    }
}

/// The keys that may stand in a table, as whoever writes another one is told.
async fn known(
    service: &Configured,
    tables: &Tables,
    table: &'static str,
    alpha: &ScriptedProvider,
) -> BTreeSet<String> {
    let mut wrong = tables.clone();
    wrong
        .entry(table)
        .or_default()
        .insert("zzzzzzzzzz", "1".into());
    let answer = reload(service, &text(&wrong, alpha), TOKEN).await;
    assert_eq!(answer.status, 422, "{table}: {}", answer.body);
    let problems = answer.json()["error"]["problems"].clone();
    let what = |one: &Value| {
        one["what"]
            .as_str()
            .and_then(|what| what.strip_prefix("no such key; here may stand "))
            .map(str::to_owned)
    };
    let list = problems.as_array().unwrap().iter().find_map(what).unwrap();
    list.replace(" or ", ", ")
        .split(", ")
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn no_key_is_left_out_of_that() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let base = tables(&alpha);
    let service = Configured::start(&text(&base, &alpha)).await;
    let tried: BTreeSet<_> = ROWS
        .iter()
        .map(|row| (row.0, row.1))
        .chain(PLACED)
        .collect();
    let names: BTreeSet<_> = tried.iter().map(|(table, _)| *table).collect();
    // A table that nobody knows: what may stand at the top.
    let answer = reload(
        &service,
        &format!("zzzzzzzzzz = 1\n{}", text(&base, &alpha)),
        TOKEN,
    )
    .await;
    for table in &names {
        assert!(answer.body.contains(table), "{table}: {}", answer.body);
    }
    for table in names.iter().copied() {
        let keys: BTreeSet<_> = tried
            .iter()
            .filter(|(of, _)| *of == table)
            .map(|(_, key)| (*key).to_owned())
            .collect();
        assert_eq!(
            known(&service, &base, table, &alpha).await,
            keys,
            "[{table}]"
        );
    }
}
