//! All metrics after a scripted session of five turns.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::metrics::{ALL, assert_turns, overloaded, scrape, service};
use crate::harness::{Act, Gate, ScriptedProvider, TestApp, WsClient, spoken, texts};

/// Runs five turns: an answer, a fail-over before the first token, one in mid-answer, a fallback,
/// and a stopped turn.
async fn session(alpha: &ScriptedProvider, beta: &ScriptedProvider, app: &TestApp) -> WsClient {
    let mut client = WsClient::open(app).await;
    assert_eq!(
        client.answered("Xyzzy, is all well?").await.text,
        "Plugh, says alpha."
    );
    alpha.once(overloaded());
    assert_eq!(
        client.answered("Xyzzy, who is next?").await.text,
        "Plugh, says beta."
    );

    let gate = Gate::default();
    alpha.once(vec![
        spoken(["A ", "torn ", "text"]),
        gate.hold(),
        Act::Reset,
    ]);
    let turn = client.ask("Xyzzy, in the middle?").await;
    client
        .shows(&turn, |shown| shown.text == "A torn text")
        .await;
    gate.open();
    assert_eq!(client.done(&turn).await.text, "Plugh, says beta.");

    alpha.once(overloaded());
    beta.once(overloaded());
    assert_eq!(
        client.answered("Xyzzy, nobody?").await.text,
        "Plugh, later."
    );

    alpha.once(vec![spoken(["A ", "beginning"]), Act::Silence]);
    let turn = client.ask("Xyzzy, stop?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    assert_turns(&scrape(app).await, 5.0, 1.0);
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    client.done(&turn).await;
    app.at_rest().await;
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
        metrics.counted("failsoft_turns_total"),
        [
            (vec!["stop", "ai"], 3.0),
            (vec!["stop", "fallback"], 1.0),
            (vec!["stopped", "ai"], 1.0)
        ]
    );
    assert_eq!(
        metrics.counted("failsoft_attempts_total"),
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
        metrics.counted("failsoft_restarts_total"),
        [(vec!["alpha", "reset", "beta"], 1.0)]
    );
    for (name, of_alpha, of_beta) in [
        ("failsoft_first_token_seconds_count", 3.0, 2.0),
        ("failsoft_attempt_seconds_count", 5.0, 3.0),
    ] {
        assert_eq!(
            metrics.counted(name),
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
                .counted(name)
                .iter()
                .all(|(_, seconds)| *seconds < 30.0),
            "{name}"
        );
    }

    for name in ["alpha", "beta"] {
        let labels = [("provider", name)];
        assert_eq!(metrics.get("failsoft_breaker_state", &labels), Some(0.0));
        let quality = metrics.get("failsoft_answer_quality", &labels);
        assert_eq!(quality, app.backend(name).status.borrow().quality_avg);
        assert!(
            quality.is_some_and(|score| score > 0.0 && score <= 1.0),
            "{quality:?}"
        );
    }
    assert_eq!(metrics.get("failsoft_sessions", &[]), Some(1.0));
    assert_eq!(
        metrics.get("failsoft_retry_budget", &[]),
        Some(11.0),
        "ten initial tokens, and one deposited by five turns"
    );

    let tokens = |provider, direction| {
        metrics.get(
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
        .get("failsoft_cost_usd_total", &[("provider", "alpha")])
        .unwrap();
    assert!(
        (counted_cost - cost).abs() < 1e-12,
        "{counted_cost} for {cost}"
    );
    assert_eq!(
        metrics.get("failsoft_cost_usd_total", &[("provider", "beta")]),
        None,
        "its prices are not configured"
    );

    // Another service in the same process has metrics of its own.
    let (_alpha, _beta, other) = service().await;
    let clients = (WsClient::open(&other).await, WsClient::open(&other).await);
    let metrics = scrape(&other).await;
    assert_turns(&metrics, 0.0, 0.0);
    assert_eq!(metrics.get("failsoft_sessions", &[]), Some(2.0));
    assert_eq!(metrics.counted("failsoft_attempts_total"), []);
    drop((client, clients));
}

#[tokio::test]
async fn the_dashboard_queries_exactly_the_existing_metrics() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries: Vec<_> = panels
        .flat_map(|panel| texts(panel["targets"].as_array().unwrap(), "expr"))
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
