//! All metrics after a scripted session of five turns.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::metrics::{ALL, assert_turns, overloaded, scrape, service};
use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, partial_answer, string_fields,
};

/// Runs five turns: an answer, a fail-over before the first token, one in mid-answer, a fallback,
/// and a stopped turn.
async fn session(alpha: &ScriptedProvider, beta: &ScriptedProvider, app: &TestApp) -> WsClient {
    let mut client = WsClient::open(app).await;
    assert_eq!(
        client.ask_and_wait("Xyzzy, is all well?").await.text,
        "Plugh, says alpha."
    );
    alpha.script_next(overloaded());
    assert_eq!(
        client.ask_and_wait("Xyzzy, who is next?").await.text,
        "Plugh, says beta."
    );

    let gate = ScriptGate::default();
    alpha.script_next(vec![
        partial_answer(["A ", "torn ", "text"]),
        gate.wait_step(),
        ScriptStep::Reset,
    ]);
    let turn = client.ask("Xyzzy, in the middle?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A torn text")
        .await;
    gate.let_one_through();
    assert_eq!(client.wait_for_done(&turn).await.text, "Plugh, says beta.");

    alpha.script_next(overloaded());
    beta.script_next(overloaded());
    assert_eq!(
        client.ask_and_wait("Xyzzy, nobody?").await.text,
        "Plugh, later."
    );

    alpha.script_next(vec![partial_answer(["A ", "beginning"]), ScriptStep::Hang]);
    let turn = client.ask("Xyzzy, stop?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A beginning")
        .await;
    assert_turns(&scrape(app).await, 5.0, 1.0);
    client
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    client.wait_for_done(&turn).await;
    app.wait_until_idle().await;
    client
}

#[tokio::test]
async fn every_metric_counts_the_session() {
    let (alpha, beta, app) = service().await;
    let client = session(&alpha, &beta, &app).await;
    let metrics = scrape(&app).await;
    let types: Vec<_> = metrics
        .types
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(types, ALL);

    assert_turns(&metrics, 5.0, 0.0);
    assert_eq!(
        metrics.nonzero_samples("failsoft_turns_total"),
        [
            (vec!["stop", "ai"], 3.0),
            (vec!["stop", "fallback"], 1.0),
            (vec!["stopped", "ai"], 1.0)
        ]
    );
    assert_eq!(
        metrics.nonzero_samples("failsoft_attempts_total"),
        [
            (vec!["ok", "alpha"], 1.0),
            (vec!["ok", "beta"], 2.0),
            (vec!["overloaded", "alpha"], 2.0),
            (vec!["overloaded", "beta"], 1.0),
            (vec!["reset", "alpha"], 1.0),
            (vec!["stopped", "alpha"], 1.0),
        ]
    );
    assert_eq!(
        metrics.nonzero_samples("failsoft_restarts_total"),
        [(vec!["alpha", "reset", "beta"], 1.0)]
    );
    for (name, of_alpha, of_beta) in [
        ("failsoft_first_token_seconds_count", 3.0, 2.0),
        ("failsoft_attempt_seconds_count", 5.0, 3.0),
    ] {
        assert_eq!(
            metrics.nonzero_samples(name),
            [(vec!["alpha"], of_alpha), (vec!["beta"], of_beta)],
            "{name}"
        );
    }
    for name in [
        "failsoft_first_token_seconds_sum",
        "failsoft_attempt_seconds_sum",
    ] {
        assert!(
            metrics
                .nonzero_samples(name)
                .iter()
                .all(|(_, seconds)| *seconds < 30.0),
            "{name}"
        );
    }

    for name in ["alpha", "beta"] {
        let labels = [("provider", name)];
        assert_eq!(metrics.value("failsoft_breaker_state", &labels), Some(0.0));
        let quality = metrics.value("failsoft_answer_quality", &labels);
        assert_eq!(quality, app.provider(name).status.borrow().quality_avg);
        assert!(
            quality.is_some_and(|score| score > 0.0 && score <= 1.0),
            "{quality:?}"
        );
    }
    assert_eq!(metrics.value("failsoft_sessions", &[]), Some(1.0));
    assert_eq!(
        metrics.value("failsoft_retry_budget", &[]),
        Some(11.0),
        "ten initial tokens, and one deposited by five turns"
    );

    let tokens = |provider, direction| {
        metrics.value(
            "failsoft_tokens_total",
            &[("provider", provider), ("direction", direction)],
        )
    };
    assert_eq!(
        (tokens("beta", "input"), tokens("beta", "output")),
        (Some(14.0), Some(10.0))
    );
    assert!(
        tokens("alpha", "input") > Some(7.0) && tokens("alpha", "output") > Some(5.0),
        "failed attempts are counted too"
    );
    let cost = (tokens("alpha", "input").unwrap() + 2.0 * tokens("alpha", "output").unwrap()) / 1e6;
    let counted_cost = metrics
        .value("failsoft_cost_usd_total", &[("provider", "alpha")])
        .unwrap();
    assert!(
        (counted_cost - cost).abs() < 1e-12,
        "{counted_cost} for {cost}"
    );
    assert_eq!(
        metrics.value("failsoft_cost_usd_total", &[("provider", "beta")]),
        None,
        "its prices are not configured"
    );

    // Another service in the same process has metrics of its own.
    let (_alpha, _beta, other) = service().await;
    let clients = (WsClient::open(&other).await, WsClient::open(&other).await);
    let metrics = scrape(&other).await;
    assert_turns(&metrics, 0.0, 0.0);
    assert_eq!(metrics.value("failsoft_sessions", &[]), Some(2.0));
    assert_eq!(metrics.nonzero_samples("failsoft_attempts_total"), []);
    drop((client, clients));
}

#[tokio::test]
async fn the_dashboard_queries_exactly_the_existing_metrics() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries: Vec<_> = panels
        .flat_map(|panel| string_fields(panel["targets"].as_array().unwrap(), "expr"))
        .collect();
    let name = regex::Regex::new(r"failsoft_\w+").unwrap();
    let (alpha, beta, app) = service().await;
    let client = session(&alpha, &beta, &app).await;
    let metrics = scrape(&app).await;
    let mut asked = BTreeSet::new();
    for found in queries.iter().flat_map(|query| name.find_iter(query)) {
        let metric = found.as_str().trim_end_matches("_bucket");
        assert!(
            metrics.types.contains_key(metric),
            "{metric} is in no scrape"
        );
        let histogram = metrics.types[metric] == "histogram";
        assert_eq!(histogram, metric != found.as_str(), "{}", found.as_str());
        asked.insert(metric);
    }
    assert!(
        asked.into_iter().eq(metrics.types.keys()),
        "the dashboard does not show every metric"
    );
    drop(client);
}
