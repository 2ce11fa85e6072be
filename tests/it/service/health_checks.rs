//! Providers that nobody asks are looked into, and the status tells what was found.

use std::time::Duration;

use failsoft::config::{ProbeKind, Settings};
use failsoft::domain::{FaultKind, ProviderState};
use serde_json::json;

use crate::harness::{
    Act, Gate, ScriptedProvider, TestApp, WsClient, answer, listing, refusal, settings,
};

fn refused() -> Vec<Act> {
    let body = r#"{"error":{"message":"no","code":"invalid_api_key"}}"#;
    vec![refusal(401, "content-type: application/json\r\n", body)]
}

async fn checked(change: impl FnOnce(&mut Settings)) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("Alpha.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.providers[0].health.interval = Duration::from_millis(50);
    change(&mut settings);
    let app = TestApp::start(settings).await;
    (alpha, app)
}

#[tokio::test]
async fn what_a_listing_found_is_on_the_status_and_moves_no_breaker() {
    let (alpha, app) = checked(|_| ()).await;
    alpha.until(|counts| counts.listings >= 1).await;
    app.vitals("alpha", |vitals| vitals.checks >= 1).await;
    let told = app.provider("alpha").await;
    assert_eq!(
        (&told["healthy"], &told["reason"]),
        (&json!(true), &json!(null)),
        "{told}"
    );
    assert!(told["checked_at"].is_string(), "with nobody asking: {told}");

    alpha.lists(refused());
    app.vitals("alpha", |vitals| vitals.failed_checks >= 3)
        .await;
    let told = app.provider("alpha").await;
    let found = (&told["healthy"], &told["reason"], &told["state"]);
    assert_eq!(
        found,
        (&json!(false), &json!("refused"), &json!("closed")),
        "{told}"
    );
    assert_eq!(app.status().await["mode"], "normal");

    alpha.lists(vec![listing()]);
    app.vitals("alpha", |vitals| {
        vitals.last_check.is_some_and(|check| check.fault.is_none())
    })
    .await;
    let told = app.provider("alpha").await;
    assert_eq!(
        (&told["healthy"], &told["reason"]),
        (&json!(true), &json!(null)),
        "{told}"
    );
    assert_eq!(
        (alpha.asked(), alpha.counts().probes),
        (0, 0),
        "nothing that costs"
    );
}

#[tokio::test]
async fn what_was_found_expires() {
    let (alpha, app) =
        checked(|settings| settings.providers[0].health.expire = Duration::from_millis(1)).await;
    let gate = Gate::default();
    let mut held = vec![gate.hold()];
    held.extend(refused());
    alpha.lists(held);
    gate.open();
    app.vitals("alpha", |vitals| vitals.failed_checks >= 1)
        .await;
    // While the next check gets no answer, the last one is what is known.
    let failed = alpha.counts().listings;
    alpha
        .until(|counts| counts.listings > failed || counts.open == 1)
        .await;
    let vitals = app.vitals("alpha", |_| true).await;
    assert_eq!(
        vitals.last_check.and_then(|check| check.fault),
        Some(FaultKind::Unauthorized)
    );
    let told = app.provider("alpha").await;
    assert_eq!(
        (&told["healthy"], &told["reason"]),
        (&json!(true), &json!(null)),
        "{told}"
    );
}

#[tokio::test]
async fn a_listing_that_goes_well_closes_no_breaker() {
    let (alpha, app) = checked(|settings| {
        let provider = &mut settings.providers[0];
        provider.breaker.consecutive_failures = 1;
        provider.breaker.open_for = Duration::from_millis(50);
        provider.breaker.open_max = Duration::from_millis(50);
        provider.retry.same_provider = 0;
    })
    .await;
    alpha.until(|counts| counts.listings >= 1).await;
    alpha.usually(vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]);
    let mut client = WsClient::open(&app).await;
    assert_eq!(
        client.answered("What?").await.done.as_ref().unwrap()["source"],
        "fallback"
    );
    let before = app
        .vitals("alpha", |vitals| vitals.state != ProviderState::Closed)
        .await;
    // It could be listed all the while, and is not closed by it: only by an answer.
    alpha.until(|counts| counts.probes >= 5).await;
    let now = app.vitals("alpha", |_| true).await;
    assert!(now.state != ProviderState::Closed && now.checks > before.checks);
    alpha.usually(answer("Alpha."));
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    assert_eq!(client.answered("What?").await.text, "Alpha.");
}

#[tokio::test]
async fn nothing_is_asked_where_checks_are_off() {
    let (alpha, app) =
        checked(|settings| settings.providers[0].health.probe = ProbeKind::Off).await;
    let mut client = WsClient::open(&app).await;
    for _ in 0..5 {
        client.answered("What?").await;
    }
    assert_eq!((alpha.counts().listings, alpha.counts().probes), (0, 0));
}
