//! `failsoft status`: the status of a running service as a plain-text table.

use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use serde_json::Value;

use super::client::{StatusClient, as_list, single_line, without_controls};
use crate::config::{Secret, align_columns};

const MAX_INCIDENTS: usize = 5;

/// Fetches and renders the status of the service at `url`. With the admin token it includes costs.
///
/// # Errors
/// The service is unreachable, or not a Failsoft service. The message is for the operator.
pub async fn status_table(url: &str, token: Option<&Secret>) -> anyhow::Result<String> {
    let status = fetch_status(url, token)
        .await
        .with_context(|| format!("the service at {url} cannot be asked for its status"))?;
    Ok(format_status(url, &status))
}

async fn fetch_status(url: &str, token: Option<&Secret>) -> anyhow::Result<Value> {
    let service = StatusClient { url, token };
    let reply = service.request(Method::GET, "/status.json", None).await?;
    let code = reply.status.as_u16();
    anyhow::ensure!(
        reply.status.is_success(),
        "what listens there is no Failsoft: it answers {code}"
    );
    let is_status = |body: &Value| body["mode"].is_string() && body["providers"].is_array();
    reply
        .body
        .filter(is_status)
        .context("what listens there is no Failsoft: its answer is no status")
}

/// A value as the text of a cell, on a single line without control characters.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        other => single_line(other),
    }
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
            let rows = align_columns(&rows).into_iter();
            lines.extend(rows.map(|row| format!("  {row}")));
        }
    }
    lines.join("\n") + "\n"
}

fn format_header(url: &str, status: &Value) -> Vec<String> {
    let of = |key: &str| cell(&status[key]);
    let up = Duration::from_secs(status["uptime_s"].as_u64().unwrap_or_default());
    let up = humantime::format_duration(up);
    let incident = match &status["incident"] {
        Value::Null => String::new(),
        incident => format!(", incident {}", cell(incident)),
    };
    let mut lines = vec![
        format!(
            "Failsoft {} at {url}, instance {}, up {up}",
            of("version"),
            of("instance")
        ),
        format!("Mode      {} since {}{incident}", of("mode"), of("since")),
    ];
    if status["message"]
        .as_str()
        .is_some_and(|message| !message.is_empty())
    {
        lines.push(format!("Message   {}", of("message")));
    }
    let answers = &status["answers"];
    let share = answers["availability"].as_f64();
    let share = share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0));
    lines.push(format!("Next      {}", of("active")));
    lines.push(format!(
        "Answers   {}, by AI {}, degraded {}, availability {share}",
        cell(&answers["total"]),
        cell(&answers["ai"]),
        cell(&answers["degraded"])
    ));
    let availability = &status["availability"];
    for (name, key) in [("24 hours", "24h"), ("30 days", "30d")] {
        lines.extend(format_period(name, &availability[key]));
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
    let cost = period["cost_usd"].as_f64();
    let cost = cost.map_or(String::new(), |usd| format!(", ${usd:.4}"));
    let reasons = period["reasons"].as_object().into_iter().flatten();
    let reasons: Vec<String> = reasons
        .map(|(reason, count)| format!("{} {}", without_controls(reason), cell(count)))
        .collect();
    let failed = match reasons.join(", ") {
        reasons if reasons.is_empty() => reasons,
        reasons => format!("; failed attempts: {reasons}"),
    };
    Some(format!(
        "{name:9} {} messages: {} answered, {} by AI; AI available {} of the time{cost}{failed}",
        cell(total),
        percent("answers"),
        percent("ai"),
        percent("ai_time")
    ))
}

fn provider_rows(status: &Value) -> Vec<Vec<String>> {
    const TITLES: [&str; 11] = [
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
    let providers = as_list(&status["providers"]);
    let has_costs = providers
        .iter()
        .any(|provider| provider["usage"].is_object());
    let mut titles = TITLES.map(str::to_owned).to_vec();
    titles.extend(has_costs.then(|| "COST USD".to_owned()));
    let mut rows = vec![titles];
    for provider in providers {
        let healthy = match provider["healthy"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let counts = &provider["counts"];
        let latency = &provider["latency_ms"];
        let first_token = &latency["first_token"];
        let mut row = vec![
            cell(&provider["name"]),
            cell(&provider["model"]),
            cell(&provider["state"]),
            healthy.to_owned(),
            cell(&provider["reason"]),
            cell(&provider["retry_at"]),
            cell(&provider["in_flight"]),
            cell(&counts["success"]),
            cell(&counts["failure"]),
            cell(&counts["restarts"]),
            format!(
                "{}/{}",
                cell(&first_token["p50"]),
                cell(&first_token["p95"])
            ),
        ];
        let cost = provider.pointer("/usage/cost_usd").and_then(Value::as_f64);
        row.extend(has_costs.then(|| cost.map_or("-".to_owned(), |usd| format!("{usd:.4}"))));
        rows.push(row);
    }
    rows
}

fn problem_rows(status: &Value) -> Vec<Vec<String>> {
    let problems = as_list(&status["problems"]).iter();
    problems.map(|problem| vec![cell(problem)]).collect()
}

fn incident_rows(status: &Value) -> Vec<Vec<String>> {
    let newest = as_list(&status["incidents"]).iter().take(MAX_INCIDENTS);
    let row = |incident: &Value| {
        let ended = match &incident["ended"] {
            Value::Null => "now".to_owned(),
            ended => cell(ended),
        };
        vec![
            cell(&incident["id"]),
            cell(&incident["mode"]),
            format!("{} to {ended}", cell(&incident["started"])),
            cell(&incident["cause"]),
        ]
    };
    newest.map(row).collect()
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
