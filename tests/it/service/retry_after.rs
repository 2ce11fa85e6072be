//! `Retry-After` in all its forms: it is honoured within limits, and no call comes before its end.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer, test_settings,
};

const ALPHA: &str = "The first provider's answer.";

const BETA: &str = "The second provider's answer.";

const MS: Duration = Duration::from_millis(1);

const SECOND: Duration = Duration::from_secs(1);

/// The maximum wait that an overloaded provider may ask for.
const MAX_OVERLOADED: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum wait that a failing or blocked provider may ask for.
const MAX_FAILED: Duration = Duration::from_secs(5 * 60);

fn limited(headers: &str) -> Vec<ScriptStep> {
    json_error(429, headers, "rate_limit_exceeded")
}

fn json_error(status: u16, headers: &str, code: &str) -> Vec<ScriptStep> {
    let body = json!({ "error": { "message": "slow down", "code": code } });
    let headers = format!("content-type: application/json\r\n{headers}\r\n");
    vec![error_response(status, &headers, &body.to_string())]
}

fn http_date(ahead: Duration) -> String {
    format!(
        "retry-after: {}",
        httpdate::fmt_http_date(SystemTime::now() + ahead)
    )
}

const INTERFACES: [&str; 2] = ["socket", "stream"];

/// Asks over one of the interfaces and returns the text.
async fn ask(app: &TestApp, interface: &str) -> String {
    if interface == "socket" {
        return WsClient::open(app)
            .await
            .ask_and_wait("What?")
            .await
            .text
            .clone();
    }
    let answer = app.stream_answer("What?").await.read_to_end().await;
    assert_eq!((answer.status, &answer.error), (200, &None));
    answer.text()
}

/// Alpha answers with `fault` once, and normally afterwards.
async fn service(fault: Vec<ScriptStep>) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering(ALPHA).await;
    alpha.script_next(fault);
    let beta = ScriptedProvider::answering(BETA).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].retry.max_retry_after = SECOND;
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

fn timestamp(at: &Value) -> SystemTime {
    humantime::parse_rfc3339(at.as_str().unwrap_or_else(|| panic!("no timestamp: {at}"))).unwrap()
}

#[tokio::test]
async fn a_short_wait_delays_the_retry() {
    for (headers, wait) in [
        ("retry-after: 1", SECOND),
        ("retry-after-ms: 250", 250 * MS),
        ("retry-after-ms: 300\r\nretry-after: 600", 300 * MS),
        ("retry-after: 0.2", 200 * MS),
        ("retry-after: 0", Duration::ZERO),
        ("retry-after: -1", Duration::ZERO),
        ("retry-after: Wed, 21 Oct 2015 07:28:00 GMT", Duration::ZERO),
    ] {
        let waited = INTERFACES.map(async |interface| {
            let (alpha, beta, app) = service(limited(headers)).await;
            assert_eq!(ask(&app, interface).await, ALPHA, "{headers}");
            let [(first, _), (second, _)] = &alpha.requests()[..] else {
                panic!("{headers}: alpha was not called twice")
            };
            assert!(
                *second - *first >= wait,
                "{headers}: called again after {:?}",
                *second - *first
            );
            assert_eq!(beta.question_count(), 0, "{headers}");
            app.wait_until_idle().await;
            assert_eq!(
                app.provider_status("alpha").await["retry_at"],
                Value::Null,
                "{headers}: it is over"
            );
        });
        join_all(waited).await;
    }
}

/// Asserts that alpha is not called for `wait`, give or take a second.
async fn assert_waits(headers: &str, wait: Duration, interface: &str) {
    let before = SystemTime::now();
    let (alpha, beta, app) = service(limited(headers)).await;
    for _ in 0..3 {
        assert_eq!(ask(&app, interface).await, BETA, "{headers}");
    }
    assert_eq!(
        (
            alpha.question_count(),
            alpha.counts().probes,
            beta.question_count()
        ),
        (1, 0, 3),
        "{headers}"
    );
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (&provider_status["state"], &provider_status["reason"]),
        (&json!("closed"), &json!("rate_limited"))
    );
    let until = timestamp(&provider_status["retry_at"]);
    assert!(
        until + SECOND >= before + wait,
        "{headers}: until {provider_status}"
    );
    assert!(
        until <= SystemTime::now() + wait + SECOND,
        "{headers}: until {provider_status}"
    );
}

#[tokio::test]
async fn a_long_wait_is_honoured_for_at_most_a_day() {
    for interface in INTERFACES {
        for (headers, wait) in [
            ("retry-after: 30", 30 * SECOND),
            ("retry-after-ms: 30000\r\nretry-after: 1", 30 * SECOND),
            ("retry-after-ms: soon\r\nretry-after: 30", 30 * SECOND),
            ("retry-after: 1e9", MAX_OVERLOADED),
            ("retry-after: Fri, 31 Dec 9999 23:59:59 GMT", MAX_OVERLOADED),
        ] {
            assert_waits(headers, wait, interface).await;
        }
        // HTTP dates have no fractions of a second.
        assert_waits(&http_date(40 * SECOND), 40 * SECOND, interface).await;
        assert_waits(&http_date(2 * MAX_OVERLOADED), MAX_OVERLOADED, interface).await;
    }
}

#[tokio::test]
async fn invalid_values_are_ignored() {
    for headers in [
        "retry-after: soon",
        "retry-after: ",
        "retry-after: NaN",
        "retry-after: 5, 10",
        "x: 5",
    ] {
        for interface in INTERFACES {
            let (alpha, beta, app) = service(limited(headers)).await;
            assert_eq!(ask(&app, interface).await, BETA, "{headers}");
            assert_eq!(ask(&app, interface).await, ALPHA, "{headers}");
            assert_eq!(
                (alpha.question_count(), beta.question_count()),
                (2, 1),
                "{headers}"
            );
            assert_eq!(
                app.provider_status("alpha").await["retry_at"],
                Value::Null,
                "{headers}"
            );
        }
    }
}

#[tokio::test]
async fn the_provider_is_called_again_only_after_the_wait() {
    for interface in INTERFACES {
        let (alpha, beta, app) = service(limited("retry-after-ms: 1200")).await;
        while ask(&app, interface).await != ALPHA {}
        let [(first, _), (second, _)] = &alpha.requests()[..] else {
            panic!("alpha was not called twice")
        };
        assert!(
            *second - *first >= 1200 * MS,
            "called again after {:?}",
            *second - *first
        );
        assert!(beta.question_count() > 1, "beta did not answer meanwhile");
        app.wait_until_idle().await;
        let provider_status = app.provider_status("alpha").await;
        assert_eq!(
            (
                &provider_status["retry_at"],
                provider_status["counts"]["failure"].as_u64()
            ),
            (&Value::Null, Some(1))
        );
    }
}

#[tokio::test]
async fn an_elapsed_wait_disappears_from_the_status() {
    let (_alpha, _beta, app) = service(limited("retry-after-ms: 1200")).await;
    assert_eq!(ask(&app, "socket").await, BETA);
    let until = timestamp(&app.provider_status("alpha").await["retry_at"]);
    let over = async {
        // Nobody asks meanwhile, and no event announces the end of a wait.
        while app.provider_status("alpha").await["retry_at"] != Value::Null {}
    };
    crate::harness::eventually("the wait to be over", over).await;
    assert!(SystemTime::now() >= until);
}

/// Opens or blocks alpha's breaker with one answer. Returns its `retry_at` too.
async fn opened(fault: Vec<ScriptStep>, state: &str) -> (ScriptedProvider, TestApp, Value) {
    let alpha = ScriptedProvider::start(fault).await;
    let beta = ScriptedProvider::answering(BETA).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    let breaker = &mut settings.providers[0].breaker;
    breaker.consecutive_failures = 1;
    breaker.blocked_for = 300 * MS;
    let app = TestApp::start(settings).await;
    assert_eq!(ask(&app, "socket").await, BETA);
    app.wait_until_idle().await;
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(provider_status["state"], state, "{provider_status}");
    let until = provider_status["retry_at"].clone();
    (alpha, app, until)
}

#[tokio::test]
async fn open_and_blocked_breakers_honour_retry_after_up_to_a_limit() {
    let jitter = SECOND;
    for (status, code, state, max_wait) in [
        (503, "busy", "open", MAX_OVERLOADED),
        (500, "oops", "open", MAX_FAILED),
        (429, "insufficient_quota", "blocked", MAX_FAILED),
    ] {
        for (headers, wait) in [
            ("retry-after: 40", 40 * SECOND),
            ("retry-after: 1e9", max_wait),
            (&http_date(2 * MAX_OVERLOADED), max_wait),
        ] {
            let before = SystemTime::now();
            let (alpha, _app, until) = opened(json_error(status, headers, code), state).await;
            let until = timestamp(&until);
            assert!(until + MS >= before + wait, "{status} {headers}");
            assert!(
                until <= SystemTime::now() + wait + jitter,
                "{status} {headers}"
            );
            assert_eq!(alpha.counts().probes, 0, "{status} {headers}");
        }
    }
}

#[tokio::test]
async fn the_first_probe_comes_after_the_wait() {
    for (status, code, state) in [
        (503, "busy", "open"),
        (429, "insufficient_quota", "blocked"),
    ] {
        let fault = json_error(status, "retry-after-ms: 1500", code);
        let (alpha, app, _) = opened(fault, state).await;
        alpha.script_default(full_answer(ALPHA));
        alpha.wait_for(|counts| counts.probes == 1).await;
        let calls = alpha.call_times();
        let asked = calls[calls.len() - 2];
        let probed = calls[calls.len() - 1];
        assert!(
            probed - asked >= 1500 * MS,
            "{status}: probed after {:?}",
            probed - asked
        );
        let closed = failsoft::domain::ProviderState::Closed;
        app.wait_for_status("alpha", |provider_status| provider_status.state == closed)
            .await;
        assert_eq!(ask(&app, "stream").await, ALPHA);
    }
}
