//! Every configuration key, changed by a reload, takes effect at once or is reported in
//! `needs_restart`. No key is ignored silently.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use failsoft::config::Settings;
use serde_json::{Value, json};

use super::service::{ConfiguredService, TOKEN};
use crate::harness::{ScriptedProvider, TestResponse};

/// The moment when a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    /// At the reload.
    Now,
    /// At the reload, with a change of the providers' settings.
    Provider,
    /// At the next start.
    Restart,
}
use Effect::{Now, Provider, Restart};

/// A table, one of its keys, a value that differs from the base configuration, and when it takes
/// effect.
type Row = (&'static str, &'static str, &'static str, Effect);

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

/// Keys that the harness overrides, so that no file can change them here. A unit test beside the
/// reload code covers them.
const OVERRIDDEN: [(&str, &str); 2] = [("server", "listen"), ("server", "data_dir")];

/// The keys and values of each table.
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
    let texts = [
        ("name", "beta"),
        ("dialect", "anthropic"),
        ("model", "beta-1"),
        ("api_key", "sk-canary-key"),
    ];
    for (key, value) in texts {
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

fn to_toml(tables: &Tables, alpha: &ScriptedProvider) -> String {
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
    // Two more providers, which do not change.
    for name in ["alpha", "omega"] {
        text += &super::service::provider(name, alpha, "");
    }
    text
}

/// Writes the file, and requests a reload with this token.
async fn reload(service: &ConfiguredService, text: &str, token: &str) -> TestResponse {
    service.write(text);
    let request = service.app.request("POST", "/admin/reload");
    request
        .header("authorization", &format!("Bearer {token}"))
        .send()
        .await
}

/// The settings in effect. Their `Debug` output hides secrets.
fn settings_in_effect(service: &ConfiguredService) -> String {
    format!("{:?}", service.app.chat_service.settings())
}

/// The settings of the file, with the values that the harness overrides.
fn settings_of_file(service: &ConfiguredService) -> String {
    let file = service.folder().join("failsoft.toml");
    let mut settings = Settings::load(Some(&file), &|_| None).unwrap().settings;
    let now = service.app.chat_service.settings();
    settings.server.listen.clone_from(&now.server.listen);
    settings.server.data_dir.clone_from(&now.server.data_dir);
    format!("{settings:?}")
}

#[tokio::test]
async fn every_changed_key_takes_effect_or_is_reported_as_needing_a_restart() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let base = tables(&alpha);
    let service = ConfiguredService::start(&to_toml(&base, &alpha)).await;
    std::fs::write(service.folder().join("replies.toml"), "fallback = 'Later.'").unwrap();
    std::fs::create_dir(service.folder().join("docs")).unwrap();
    let folder = service.folder().display().to_string();
    let before = settings_in_effect(&service);
    let mut token = TOKEN;
    for (table, key, value, effect) in ROWS.iter().copied() {
        let mut changed = base.clone();
        changed
            .entry(table)
            .or_default()
            .insert(key, value.replace("FOLDER", &folder));
        if (table, key) == ("providers", "daily_budget_usd") {
            // A budget requires prices.
            changed
                .entry(table)
                .or_default()
                .insert("prices", "{ input = 1.0, output = 2.0 }".into());
        }
        let answer = reload(&service, &to_toml(&changed, &alpha), token).await;
        assert_eq!(answer.status, 200, "{table}.{key}: {}", answer.body);
        let report = answer.json();
        let needed = if effect == Restart {
            json!([format!("{table}.{key}")])
        } else {
            json!([])
        };
        assert_eq!(report["needs_restart"], needed, "{table}.{key}");
        if effect == Restart {
            assert_eq!(
                settings_in_effect(&service),
                before,
                "{table}.{key} does not take effect"
            );
        } else {
            assert_eq!(
                settings_in_effect(&service),
                settings_of_file(&service),
                "{table}.{key} takes effect"
            );
            let secret = ["api_key", "admin_token"].contains(&key);
            assert!(
                secret || settings_in_effect(&service) != before,
                "{table}.{key} is read"
            );
        }
        let changes = ["added", "changed", "removed"].map(|what| report["providers"][what].clone());
        let has_changes = changes.iter().any(|names| names != &json!([]));
        assert_eq!(
            has_changes,
            effect == Provider,
            "{table}.{key}: {changes:?}"
        );
        if key == "admin_token" {
            token = "admin-other";
        }
        // Restore the base configuration before the next key.
        let answer = reload(&service, &to_toml(&base, &alpha), token).await;
        assert_eq!(
            (answer.status, settings_in_effect(&service)),
            (200, before.clone()),
            "{table}.{key} is restored"
        );
        token = TOKEN;
    }
}

/// The keys that are allowed in a table, from the error message about an unknown one.
async fn allowed_keys(
    service: &ConfiguredService,
    tables: &Tables,
    table: &'static str,
    alpha: &ScriptedProvider,
) -> BTreeSet<String> {
    let mut wrong = tables.clone();
    wrong
        .entry(table)
        .or_default()
        .insert("zzzzzzzzzz", "1".into());
    let answer = reload(service, &to_toml(&wrong, alpha), TOKEN).await;
    assert_eq!(answer.status, 422, "{table}: {}", answer.body);
    let problems = answer.json()["error"]["problems"].clone();
    let what = |problem: &Value| {
        problem["what"]
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
async fn every_allowed_key_is_tested() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let base = tables(&alpha);
    let service = ConfiguredService::start(&to_toml(&base, &alpha)).await;
    let tried: BTreeSet<_> = ROWS
        .iter()
        .map(|row| (row.0, row.1))
        .chain(OVERRIDDEN)
        .collect();
    let names: BTreeSet<_> = tried.iter().map(|(table, _)| *table).collect();
    // An unknown top-level key: the error lists the allowed tables.
    let answer = reload(
        &service,
        &format!("zzzzzzzzzz = 1\n{}", to_toml(&base, &alpha)),
        TOKEN,
    )
    .await;
    for table in &names {
        assert!(answer.body.contains(table), "{table}: {}", answer.body);
    }
    for table in names.iter().copied() {
        let keys: BTreeSet<_> = tried
            .iter()
            .filter(|(owner, _)| *owner == table)
            .map(|(_, key)| (*key).to_owned())
            .collect();
        assert_eq!(
            allowed_keys(&service, &base, table, &alpha).await,
            keys,
            "[{table}]"
        );
    }
}
