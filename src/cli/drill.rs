//! `failsoft drill`: starts an outage drill on a running service, waits for its end and prints the
//! report.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Drill;
use super::client::{HttpReply, StatusClient, as_list, single_line};
use crate::config::format_duration;

const DRILLS_PATH: &str = "/admin/drills";

/// The interval at which the state of the drill is polled. Another operator may stop it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time to wait for the report after the end. The last turns may still run and are reported as
/// such.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the drill and waits for its end; `stop` ends it early. Calls `print` for each output
/// line.
///
/// # Errors
/// The drill was not started or its result is unknown. The message is for the operator.
pub async fn run(
    service: StatusClient<'_>,
    drill: &Drill,
    stop: impl Future<Output = ()>,
    print: impl Fn(&str),
) -> anyhow::Result<()> {
    let body = json!({
        "provider": drill.provider,
        "fault": drill.fault.to_string(),
        "for": format_duration(drill.duration()),
        "share": drill.share,
    });
    let started = &call(service, Method::POST, DRILLS_PATH, Some(&body))
        .await
        .with_context(|| format!("the drill was not started at {}", service.url))?;
    let ends = Instant::now() + drill.duration();
    let share = match drill.share {
        share if share < 1.0 => format!(", for {share} of calls"),
        _ => String::new(),
    };
    let until = single_line(&started["until"]);
    let Drill {
        provider, fault, ..
    } = drill;
    print(&format!(
        "Outage drill at {provider}: {fault}{share}, until {until}."
    ));
    print("Ctrl-C ends it early.");
    let mut stop = pin!(stop);
    let stopped_early = tokio::select! {
        () = &mut stop => true,
        () = wait_until_ended(service, drill, started, ends) => false,
    };
    if stopped_early {
        let path = format!("{DRILLS_PATH}?provider={provider}");
        let stopped = call(service, Method::DELETE, &path, None).await;
        stopped
            .with_context(|| format!("the drill was not ended; it ends by itself at {until}"))?;
    }
    let report = tokio::time::timeout(REPORT_TIMEOUT, wait_for_report(service, started)).await;
    let Ok(report) = &report else {
        let url = service.url;
        anyhow::bail!("the drill is over, but the service at {url} returns no report");
    };
    print(match report["ended_by"].as_str() {
        _ if stopped_early => "The drill was ended early.",
        Some("operator") => "The drill was ended early, by someone else.",
        _ => "The drill ended by itself.",
    });
    format_report(report).iter().for_each(|line| print(line));
    Ok(())
}

/// Waits until the drill has ended. If the service is unreachable, waits for the scheduled end.
async fn wait_until_ended(
    service: StatusClient<'_>,
    drill: &Drill,
    started: &Value,
    ends: Instant,
) {
    loop {
        tokio::time::sleep_until(ends.min(Instant::now() + POLL_INTERVAL)).await;
        if Instant::now() >= ends {
            return;
        }
        let is_ours =
            |entry: &Value| entry["provider"] == drill.provider && entry["from"] == started["from"];
        if let Ok(list) = &call(service, Method::GET, DRILLS_PATH, None).await
            && !as_list(&list["running"]).iter().any(is_ours)
        {
            return;
        }
    }
}

/// Waits for the report, if possible until the last turn of the drill has ended.
async fn wait_for_report(service: StatusClient<'_>, started: &Value) -> Value {
    let accept_unfinished_at = Instant::now() + REPORT_TIMEOUT / 2;
    loop {
        if let Ok(list) = &call(service, Method::GET, DRILLS_PATH, None).await {
            let is_ours = |report: &&Value| {
                report["provider"] == started["provider"] && report["from"] == started["from"]
            };
            let is_complete = |report: &Value| {
                report.pointer("/turns/under_way").map_or(0, number) == 0
                    || Instant::now() >= accept_unfinished_at
            };
            let report = as_list(&list["reports"]).iter().find(is_ours);
            if let Some(report) = report.filter(|report| is_complete(report)) {
                return report.clone();
            }
        }
        tokio::time::sleep(POLL_INTERVAL / 5).await;
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

async fn call(
    service: StatusClient<'_>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    check_reply(service, service.request(method, path, body).await?)
}

/// Returns the JSON body of a successful reply. An error says what the operator can do.
fn check_reply(service: StatusClient<'_>, reply: HttpReply) -> anyhow::Result<Value> {
    let body = &reply.body.unwrap_or_default();
    let error = &body["error"];
    let message = error.get("message").map(single_line).unwrap_or_default();
    match reply.status {
        StatusCode::OK if body.is_object() => Ok(body.clone()),
        StatusCode::UNAUTHORIZED => anyhow::bail!(
            "it refuses the admin token; set $FAILSOFT_ADMIN_TOKEN to its server.admin_token"
        ),
        StatusCode::NOT_FOUND if error.get("code").is_none_or(|code| code != "not_found") => {
            anyhow::bail!("what listens at {} is no Failsoft", service.url)
        }
        StatusCode::NOT_FOUND if !message.contains("provider") => {
            anyhow::bail!("its admin API is off; set server.admin_token in its configuration")
        }
        _ if error.is_object() => anyhow::bail!("{message}"),
        status => {
            let status = status.as_u16();
            anyhow::bail!("what listens there is no Failsoft: it answers {status}")
        }
    }
}

fn format_report(report: &Value) -> Vec<String> {
    let turns = &report["turns"];
    let breaker = &report["breaker"];
    let calls = &report["calls"];
    let of = |key: &str| number(&turns[key]);
    let seconds = |value: &Value| {
        let ms = value.as_u64()?;
        Some(format!("{}.{} s", ms / 1_000, ms / 100 % 10))
    };
    let sources = turns["sources"].as_object().into_iter().flatten();
    let sources: Vec<String> = sources
        .map(|(name, count)| format!("{} {name}", number(count)))
        .collect();
    let sources = match sources.join(", ") {
        sources if sources.is_empty() => "none".to_owned(),
        sources => sources,
    };
    let mut lines = vec![
        format!(
            "Calls     {}, of which the drill befell {}",
            number(&calls["total"]),
            number(&calls["befallen"])
        ),
        format!("Turns     {}: {sources}", of("turns")),
        format!(
            "          {} degraded, {} interrupted, {} restarts, {} attempts of which {} failed at the provider",
            of("degraded"),
            of("interrupted"),
            of("restarts"),
            of("attempts"),
            of("failed")
        ),
    ];
    if of("under_way") > 0 {
        lines.push(format!("          {} still under way", of("under_way")));
    }
    let opened_after = seconds(&breaker["opened_after_ms"]);
    let limited_after = seconds(&breaker["limited_after_ms"]);
    let opened = match (opened_after, limited_after, number(&breaker["opened"])) {
        (Some(after), _, 1) => format!("opened after {after}, once in all"),
        (Some(after), _, times) => format!("opened after {after}, {times} times in all"),
        (None, Some(after), _) => {
            format!("stayed closed; a rate limit was waited out from {after} on")
        }
        (None, None, _) => "stayed closed".to_owned(),
    };
    let closed = seconds(&breaker["closed_after_ms"]);
    let closed = closed.map_or(String::new(), |after| {
        format!("; asked again {after} after the end")
    });
    lines.push(format!("Breaker   {opened}{closed}"));
    if let Some(longest) = seconds(&turns["longest_first_token_ms"]) {
        lines.push(format!("Slowest   first text after {longest}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_rendered_in_lines() {
        let report = json!({
            "calls": { "total": 9, "befallen": 5 },
            "turns": { "turns": 4, "under_way": 1, "sources": { "ai": 3, "fallback": 1 }, "degraded": 1, "interrupted": 0, "stopped": 0,
                       "restarts": 2, "attempts": 7, "failed": 5, "longest_first_token_ms": 1234 },
            "breaker": { "opened": 2, "opened_after_ms": 450, "limited_after_ms": null, "closed_after_ms": 3 },
        });
        assert_eq!(
            format_report(&report),
            [
                "Calls     9, of which the drill befell 5",
                "Turns     4: 3 ai, 1 fallback",
                "          1 degraded, 0 interrupted, 2 restarts, 7 attempts of which 5 failed at the provider",
                "          1 still under way",
                "Breaker   opened after 0.4 s, 2 times in all; asked again 0.0 s after the end",
                "Slowest   first text after 1.2 s",
            ]
        );
        let empty = json!({ "calls": {}, "turns": { "sources": {} }, "breaker": { "limited_after_ms": 1000 } });
        let lines = format_report(&empty).join("\n");
        assert!(
            lines.contains("Turns     0: none")
                && lines.contains("rate limit was waited out from 1.0 s on")
        );
    }

    #[test]
    fn errors_say_what_to_do() {
        let service = StatusClient {
            url: "http://x",
            token: None,
        };
        let error_for = |status: u16, code: &str, message: &str| {
            let body = Some(json!({ "error": { "code": code, "message": message } }));
            let status = StatusCode::from_u16(status).unwrap_or_default();
            check_reply(service, HttpReply { status, body })
                .map_err(|error| error.to_string())
                .unwrap_err()
        };
        assert!(error_for(401, "unauthorized", "x").contains("$FAILSOFT_ADMIN_TOKEN"));
        assert!(
            error_for(404, "not_found", "there is nothing here").contains("server.admin_token")
        );
        let unknown = "no provider has that name; there are: a, b";
        assert_eq!(error_for(404, "not_found", unknown), unknown);
        assert_eq!(error_for(409, "conflict", "a drill\nruns"), "a drill runs");
        let foreign = check_reply(
            service,
            HttpReply {
                status: StatusCode::OK,
                body: None,
            },
        );
        assert!(foreign.is_err_and(|error| error.to_string().contains("no Failsoft")));
    }
}
