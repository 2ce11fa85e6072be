//! `failsoft drill`: begins an outage drill on a running service, stays while it runs, and shows what came of it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Drill;
use super::service::{Answer, Service};
use crate::settings::show_duration;

/// The route of the service.
const PATH: &str = "/admin/drills";

/// How often it is looked whether the drill still runs: someone else may end it.
const LOOK: Duration = Duration::from_secs(1);

/// How long after the end the report is waited for: the last turns are then still under way, and it says how many.
const REPORT_LIMIT: Duration = Duration::from_secs(5);

/// Begins the drill and waits for its end; `stop` ends it early. What is to be told goes to `say`, line by line.
///
/// # Errors
/// It was not begun, or nobody knows how it ended; in words for the operator.
pub async fn run(
    service: Service<'_>,
    wanted: &Drill,
    stop: impl Future<Output = ()>,
    say: impl Fn(&str),
) -> anyhow::Result<()> {
    let body = json!({
        "provider": wanted.provider,
        "fault": wanted.fault.to_string(),
        "for": show_duration(wanted.duration()),
        "share": wanted.share,
    });
    let begun = &told(service, service.ask(Method::POST, PATH, Some(&body)).await)
        .with_context(|| format!("the drill was not begun at {}", service.url))?;
    let ends = Instant::now() + wanted.duration();
    let share = if wanted.share < 1.0 {
        format!(", for {} of calls", wanted.share)
    } else {
        String::new()
    };
    say(&format!(
        "Outage drill at {}: {}{share}, until {}.",
        wanted.provider,
        wanted.fault,
        text(&begun["until"])
    ));
    say("Ctrl-C ends it early.");
    let mut stop = pin!(stop);
    let early = tokio::select! {
        () = &mut stop => true,
        () = over(service, wanted, begun, ends) => false,
    };
    if early {
        let path = format!("{PATH}?provider={}", wanted.provider);
        told(service, service.ask(Method::DELETE, &path, None).await).with_context(|| {
            format!(
                "the drill was not ended; it ends by itself at {}",
                text(&begun["until"])
            )
        })?;
    }
    let report = tokio::time::timeout(REPORT_LIMIT, report(service, begun)).await;
    match &report {
        Ok(report) => {
            let by = match (early, report["ended_by"].as_str()) {
                (true, _) => "The drill was ended early.",
                (false, Some("operator")) => "The drill was ended early, by someone else.",
                (false, _) => "The drill ended by itself.",
            };
            say(by);
            shown(report).iter().for_each(|line| say(line));
            Ok(())
        }
        Err(_) => {
            anyhow::bail!(
                "the drill is over, but the service at {} tells no report of it",
                service.url
            )
        }
    }
}

/// Waits until the drill runs no more. A service that cannot be reached for a moment may still run it; at its time it is over.
async fn over(service: Service<'_>, wanted: &Drill, begun: &Value, ends: Instant) {
    loop {
        tokio::time::sleep_until(ends.min(Instant::now() + LOOK)).await;
        if Instant::now() >= ends {
            return;
        }
        let Ok(list) = &told(service, service.ask(Method::GET, PATH, None).await) else {
            continue;
        };
        let running = list["running"].as_array().map_or(&[][..], Vec::as_slice);
        if !running
            .iter()
            .any(|one| one["provider"] == wanted.provider && one["from"] == begun["from"])
        {
            return;
        }
    }
}

/// The drill's report, as soon as the last of its turns has ended, or the limit is near.
async fn report(service: Service<'_>, begun: &Value) -> Value {
    let hurry = Instant::now() + REPORT_LIMIT / 2;
    loop {
        if let Ok(list) = &told(service, service.ask(Method::GET, PATH, None).await) {
            let reports = list["reports"].as_array().map_or(&[][..], Vec::as_slice);
            let ours =
                |one: &&Value| one["provider"] == begun["provider"] && one["from"] == begun["from"];
            let found = reports.iter().find(ours);
            if let Some(report) = found.filter(|one| under_way(one) == 0 || Instant::now() >= hurry)
            {
                return report.clone();
            }
        }
        tokio::time::sleep(LOOK / 5).await;
    }
}

/// How many of its turns have not ended yet.
fn under_way(report: &Value) -> u64 {
    report
        .pointer("/turns/under_way")
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

/// What the service said, or why it refused, in words that say what to do.
fn told(service: Service<'_>, answer: anyhow::Result<Answer>) -> anyhow::Result<Value> {
    let Answer { status, body } = answer?;
    let body = &body.unwrap_or_default();
    let error = &body["error"];
    let message = error.get("message").map(text).unwrap_or_default();
    match status {
        StatusCode::OK if body.is_object() => Ok(body.clone()),
        StatusCode::UNAUTHORIZED => {
            anyhow::bail!(
                "it refuses the admin token; set $FAILSOFT_ADMIN_TOKEN to its server.admin_token"
            )
        }
        StatusCode::NOT_FOUND if error.get("code").is_none_or(|code| code != "not_found") => {
            anyhow::bail!("what listens at {} is no Failsoft", service.url)
        }
        StatusCode::NOT_FOUND if !message.contains("provider") => {
            anyhow::bail!("its admin API is off; set server.admin_token in its configuration")
        }
        _ if error.is_object() => anyhow::bail!("{message}"),
        status => anyhow::bail!(
            "what listens there is no Failsoft: it answers {}",
            status.as_u16()
        ),
    }
}

/// One line that moves no cursor, whatever the value holds.
fn text(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn shown(report: &Value) -> Vec<String> {
    let (turns, breaker, calls) = (&report["turns"], &report["breaker"], &report["calls"]);
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let seconds = |value: &Value| {
        value
            .as_u64()
            .map(|ms| format!("{}.{:01} s", ms / 1_000, ms / 100 % 10))
    };
    let sources: Vec<_> = turns["sources"].as_object().into_iter().flatten().collect();
    let sources: Vec<_> = sources
        .iter()
        .map(|(name, many)| format!("{} {name}", number(many)))
        .collect();
    let sources = if sources.is_empty() {
        "none".to_owned()
    } else {
        sources.join(", ")
    };
    let mut lines = vec![
        format!(
            "Calls     {}, of which the drill befell {}",
            number(&calls["total"]),
            number(&calls["befallen"])
        ),
        format!("Turns     {}: {sources}", number(&turns["turns"])),
        format!(
            "          {} degraded, {} interrupted, {} restarts, {} attempts of which {} failed at the provider",
            number(&turns["degraded"]),
            number(&turns["interrupted"]),
            number(&turns["restarts"]),
            number(&turns["attempts"]),
            number(&turns["failed"])
        ),
    ];
    if number(&turns["under_way"]) > 0 {
        lines.push(format!(
            "          {} still under way",
            number(&turns["under_way"])
        ));
    }
    let opened = match (
        seconds(&breaker["opened_after_ms"]),
        seconds(&breaker["limited_after_ms"]),
    ) {
        (Some(after), _) => format!(
            "opened after {after}, {} in all",
            times(number(&breaker["opened"]))
        ),
        (None, Some(after)) => {
            format!("stayed closed; a rate limit was waited out from {after} on")
        }
        (None, None) => "stayed closed".to_owned(),
    };
    let again = seconds(&breaker["closed_after_ms"]);
    let again = again.map_or(String::new(), |after| {
        format!("; asked again {after} after the end")
    });
    lines.push(format!("Breaker   {opened}{again}"));
    if let Some(longest) = seconds(&turns["longest_first_token_ms"]) {
        lines.push(format!("Slowest   first text after {longest}"));
    }
    lines
}

fn times(number: u64) -> String {
    if number == 1 {
        "once".to_owned()
    } else {
        format!("{number} times")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_told_in_lines() {
        let report = json!({
            "calls": { "total": 9, "befallen": 5 },
            "turns": { "turns": 4, "under_way": 1, "sources": { "ai": 3, "fallback": 1 }, "degraded": 1, "interrupted": 0, "stopped": 0,
                       "restarts": 2, "attempts": 7, "failed": 5, "longest_first_token_ms": 1234 },
            "breaker": { "opened": 2, "opened_after_ms": 450, "limited_after_ms": null, "closed_after_ms": 3 },
        });
        assert_eq!(
            shown(&report),
            [
                "Calls     9, of which the drill befell 5",
                "Turns     4: 3 ai, 1 fallback",
                "          1 degraded, 0 interrupted, 2 restarts, 7 attempts of which 5 failed at the provider",
                "          1 still under way",
                "Breaker   opened after 0.4 s, 2 times in all; asked again 0.0 s after the end",
                "Slowest   first text after 1.2 s",
            ]
        );
        let nothing = json!({ "calls": {}, "turns": { "sources": {} }, "breaker": { "limited_after_ms": 1000 } });
        let lines = shown(&nothing).join("\n");
        assert!(
            lines.contains("Turns     0: none")
                && lines.contains("rate limit was waited out from 1.0 s on")
        );
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let service = Service {
            url: "http://x",
            token: None,
        };
        let refused = |status: u16, code: &str, message: &str| {
            let body = Some(json!({ "error": { "code": code, "message": message } }));
            let status = StatusCode::from_u16(status).unwrap_or_default();
            told(service, Ok(Answer { status, body }))
                .map_err(|error| error.to_string())
                .unwrap_err()
        };
        assert!(refused(401, "unauthorized", "x").contains("$FAILSOFT_ADMIN_TOKEN"));
        assert!(refused(404, "not_found", "there is nothing here").contains("server.admin_token"));
        let unknown = "no provider has that name; there are: a, b";
        assert_eq!(refused(404, "not_found", unknown), unknown);
        assert_eq!(refused(409, "conflict", "a drill\nruns"), "a drill runs");
        let foreign = told(
            service,
            Ok(Answer {
                status: StatusCode::OK,
                body: None,
            }),
        );
        assert!(foreign.is_err_and(|error| error.to_string().contains("no Failsoft")));
    }
}
