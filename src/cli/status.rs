//! `failsoft status`: the status of a running service as a plain-text table.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::client::StatusClient;
use crate::config::Secret;

const MAX_INCIDENTS: usize = 5;

/// Fetches and renders the status of the service at `url`. With the admin token it includes costs.
///
/// # Errors
/// The service is unreachable, or not a Failsoft service. The message is for the operator.
pub async fn status_table(url: &str, token: Option<&Secret>) -> anyhow::Result<String> {
    let status = fetch_status(url, token).await;
    let status =
        status.with_context(|| format!("the service at {url} cannot be asked for its status"))?;
    Ok(format_status(url, &status))
}

async fn fetch_status(url: &str, token: Option<&Secret>) -> anyhow::Result<Value> {
    let reply = StatusClient { url, token }
        .request(http::Method::GET, "/status.json", None)
        .await?;
    let status = reply.status;
    anyhow::ensure!(
        status.is_success(),
        "what listens there is no Failsoft: it answers {}",
        status.as_u16()
    );
    let status = reply
        .body
        .filter(|status| status["mode"].is_string() && status["providers"].is_array());
    status.context("what listens there is no Failsoft: its answer is no status")
}

/// A value as the text of a cell, on a single line without control characters.
fn format_cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return "-".to_owned(),
        Value::String(text) if text.is_empty() => return "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    single_line(&text)
}

/// Replaces control characters, which could move the cursor.
fn single_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn format_status(url: &str, status: &Value) -> String {
    let mut lines = format_header(url, status);
    lines.push(String::new());
    lines.extend(align_columns(&provider_rows(status)));
    for (title, rows) in [
        ("Problems", problem_rows(status)),
        ("Incidents", incident_rows(status)),
    ] {
        if !rows.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(
                align_columns(&rows)
                    .into_iter()
                    .map(|row| format!("  {row}")),
            );
        }
    }
    lines.join("\n") + "\n"
}

fn format_header(url: &str, status: &Value) -> Vec<String> {
    let up = Duration::from_secs(status["uptime_s"].as_u64().unwrap_or_default());
    let up = humantime::format_duration(up);
    let answers = &status["answers"];
    let share = answers["availability"].as_f64();
    let share = share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let incident = &status["incident"];
    let incident = if incident.is_null() {
        String::new()
    } else {
        format!(", incident {}", format_cell(incident))
    };
    let mut lines = vec![
        format!(
            "Failsoft {} at {url}, instance {}, up {up}",
            format_cell(&status["version"]),
            format_cell(&status["instance"])
        ),
        format!(
            "Mode      {} since {}{incident}",
            format_cell(&status["mode"]),
            format_cell(&status["since"])
        ),
        format!("Next      {}", format_cell(&status["active"])),
        format!(
            "Answers   {}, by AI {}, degraded {}, availability {share}",
            format_cell(&answers["total"]),
            format_cell(&answers["ai"]),
            format_cell(&answers["degraded"])
        ),
    ];
    lines.extend(
        [("24 hours", "24h"), ("30 days", "30d")]
            .into_iter()
            .filter_map(|(name, key)| format_period(name, status.get("availability")?.get(key)?)),
    );
    if status["message"]
        .as_str()
        .is_some_and(|message| !message.is_empty())
    {
        lines.insert(2, format!("Message   {}", format_cell(&status["message"])));
    }
    lines
}

/// The statistics of a period. `None` if the service does not report them.
fn format_period(name: &str, period: &Value) -> Option<String> {
    let percent = |key: &str| {
        period[key].as_f64().map_or("-".to_owned(), |share| {
            format!("{:.2} %", (share * 10_000.0).floor() / 100.0)
        })
    };
    let total = period.pointer("/counts/total")?;
    let cost = period["cost_usd"]
        .as_f64()
        .map_or(String::new(), |usd| format!(", ${usd:.4}"));
    let reasons = period["reasons"].as_object().into_iter().flatten();
    let reasons: Vec<_> = reasons
        .map(|(reason, count)| format!("{} {}", single_line(reason), format_cell(count)))
        .collect();
    let failed = if reasons.is_empty() {
        String::new()
    } else {
        format!("; failed attempts: {}", reasons.join(", "))
    };
    Some(format!(
        "{name:9} {} messages: {} answered, {} by AI; AI available {} of the time{cost}{failed}",
        format_cell(total),
        percent("answers"),
        percent("ai"),
        percent("ai_time")
    ))
}

fn provider_rows(status: &Value) -> Vec<Vec<String>> {
    let providers = as_list(&status["providers"]);
    let has_costs = providers
        .iter()
        .any(|provider| provider["usage"].is_object());
    let mut titles = vec![
        "PROVIDER",
        "MODEL",
        "STATE",
        "HEALTHY",
        "REASON",
        "RETRY AT",
        "RUNNING",
        "OK",
        "FAILED",
        "RESTARTS",
        "FIRST TOKEN P50/P95 MS",
    ];
    titles.extend(has_costs.then_some("COST USD"));
    let mut rows = vec![titles.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for provider in providers {
        let healthy = match provider["healthy"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let first_token = |share| {
            provider
                .pointer(&format!("/latency_ms/first_token/{share}"))
                .unwrap_or(&Value::Null)
        };
        let counts = &provider["counts"];
        let mut row = vec![
            format_cell(&provider["name"]),
            format_cell(&provider["model"]),
            format_cell(&provider["state"]),
            healthy.to_owned(),
            format_cell(&provider["reason"]),
            format_cell(&provider["retry_at"]),
            format_cell(&provider["in_flight"]),
            format_cell(&counts["success"]),
            format_cell(&counts["failure"]),
            format_cell(&counts["restarts"]),
            format!(
                "{}/{}",
                format_cell(first_token("p50")),
                format_cell(first_token("p95"))
            ),
        ];
        let cost = provider.pointer("/usage/cost_usd").and_then(Value::as_f64);
        row.extend(has_costs.then(|| cost.map_or("-".to_owned(), |usd| format!("{usd:.4}"))));
        rows.push(row);
    }
    rows
}

fn problem_rows(status: &Value) -> Vec<Vec<String>> {
    as_list(&status["problems"])
        .iter()
        .map(|problem| vec![format_cell(problem)])
        .collect()
}

fn incident_rows(status: &Value) -> Vec<Vec<String>> {
    let newest = as_list(&status["incidents"]).iter().take(MAX_INCIDENTS);
    let row = |incident: &Value| {
        let ended = if incident["ended"].is_null() {
            "now".to_owned()
        } else {
            format_cell(&incident["ended"])
        };
        vec![
            format_cell(&incident["id"]),
            format_cell(&incident["mode"]),
            format!("{} to {ended}", format_cell(&incident["started"])),
            format_cell(&incident["cause"]),
        ]
    };
    newest.map(row).collect()
}

fn as_list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn align_columns(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status() -> Value {
        let first = json!({ "p50": 120, "p95": 340, "p99": 500 });
        json!({
            "mode": "degraded", "since": "2026-01-02T03:04:05.000Z", "incident": "inc-7", "message": "Slower than usual.",
            "active": "beta", "version": "0.1.0", "instance": "abc", "uptime_s": 3_720,
            "answers": { "total": 8, "ai": 6, "degraded": 2, "availability": 0.75 },
            "providers": [
                { "name": "alpha", "model": "a-1", "state": "open", "healthy": false, "reason": "timeout",
                  "retry_at": "2026-01-02T03:05:00.000Z", "in_flight": 0, "counts": { "success": 3, "failure": 5, "restarts": 1 },
                  "latency_ms": { "first_token": { "p50": null, "p95": null, "p99": null } } },
                { "name": "beta", "model": "a-longer-model", "state": "closed", "healthy": true, "reason": null,
                  "retry_at": null, "in_flight": 2, "counts": { "success": 6, "failure": 0, "restarts": 0 },
                  "latency_ms": { "first_token": first } },
            ],
            "availability": { "24h": { "answers": 1.0, "ai": 0.75, "ai_time": 0.99999, "counts": { "total": 8 },
                                      "reasons": { "timeout": 4, "refused": 1 } } },
            "incidents": [{ "id": "inc-7", "mode": "degraded", "started": "2026-01-02T03:04:05.000Z", "ended": null,
                            "cause": "alpha: timeout" }],
            "problems": ["The store fails."],
        })
    }

    #[test]
    fn table_is_aligned_and_complete() {
        let expected = "\
Failsoft 0.1.0 at http://x, instance abc, up 1h 2m
Mode      degraded since 2026-01-02T03:04:05.000Z, incident inc-7
Message   Slower than usual.
Next      beta
Answers   8, by AI 6, degraded 2, availability 75.00 %
24 hours  8 messages: 100.00 % answered, 75.00 % by AI; AI available 99.99 % of the time; failed attempts: refused 1, timeout 4

PROVIDER  MODEL           STATE   HEALTHY  REASON   RETRY AT                  RUNNING  OK  FAILED  RESTARTS  FIRST TOKEN P50/P95 MS
alpha     a-1             open    no       timeout  2026-01-02T03:05:00.000Z  0        3   5       1         -/-
beta      a-longer-model  closed  yes      -        -                         2        6   0       0         120/340

Problems
  The store fails.

Incidents
  inc-7  degraded  2026-01-02T03:04:05.000Z to now  alpha: timeout
";
        assert_eq!(format_status("http://x", &status()), expected);
    }

    #[test]
    fn costs_have_a_column_if_reported() {
        let mut status = status();
        status["providers"][1]["usage"] =
            json!({ "input_tokens": 1, "output_tokens": 2, "cost_usd": 0.01234 });
        let table = format_status("http://x", &status);
        let row = |name: &str| {
            table
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert!(row("PROVIDER").ends_with("  COST USD"));
        assert!(
            row("beta").ends_with("  0.0123") && row("alpha").ends_with("  -"),
            "{table}"
        );
    }

    #[test]
    fn control_characters_of_the_server_are_removed() {
        let mut status = status();
        status["problems"] = json!(["one\u{1b}[2J\ntwo\rthree"]);
        let table = format_status("http://x", &status);
        assert!(table.contains("  one [2J two three\n"), "{table}");
    }

    #[test]
    fn missing_values_are_shown_as_dashes() {
        let table = format_status("http://x", &json!({ "mode": "normal", "providers": [{}] }));
        assert!(table.contains("Mode      normal since -\n"), "{table}");
    }
}
