//! How long a provider asks to be left alone, in all the forms that it may say so: it is believed within reason, and not asked before.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Act, ScriptedProvider, TestApp, WsClient, answer, refusal, settings};

const ALPHA: &str = "The first provider's answer.";

const BETA: &str = "The second provider's answer.";

const MS: Duration = Duration::from_millis(1);

const SECOND: Duration = Duration::from_secs(1);

/// The longest that a provider is believed which has too much to do.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that one is believed which is in trouble.
const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);

fn limited(headers: &str) -> Vec<Act> {
    refused(429, headers, "rate_limit_exceeded")
}

fn refused(status: u16, headers: &str, code: &str) -> Vec<Act> {
    let body = json!({ "error": { "message": "slow down", "code": code } });
    let headers = format!("content-type: application/json\r\n{headers}\r\n");
    vec![refusal(status, &headers, &body.to_string())]
}

fn date(ahead: Duration) -> String {
    format!(
        "retry-after: {}",
        httpdate::fmt_http_date(SystemTime::now() + ahead)
    )
}

const DOORS: [&str; 2] = ["socket", "stream"];

/// Asks over one of the doors; gives the text.
async fn ask(app: &TestApp, door: &str) -> String {
    if door == "socket" {
        return WsClient::open(app)
            .await
            .answered("What?")
            .await
            .text
            .clone();
    }
    let answer = app.stream("What?").await.ended().await;
    assert_eq!((answer.status, &answer.error), (200, &None));
    answer.text()
}

/// Alpha does this once and is well then.
async fn service(fault: Vec<Act>) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering(ALPHA).await;
    alpha.once(fault);
    let beta = ScriptedProvider::answering(BETA).await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].retry.max_retry_after = SECOND;
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

fn moment(at: &Value) -> SystemTime {
    humantime::parse_rfc3339(at.as_str().unwrap_or_else(|| panic!("no moment: {at}"))).unwrap()
}

#[tokio::test]
async fn a_short_wait_is_waited_for() {
    for (headers, wait) in [
        ("retry-after: 1", SECOND),
        ("retry-after-ms: 250", 250 * MS),
        ("retry-after-ms: 300\r\nretry-after: 600", 300 * MS),
        ("retry-after: 0.2", 200 * MS),
        ("retry-after: 0", Duration::ZERO),
        ("retry-after: -1", Duration::ZERO),
        ("retry-after: Wed, 21 Oct 2015 07:28:00 GMT", Duration::ZERO),
    ] {
        let waited = DOORS.map(async |door| {
            let (alpha, beta, app) = service(limited(headers)).await;
            assert_eq!(ask(&app, door).await, ALPHA, "{headers}");
            let [(first, _), (second, _)] = &alpha.requests()[..] else {
                panic!("{headers}: not asked twice")
            };
            assert!(
                *second - *first >= wait,
                "{headers}: asked again after {:?}",
                *second - *first
            );
            assert_eq!(beta.asked(), 0, "{headers}");
            app.at_rest().await;
            assert_eq!(
                app.provider("alpha").await["retry_at"],
                Value::Null,
                "{headers}: it is over"
            );
        });
        join_all(waited).await;
    }
}

/// With these headers it is left alone for so long, give or take a second.
async fn believed(headers: &str, wait: Duration, door: &str) {
    let before = SystemTime::now();
    let (alpha, beta, app) = service(limited(headers)).await;
    for _ in 0..3 {
        assert_eq!(ask(&app, door).await, BETA, "{headers}");
    }
    assert_eq!(
        (alpha.asked(), alpha.counts().probes, beta.asked()),
        (1, 0, 3),
        "{headers}"
    );
    let vitals = app.provider("alpha").await;
    assert_eq!(
        (&vitals["state"], &vitals["reason"]),
        (&json!("closed"), &json!("rate_limited"))
    );
    let until = moment(&vitals["retry_at"]);
    assert!(until + SECOND >= before + wait, "{headers}: until {vitals}");
    assert!(
        until <= SystemTime::now() + wait + SECOND,
        "{headers}: until {vitals}"
    );
}

#[tokio::test]
async fn a_long_wait_is_believed_for_a_day_at_most() {
    for door in DOORS {
        for (headers, wait) in [
            ("retry-after: 30", 30 * SECOND),
            ("retry-after-ms: 30000\r\nretry-after: 1", 30 * SECOND),
            ("retry-after-ms: soon\r\nretry-after: 30", 30 * SECOND),
            ("retry-after: 1e9", DAY),
            ("retry-after: Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ] {
            believed(headers, wait, door).await;
        }
        // Dates have no fractions of a second.
        believed(&date(40 * SECOND), 40 * SECOND, door).await;
        believed(&date(2 * DAY), DAY, door).await;
    }
}

#[tokio::test]
async fn what_says_no_time_holds_nobody_back() {
    for headers in [
        "retry-after: soon",
        "retry-after: ",
        "retry-after: NaN",
        "retry-after: 5, 10",
        "x: 5",
    ] {
        for door in DOORS {
            let (alpha, beta, app) = service(limited(headers)).await;
            assert_eq!(ask(&app, door).await, BETA, "{headers}");
            assert_eq!(ask(&app, door).await, ALPHA, "{headers}");
            assert_eq!((alpha.asked(), beta.asked()), (2, 1), "{headers}");
            assert_eq!(
                app.provider("alpha").await["retry_at"],
                Value::Null,
                "{headers}"
            );
        }
    }
}

#[tokio::test]
async fn nobody_asks_before_it_is_over_and_then_it_is_asked() {
    for door in DOORS {
        let (alpha, beta, app) = service(limited("retry-after-ms: 1200")).await;
        while ask(&app, door).await != ALPHA {}
        let [(first, _), (second, _)] = &alpha.requests()[..] else {
            panic!("not asked twice")
        };
        assert!(
            *second - *first >= 1200 * MS,
            "asked again after {:?}",
            *second - *first
        );
        assert!(beta.asked() > 1, "it was asked only once");
        app.at_rest().await;
        let vitals = app.provider("alpha").await;
        assert_eq!(
            (&vitals["retry_at"], vitals["counts"]["failure"].as_u64()),
            (&Value::Null, Some(1))
        );
    }
}

#[tokio::test]
async fn a_wait_that_is_over_is_shown_no_more() {
    let (_alpha, _beta, app) = service(limited("retry-after-ms: 1200")).await;
    assert_eq!(ask(&app, "socket").await, BETA);
    let until = moment(&app.provider("alpha").await["retry_at"]);
    let over = async {
        // Nobody asks meanwhile; the status is a view that has no event to wait for.
        while app.provider("alpha").await["retry_at"] != Value::Null {}
    };
    crate::harness::soon("the wait to be over", over).await;
    assert!(SystemTime::now() >= until);
}

/// Opens alpha's breaker, or blocks it, by one answer, and gives until when.
async fn opened(fault: Vec<Act>, state: &str) -> (ScriptedProvider, TestApp, Value) {
    let alpha = ScriptedProvider::start(fault).await;
    let beta = ScriptedProvider::answering(BETA).await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    let breaker = &mut settings.providers[0].breaker;
    (breaker.consecutive_failures, breaker.blocked_for) = (1, 300 * MS);
    let app = TestApp::start(settings).await;
    assert_eq!(ask(&app, "socket").await, BETA);
    app.at_rest().await;
    let vitals = app.provider("alpha").await;
    assert_eq!(vitals["state"], state, "{vitals}");
    let until = vitals["retry_at"].clone();
    (alpha, app, until)
}

#[tokio::test]
async fn an_open_or_blocked_one_is_left_alone_for_as_long_as_it_asks() {
    let jitter = SECOND;
    for (status, code, state, longest) in [
        (503, "busy", "open", DAY),
        (500, "oops", "open", FIVE_MINUTES),
        (429, "insufficient_quota", "blocked", FIVE_MINUTES),
    ] {
        for (headers, wait) in [
            ("retry-after: 40", 40 * SECOND),
            ("retry-after: 1e9", longest),
            (&date(2 * DAY), longest),
        ] {
            let before = SystemTime::now();
            let (alpha, _app, until) = opened(refused(status, headers, code), state).await;
            let until = moment(&until);
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
async fn no_probe_comes_before_it_is_over_and_one_comes_then() {
    for (status, code, state) in [
        (503, "busy", "open"),
        (429, "insufficient_quota", "blocked"),
    ] {
        let fault = refused(status, "retry-after-ms: 1500", code);
        let (alpha, app, _) = opened(fault, state).await;
        alpha.usually(answer(ALPHA));
        alpha.until(|counts| counts.probes == 1).await;
        let calls = alpha.calls();
        let (asked, probed) = (calls[calls.len() - 2], calls[calls.len() - 1]);
        assert!(
            probed - asked >= 1500 * MS,
            "{status}: probed after {:?}",
            probed - asked
        );
        let closed = failsoft::domain::ProviderState::Closed;
        app.vitals("alpha", |vitals| vitals.state == closed).await;
        assert_eq!(ask(&app, "stream").await, ALPHA);
    }
}
