//! Health checks of idle providers, and their results in the status.

use std::time::Duration;

use failsoft::config::{ProbeKind, Settings};
use failsoft::domain::{FaultKind, ProviderState};
use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer,
    model_list, test_settings,
};

fn unauthorized() -> Vec<ScriptStep> {
    let body = r#"{"error":{"message":"no","code":"invalid_api_key"}}"#;
    vec![error_response(
        401,
        "content-type: application/json\r\n",
        body,
    )]
}

async fn service(change: impl FnOnce(&mut Settings)) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("Alpha.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.providers[0].health.interval = Duration::from_millis(50);
    change(&mut settings);
    let app = TestApp::start(settings).await;
    (alpha, app)
}

#[tokio::test]
async fn listing_results_are_in_the_status_and_leave_the_breaker_alone() {
    let (alpha, app) = service(|_| ()).await;
    alpha.wait_for(|counts| counts.listings >= 1).await;
    app.wait_for_status("alpha", |provider_status| provider_status.checks >= 1)
        .await;
    let provider = app.provider_status("alpha").await;
    assert_eq!(
        (&provider["healthy"], &provider["reason"]),
        (&json!(true), &json!(null)),
        "{provider}"
    );
    assert!(
        provider["checked_at"].is_string(),
        "checked without any turn: {provider}"
    );

    alpha.script_model_list(unauthorized());
    app.wait_for_status("alpha", |provider_status| {
        provider_status.failed_checks >= 3
    })
    .await;
    let provider = app.provider_status("alpha").await;
    let found = (
        &provider["healthy"],
        &provider["reason"],
        &provider["state"],
    );
    assert_eq!(
        found,
        (&json!(false), &json!("refused"), &json!("closed")),
        "{provider}"
    );
    assert_eq!(app.status().await["mode"], "normal");

    alpha.script_model_list(vec![model_list()]);
    app.wait_for_status("alpha", |provider_status| {
        provider_status
            .last_check
            .is_some_and(|check| check.fault.is_none())
    })
    .await;
    let provider = app.provider_status("alpha").await;
    assert_eq!(
        (&provider["healthy"], &provider["reason"]),
        (&json!(true), &json!(null)),
        "{provider}"
    );
    assert_eq!(
        (alpha.question_count(), alpha.counts().probes),
        (0, 0),
        "no paid calls"
    );
}

#[tokio::test]
async fn check_results_expire() {
    let (alpha, app) =
        service(|settings| settings.providers[0].health.expire = Duration::from_millis(1)).await;
    let gate = ScriptGate::default();
    let mut held = vec![gate.wait_step()];
    held.extend(unauthorized());
    alpha.script_model_list(held);
    gate.let_one_through();
    app.wait_for_status("alpha", |provider_status| {
        provider_status.failed_checks >= 1
    })
    .await;
    // Until the next check has a result, the provider_status keep the last one; the status lets it expire.
    let failed = alpha.counts().listings;
    alpha
        .wait_for(|counts| counts.listings > failed || counts.in_flight == 1)
        .await;
    let provider_status = app.wait_for_status("alpha", |_| true).await;
    assert_eq!(
        provider_status.last_check.and_then(|check| check.fault),
        Some(FaultKind::Unauthorized)
    );
    let provider = app.provider_status("alpha").await;
    assert_eq!(
        (&provider["healthy"], &provider["reason"]),
        (&json!(true), &json!(null)),
        "{provider}"
    );
}

#[tokio::test]
async fn a_successful_listing_does_not_close_a_breaker() {
    let (alpha, app) = service(|settings| {
        let provider = &mut settings.providers[0];
        provider.breaker.consecutive_failures = 1;
        provider.breaker.open_for = Duration::from_millis(50);
        provider.breaker.open_max = Duration::from_millis(50);
        provider.retry.same_provider = 0;
    })
    .await;
    alpha.wait_for(|counts| counts.listings >= 1).await;
    alpha.script_default(vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]);
    let mut client = WsClient::open(&app).await;
    assert_eq!(
        client.ask_and_wait("What?").await.done.as_ref().unwrap()["source"],
        "fallback"
    );
    let before = app
        .wait_for_status("alpha", |provider_status| {
            provider_status.state != ProviderState::Closed
        })
        .await;
    // Successful listings do not close the breaker; only an answer does.
    alpha.wait_for(|counts| counts.probes >= 5).await;
    let now = app.wait_for_status("alpha", |_| true).await;
    assert!(now.state != ProviderState::Closed && now.checks > before.checks);
    alpha.script_default(full_answer("Alpha."));
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Closed
    })
    .await;
    assert_eq!(client.ask_and_wait("What?").await.text, "Alpha.");
}

#[tokio::test]
async fn no_checks_are_made_when_disabled() {
    let (alpha, app) =
        service(|settings| settings.providers[0].health.probe = ProbeKind::Off).await;
    let mut client = WsClient::open(&app).await;
    for _ in 0..5 {
        client.ask_and_wait("What?").await;
    }
    assert_eq!((alpha.counts().listings, alpha.counts().probes), (0, 0));
}
