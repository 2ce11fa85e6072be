//! Provider selection by strategy, budget and hedging, and the minimum that counts as an answer.

use std::time::Duration;

use failsoft::config::{Prices, RoutingStrategy, Settings};
use failsoft::provider::status::ProviderStatus;
use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer,
    last_http_chunk, partial_answer, send_text, sse_event, stream_end, stream_head, test_settings,
};

/// Starts alpha, which is preferred, with the given script, and beta, which answers.
async fn two(alpha: Vec<ScriptStep>) -> (ScriptedProvider, ScriptedProvider, Settings) {
    let alpha = ScriptedProvider::start(alpha).await;
    let beta = ScriptedProvider::answering("Beta.").await;
    let settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    (alpha, beta, settings)
}

/// A client that accepts frames of hedged attempts.
async fn racing(app: &TestApp) -> WsClient {
    let mut client = WsClient::open(app).await;
    client.page.allows_races = true;
    client
}

fn counts(provider_status: &ProviderStatus) -> (u64, u64) {
    (provider_status.successes, provider_status.failures)
}

#[tokio::test]
async fn a_hedge_answers_for_a_silent_provider_whose_call_is_cancelled() {
    let (alpha, beta, mut settings) = two(vec![ScriptStep::Hang]).await;
    settings.routing.hedge_after = Duration::from_millis(100);
    let app = TestApp::start(settings).await;
    let mut client = racing(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!(
        (
            shown.text.as_str(),
            shown.restarts.len(),
            shown.drafts.len()
        ),
        ("Beta.", 0, 0)
    );
    assert_eq!(shown.outcomes(), ["stopped", "ok"]);
    assert_eq!(shown.done.as_ref().unwrap()["provider"], "beta");
    alpha
        .wait_for(|counts| counts.client_disconnects == 1 && counts.in_flight == 0)
        .await;
    app.wait_until_idle().await;
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    assert_eq!(
        counts(&app.wait_for_status("alpha", |_| true).await),
        (0, 0),
        "a cancelled attempt is not counted"
    );
    assert_eq!(counts(&app.wait_for_status("beta", |_| true).await), (1, 0));
}

#[tokio::test]
async fn a_hedge_is_cancelled_if_the_first_provider_answers_first() {
    let gate = ScriptGate::default();
    let mut script = vec![gate.wait_step()];
    script.extend(full_answer("Alpha."));
    let (alpha, beta, mut settings) = two(script).await;
    beta.script_default(vec![ScriptStep::Hang]);
    settings.routing.hedge_after = Duration::from_millis(100);
    let app = TestApp::start(settings).await;
    let mut client = racing(&app).await;
    let turn = client.ask("What?").await;
    beta.wait_for(|counts| counts.in_flight == 1).await;
    gate.let_one_through();
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.provider_path()),
        ("Alpha.", vec![("alpha".into(), "".into())])
    );
    assert_eq!(shown.outcomes(), ["ok", "stopped"]);
    beta.wait_for(|counts| counts.client_disconnects == 1 && counts.in_flight == 0)
        .await;
    app.wait_until_idle().await;
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    assert_eq!(
        counts(&app.wait_for_status("beta", |_| true).await),
        (0, 0),
        "a cancelled attempt is not counted"
    );
}

#[tokio::test]
async fn a_spent_budget_skips_the_provider_also_after_a_restart() {
    let (alpha, beta, mut settings) = two(full_answer("Alpha.")).await;
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 1.0,
    });
    // One answer of twelve tokens exceeds the budget.
    settings.providers[0].daily_budget_usd = Some(0.000_01);
    let app = TestApp::start(settings.clone()).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.ask_and_wait("What?").await.text, "Alpha.");
    let provider_status = app
        .wait_for_status("alpha", |provider_status| {
            provider_status.budget_resets_at.is_some()
        })
        .await;
    assert!(
        !provider_status.spend_today.estimated,
        "the provider reported its usage"
    );
    assert_eq!(
        client.ask_and_wait("What?").await.provider_path(),
        [("beta".into(), "".into())]
    );
    let provider = app.provider_status("alpha").await;
    for (key, value) in [
        ("state", json!("closed")),
        ("reason", json!("budget_spent")),
        (
            "counts",
            json!({ "success": 1, "failure": 0, "restarts": 0 }),
        ),
    ] {
        assert_eq!(provider[key], value, "{key}");
    }
    let is_midnight = provider["retry_at"]
        .as_str()
        .is_some_and(|at| at.contains("T00:00:00"));
    assert!(
        is_midnight,
        "until midnight UTC, not {}",
        provider["retry_at"]
    );
    let problems = app.status().await["problems"].to_string();
    assert!(
        problems.contains("alpha") && problems.contains("budget"),
        "{problems}"
    );

    let app = TestApp::start_in(settings, app.shut_down().await).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.ask_and_wait("What?").await.text, "Beta.");
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 2));
    assert_eq!(app.provider_status("alpha").await["reason"], "budget_spent");
}

#[tokio::test]
async fn unreported_usage_is_estimated_and_charged_to_the_budget() {
    let finish = sse_event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    let end = finish + &sse_event("[DONE]") + &last_http_chunk();
    let (_alpha, _beta, mut settings) =
        two(vec![partial_answer(["Al", "pha."]), send_text(&end)]).await;
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 1.0,
    });
    settings.providers[0].daily_budget_usd = Some(0.000_001);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!(
        (
            shown.text.as_str(),
            &shown.done.as_ref().unwrap()["usage"]["estimated"]
        ),
        ("Alpha.", &json!(true))
    );
    let provider_status = app
        .wait_for_status("alpha", |provider_status| {
            provider_status.budget_resets_at.is_some()
        })
        .await;
    assert!(provider_status.spend_today.estimated);
    assert_eq!(client.ask_and_wait("What?").await.text, "Beta.");
}

#[tokio::test]
async fn weighted_routing_keeps_a_conversation_with_its_provider() {
    let busy = vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let (alpha, beta, mut settings) = two(busy).await;
    settings.routing.strategy = RoutingStrategy::Weighted;
    settings.providers[0].weight = 1_000_000;
    settings.providers[0].retry.same_provider = 0;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.ask_and_wait("What?").await.text, "Beta.");
    alpha.script_default(full_answer("Alpha."));
    let asked = alpha.question_count();
    for _ in 0..5 {
        let shown = client.ask_and_wait("And?").await;
        assert_eq!(
            (shown.text.as_str(), shown.attempts.len()),
            ("Beta.", 1),
            "the conversation stays with beta despite the weights"
        );
    }
    assert_eq!((alpha.question_count(), beta.question_count()), (asked, 6));
    // Other conversations are assigned by weight, a million to one.
    assert_eq!(
        WsClient::open(&app).await.ask_and_wait("What?").await.text,
        "Alpha."
    );
    // The conversation moves when its provider fails, and stays with the new one.
    beta.stop_listening().await;
    assert_eq!(client.ask_and_wait("And?").await.text, "Alpha.");
    beta.listen();
    assert_eq!(
        client.ask_and_wait("And?").await.text,
        "Alpha.",
        "the conversation has moved"
    );
}

/// The answers end regularly but are empty, blank or too short.
#[tokio::test]
async fn unusable_answers_fail_over_to_the_next_provider() {
    for (words, min_chars) in [(&[][..], 1), (&[" \n", "\t "], 1), (&["Well", "."], 6)] {
        let script = if words.is_empty() {
            vec![send_text(&(stream_head() + &stream_end()))]
        } else {
            vec![
                partial_answer(words.iter().copied()),
                send_text(&stream_end()),
            ]
        };
        let (alpha, beta, mut settings) = two(script).await;
        settings.providers[0].retry.same_provider = 0;
        settings.quality.min_chars = min_chars;
        beta.script_default(full_answer("Beta answers."));
        let app = TestApp::start(settings).await;
        let mut client = WsClient::open(&app).await;
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(
            (shown.text.as_str(), shown.drafts.len()),
            ("Beta answers.", 0),
            "{words:?}"
        );
        assert_eq!(
            shown.provider_path(),
            [
                ("alpha".into(), "".into()),
                ("beta".into(), "malformed".into())
            ]
        );
        assert_eq!(
            (alpha.question_count(), shown.outcomes()[1].as_str()),
            (1, "ok")
        );
        app.wait_until_idle().await;
        assert_eq!(
            app.provider_status("alpha").await["counts"]["failure"],
            1,
            "{words:?}"
        );
    }
}
