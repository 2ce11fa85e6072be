//! Reloads that add, change and remove providers while turns run.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::service::{ConfiguredService, configuration, provider};
use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, WsClient, eventually, partial_answer, send_text,
    stream_end, token_event,
};

/// An answer of two words, and a third one after the gate opens.
fn halting(gate: &ScriptGate) -> Vec<ScriptStep> {
    vec![
        partial_answer(["one ", "two "]),
        gate.wait_step(),
        send_text(&(token_event("three.") + &stream_end())),
    ]
}

pub async fn halting_provider(gate: &ScriptGate) -> ScriptedProvider {
    ScriptedProvider::start(halting(gate)).await
}

/// Waits until a provider's actor and its factory have been dropped.
async fn wait_until_dropped(
    mut provider_status: tokio::sync::watch::Receiver<failsoft::provider::status::ProviderStatus>,
) {
    eventually("the end of a provider's actor", async {
        while provider_status.changed().await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn changing_providers_under_a_hundred_streams_cuts_no_turn() {
    const TURNS: usize = 100;
    let gate = ScriptGate::default();
    let alpha = halting_provider(&gate).await;
    let beta = halting_provider(&gate).await;
    let gamma = halting_provider(&gate).await;
    let delta = ScriptedProvider::answering("From delta.").await;
    let strategy = "[routing]\nstrategy = \"round_robin\"".to_owned();
    let entry = |name: &str, scripted: &ScriptedProvider| provider(name, scripted, "");
    let before = [
        strategy.clone(),
        entry("alpha", &alpha),
        entry("beta", &beta),
        entry("gamma", &gamma),
    ];
    let service = ConfiguredService::start(&configuration(&before)).await;
    let app = &service.app;
    let mut clients = Vec::new();
    for _ in 0..TURNS {
        let mut client = WsClient::open(app).await;
        let turn = client.ask("Count.").await;
        clients.push((client, turn));
    }
    for (client, turn) in &mut clients {
        client
            .wait_for_turn(turn, |shown| shown.text == "one two ")
            .await;
    }
    let asked = [&alpha, &beta, &gamma].map(|provider| provider.question_count());
    assert!(
        asked.iter().sum::<usize>() == TURNS && asked.iter().all(|asked| *asked > 0),
        "{asked:?}"
    );
    let [old_alpha, old_beta] = ["alpha", "beta"].map(|name| app.provider(name).status.clone());

    // alpha is removed, beta gets another key, delta is added, gamma stays.
    let after = [
        strategy,
        provider("beta", &beta, "api_key = \"sk-other\"\nweight = 3"),
        entry("gamma", &gamma),
        entry("delta", &delta),
    ];
    let report = service.reload(&configuration(&after)).await;
    let changed = json!({ "added": ["delta"], "changed": ["beta"], "removed": ["alpha"] });
    assert_eq!(
        (&report["providers"], &report["needs_restart"]),
        (&changed, &json!([]))
    );
    let names = |status: &Value| {
        let providers = status["providers"].as_array().unwrap().clone();
        providers
            .iter()
            .map(|provider| provider["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&app.status().await), ["beta", "gamma", "delta"]);
    assert_eq!(
        old_beta.borrow().in_flight,
        asked[1],
        "it keeps its running turns"
    );
    // The next turns go to the current providers: each of the three gets one.
    let mut later = Vec::new();
    for _ in 0..3 {
        let mut client = WsClient::open(app).await;
        let turn = client.ask("Count on.").await;
        later.push((client, turn));
    }
    delta.wait_for(|seen| seen.questions == 1).await;
    assert_eq!(
        alpha.question_count(),
        asked[0],
        "nobody is led to the one that went"
    );
    // Reload again, and add alpha back before its last answers have ended.
    let back = [entry("gamma", &gamma), entry("alpha", &alpha)];
    let report = service.reload(&configuration(&back)).await;
    assert_eq!(
        report["providers"],
        json!({ "added": ["alpha"], "changed": [], "removed": ["beta", "delta"] })
    );

    (0..TURNS + 3).for_each(|_| gate.let_one_through());
    for (client, turn) in &mut clients {
        let shown = client.wait_for_done(turn).await;
        assert_eq!(
            (
                shown.text.as_str(),
                shown.drafts.len(),
                shown.attempts.len()
            ),
            ("one two three.", 0, 1)
        );
        let done = shown.done.as_ref().unwrap();
        assert_eq!(
            (&done["finish"], &done["source"]),
            (&json!("stop"), &json!("ai")),
            "{done}"
        );
    }
    for (client, turn) in &mut later {
        let shown = client.wait_for_done(turn).await;
        let done = shown.done.as_ref().unwrap();
        assert_eq!(
            (&done["finish"], shown.drafts.len()),
            (&json!("stop"), 0),
            "{done}"
        );
    }
    wait_until_dropped(old_alpha).await;
    wait_until_dropped(old_beta).await;
    app.wait_until_idle().await;
    // The new alpha does not share the counters of the old one.
    assert_eq!(app.provider_status("alpha").await["counts"]["success"], 0);
    assert_eq!(app.provider_status("gamma").await["state"], "closed");
    let mut client = WsClient::open(app).await;
    let turn = client.ask("Again.").await;
    gate.let_one_through();
    assert_eq!(
        client.wait_for_done(&turn).await.done.as_ref().unwrap()["provider"],
        "gamma"
    );
}

#[tokio::test]
async fn reload_with_a_valid_key_reopens_a_blocked_provider_within_a_second() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let beta = ScriptedProvider::answering("From beta.").await;
    alpha.require_key("sk-good");
    let service = ConfiguredService::start(&configuration(&[])).await;
    let key = service.folder().join("key");
    std::fs::write(&key, "sk-bad").unwrap();
    let secret = format!("api_key = \"file:{}\"", key.display());
    let text = configuration(&[
        provider("alpha", &alpha, &secret),
        provider("beta", &beta, ""),
    ]);
    // The service started as a demo: configured providers replace the simulated ones.
    let report = service.reload(&text).await;
    assert_eq!(report["providers"]["added"], json!(["alpha", "beta"]));
    let app = &service.app;
    let mut client = WsClient::open(app).await;
    assert_eq!(client.welcome["demo"], false);
    assert_eq!(client.ask_and_wait("Who?").await.text, "From beta.");
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == failsoft::domain::ProviderState::Blocked
    })
    .await;
    // The configuration file is unchanged; the key file that it names has another key.
    std::fs::write(&key, "sk-good\n").unwrap();
    let started = Instant::now();
    assert_eq!(
        service.reload(&text).await["providers"]["changed"],
        json!(["alpha"])
    );
    assert_eq!(client.ask_and_wait("Who now?").await.text, "From alpha.");
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(app.provider_status("alpha").await["state"], "closed");
    // Reloading the same configuration changes nothing, and resets no counters.
    let counted = app.provider_status("alpha").await["counts"].clone();
    assert_eq!(
        service.reload(&text).await["providers"],
        json!({ "added": [], "changed": [], "removed": [] })
    );
    assert_eq!(app.provider_status("alpha").await["counts"], counted);
}

#[tokio::test]
async fn removing_all_providers_keeps_them_and_reports_a_restart() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let service = ConfiguredService::start(&configuration(&[provider("alpha", &alpha, "")])).await;
    let report = service
        .reload(&configuration(&["[chat]\ntitle = \"New\"".into()]))
        .await;
    assert_eq!(
        (&report["needs_restart"], &report["providers"]["removed"]),
        (&json!(["providers"]), &json!([]))
    );
    let mut client = WsClient::open(&service.app).await;
    assert_eq!(
        (&client.welcome["demo"], &client.welcome["title"]),
        (&json!(false), &json!("New"))
    );
    assert_eq!(client.ask_and_wait("Who?").await.text, "From alpha.");
}

#[tokio::test]
async fn metrics_keep_the_counters_of_removed_providers() {
    let gate = ScriptGate::default();
    let alpha = halting_provider(&gate).await;
    let beta = ScriptedProvider::answering("From beta.").await;
    let service = ConfiguredService::start(&configuration(&[provider("alpha", &alpha, "")])).await;
    let app = &service.app;
    let mut client = WsClient::open(app).await;
    let turn = client.ask("Count.").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "one two ")
        .await;
    let metrics = async || app.request("GET", "/metrics").send().await.body;
    let labels = async || {
        let text = metrics().await;
        ["alpha", "beta"].map(|name| text.contains(&format!("provider=\"{name}\"")))
    };
    assert_eq!(labels().await, [true, false]);
    service
        .reload(&configuration(&[provider("beta", &beta, "")]))
        .await;
    assert_eq!(labels().await, [true, true]);
    WsClient::open(app).await.ask_and_wait("Who?").await;
    // alpha's last answer ends after its removal.
    gate.let_one_through();
    assert_eq!(client.wait_for_done(&turn).await.text, "one two three.");
    app.wait_until_idle().await;
    let lines = [
        "failsoft_attempts_total{outcome=\"ok\",provider=\"alpha\"} 1",
        "failsoft_attempts_total{outcome=\"ok\",provider=\"beta\"} 1",
        "failsoft_tokens_total{direction=\"output\",provider=\"alpha\"} 5",
    ];
    let counted = async {
        // The tokens are counted by the actor, which may be informed a moment later.
        loop {
            let text = metrics().await;
            if lines.iter().all(|line| text.contains(line)) {
                return text;
            }
        }
    };
    let text = eventually("all of it in the metrics", counted).await;
    // Gauges exist for configured providers only.
    assert!(
        !text.contains("failsoft_breaker_state{provider=\"alpha\"}"),
        "{text}"
    );
}
