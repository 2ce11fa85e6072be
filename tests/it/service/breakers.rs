//! Breaker states in the status: when a provider is no longer called, and how it recovers without
//! any visitor.

use std::time::{Duration, Instant};

use failsoft::config::Settings;
use failsoft::domain::ProviderState;
use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, eventually,
    full_answer, partial_answer, test_settings,
};

/// An open time that no test waits for.
const NEVER: Duration = Duration::from_secs(60);

fn busy() -> Vec<ScriptStep> {
    vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]
}

/// Starts alpha, which fails at first, and beta, which answers. Two failures open alpha's breaker.
async fn failing(
    change: impl FnOnce(&mut Settings),
) -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::start(busy()).await;
    let beta = ScriptedProvider::answering("Beta.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].breaker.consecutive_failures = 2;
    change(&mut settings);
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Asks until alpha's breaker is open.
async fn trip(client: &mut WsClient) {
    for _ in 0..2 {
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(
            shown.provider_path(),
            [
                ("alpha".into(), "".into()),
                ("beta".into(), "overloaded".into())
            ]
        );
    }
}

#[tokio::test]
async fn consecutive_failures_open_the_breaker_and_stop_calls() {
    let (alpha, beta, app) = failing(|settings| {
        settings.providers[0].breaker.open_for = NEVER;
        settings.providers[0].breaker.open_max = NEVER;
    })
    .await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(app.provider_status("alpha").await["state"], "closed");
    trip(&mut client).await;
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Open
    })
    .await;
    for _ in 0..3 {
        assert_eq!(
            client.ask_and_wait("What?").await.provider_path(),
            [("beta".into(), "".into())]
        );
    }
    assert_eq!(
        (
            alpha.question_count(),
            alpha.counts().probes,
            beta.question_count()
        ),
        (2, 0, 5)
    );
    let provider_status = app.provider_status("alpha").await;
    for (key, value) in [
        ("state", json!("open")),
        ("healthy", json!(false)),
        ("reason", json!("overloaded")),
        (
            "counts",
            json!({ "success": 0, "failure": 2, "restarts": 0 }),
        ),
    ] {
        assert_eq!(provider_status[key], value, "{key}");
    }
    assert!(
        provider_status["retry_at"].is_string() && provider_status["checked_at"].is_string(),
        "{provider_status}"
    );
}

#[tokio::test]
async fn the_breaker_closes_without_any_visitor() {
    let (alpha, beta, app) = failing(|_| ()).await;
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    // The probes fail, and reopen the breaker, while alpha is down.
    alpha.wait_for(|counts| counts.probes >= 3).await;
    alpha.script_default(full_answer("Alpha."));
    let recovered = Instant::now();
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Closed
    })
    .await;
    println!("closed {:?} after recovery", recovered.elapsed());
    assert!(
        recovered.elapsed() < Duration::from_secs(3),
        "open_max is 400 ms"
    );
    assert_eq!(
        (alpha.question_count(), beta.question_count()),
        (2, 2),
        "no turn served as a probe"
    );
    let shown = client.ask_and_wait("What?").await;
    assert_eq!((shown.text.as_str(), shown.attempts.len()), ("Alpha.", 1));
    assert_eq!(app.provider_status("alpha").await["healthy"], true);
}

#[tokio::test]
async fn while_half_open_one_probe_runs_and_visitors_use_another_provider() {
    let (alpha, beta, app) = failing(|_| ()).await;
    let gate = ScriptGate::default();
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    let mut held = vec![gate.wait_step()];
    held.extend(full_answer("Alpha."));
    alpha.script_default(held);
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::HalfOpen
    })
    .await;
    alpha.wait_for(|counts| counts.in_flight == 1).await;
    assert_eq!(app.provider_status("alpha").await["state"], "half_open");
    let probes = alpha.counts().probes;
    // A crowd that arrives during a probe is answered by the other provider.
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut visitor = WsClient::open(&app).await;
        let turn = visitor.ask("What?").await;
        crowd.push((visitor, turn));
    }
    for (visitor, turn) in &mut crowd {
        assert_eq!(
            visitor.wait_for_done(turn).await.provider_path(),
            [("beta".into(), "".into())]
        );
    }
    assert_eq!(
        (
            alpha.counts().in_flight,
            alpha.counts().probes,
            alpha.question_count()
        ),
        (1, probes, 2)
    );
    gate.let_one_through();
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Closed
    })
    .await;
    gate.let_one_through();
    assert_eq!(client.ask_and_wait("What?").await.text, "Alpha.");
    assert_eq!(beta.question_count(), 22);
}

#[tokio::test]
async fn without_recovery_probes_a_visitors_turn_is_the_probe() {
    let (alpha, _, app) =
        failing(|settings| settings.providers[0].health.recovery_probe = false).await;
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::HalfOpen
    })
    .await;
    // The probe fails: the same turn goes on to beta.
    let shown = client.ask_and_wait("What?").await;
    assert_eq!(
        shown.provider_path(),
        [
            ("alpha".into(), "".into()),
            ("beta".into(), "overloaded".into())
        ]
    );
    alpha.script_default(full_answer("Alpha."));
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::HalfOpen
    })
    .await;
    assert_eq!(client.ask_and_wait("What?").await.text, "Alpha.");
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Closed
    })
    .await;
    assert_eq!((alpha.question_count(), alpha.counts().probes), (4, 0));
}

#[tokio::test]
async fn three_mid_stream_failures_in_a_row_open_the_breaker() {
    let (alpha, _, app) = failing(|settings| {
        settings.providers[0].breaker.open_for = NEVER;
        settings.providers[0].breaker.open_max = NEVER;
    })
    .await;
    let mut client = WsClient::open(&app).await;
    let gate = ScriptGate::default();
    alpha.script_default(vec![
        partial_answer(["Torn "]),
        gate.wait_step(),
        ScriptStep::Reset,
    ]);
    for _ in 0..3 {
        let turn = client.ask("What?").await;
        client
            .wait_for_turn(&turn, |shown| !shown.text.is_empty())
            .await;
        gate.let_one_through();
        assert_eq!(client.wait_for_done(&turn).await.restarts.len(), 1);
    }
    assert_eq!(
        client.ask_and_wait("What?").await.provider_path(),
        [("beta".into(), "".into())]
    );
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (
            &provider_status["state"],
            &provider_status["counts"]["restarts"]
        ),
        (&json!("open"), &json!(3))
    );
}

#[tokio::test]
async fn an_open_breaker_stays_open_after_a_restart() {
    let (alpha, beta, app) = failing(|settings| {
        settings.providers[0].breaker.open_for = NEVER;
        settings.providers[0].breaker.open_max = NEVER;
    })
    .await;
    let mut client = WsClient::open(&app).await;
    trip(&mut client).await;
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Open
    })
    .await;
    let folder = app.shut_down().await;
    alpha.script_default(full_answer("Alpha."));
    let app = TestApp::start_in(test_settings(&[("alpha", &alpha), ("beta", &beta)]), folder).await;
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (&provider_status["state"], &provider_status["reason"]),
        (&json!("open"), &json!("overloaded"))
    );
    let mut client = WsClient::open(&app).await;
    assert_eq!(
        client.ask_and_wait("What?").await.provider_path(),
        [("beta".into(), "".into())]
    );
    assert_eq!(alpha.question_count(), 2);
}

#[tokio::test]
async fn a_provider_at_max_concurrency_is_skipped_without_counting_a_failure() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["One "]),
        gate.wait_step(),
        ScriptStep::Hang,
    ])
    .await;
    let beta = ScriptedProvider::answering("Beta.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].max_concurrent = 1;
    let app = TestApp::start(settings).await;
    let mut first = WsClient::open(&app).await;
    let mut second = WsClient::open(&app).await;
    let turn = first.ask("What?").await;
    first
        .wait_for_turn(&turn, |shown| shown.text == "One ")
        .await;
    assert_eq!(
        second.ask_and_wait("What?").await.provider_path(),
        [("beta".into(), "".into())]
    );
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (&provider_status["state"], &provider_status["in_flight"]),
        (&json!("closed"), &json!(1))
    );
    assert_eq!(provider_status["counts"]["failure"], 0);
    assert_eq!(app.status().await["mode"], "normal");
    first
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    first.wait_for_done(&turn).await;
    eventually("the permit to be released", app.wait_until_idle()).await;
    alpha.script_default(full_answer("Alpha."));
    assert_eq!(second.ask_and_wait("What?").await.text, "Alpha.");
}
