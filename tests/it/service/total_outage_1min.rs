//! For a minute no provider answers under two hundred conversations: each gets a fallback answer at
//! once and a follow-up later, and no question is lost.
//!
//! As in `provider_outage_1min`, times are a twentieth of the defaults. The budget of follow-ups is
//! a share of a real minute's turns and cannot be scaled, so it is large here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::interval;

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, eventually, full_answer,
    string_fields, test_settings,
};

/// Stands for a second of the default configuration.
const SECOND: Duration = Duration::from_millis(1000 / 20);

const CONVERSATIONS: usize = 200;

const FALLBACK: &str = "Later, please.";

/// One visitor's view of the outage.
struct Observation {
    /// `None` if the visitor closed the page after the fallback answer.
    client: Option<WsClient>,
    conversation: String,
    question: String,
    turn: String,
    answered_after: Duration,
}

async fn service() -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let busy = vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let alpha = ScriptedProvider::start(busy).await;
    let beta = ScriptedProvider::start(vec![ScriptStep::Reset]).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.degradation.outbox = true;
    settings.degradation.fallback = FALLBACK.into();
    settings.retry.budget = 10.0;
    settings.limits.connections_per_ip = 2 * CONVERSATIONS;
    for provider in &mut settings.providers {
        provider.breaker.open_for = 10 * SECOND;
        provider.breaker.open_max = 25 * SECOND;
    }
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Asks and waits for the fallback answer. Every second visitor closes the page then.
async fn ask(mut client: WsClient, number: usize) -> Observation {
    let question = format!("Question {number}?");
    let asked = Instant::now();
    let turn = client.ask(&question).await;
    let shown = client.wait_for_done(&turn).await;
    let answered_after = asked.elapsed();
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["source"], &done["degraded"], &done["text"]),
        (&json!("fallback"), &json!(true), &json!(FALLBACK))
    );
    let conversation = client.conversation.clone();
    Observation {
        client: number.is_multiple_of(2).then_some(client),
        conversation,
        question,
        turn,
        answered_after,
    }
}

/// The questions that the provider got after its first `from` requests, with their counts.
fn questions_since(provider: &ScriptedProvider, from: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, request) in provider.requests().split_off(from) {
        let last = request["messages"].as_array().unwrap().last().unwrap()["content"].clone();
        *counts.entry(last.as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn two_hundred_conversations_lose_no_question() {
    let (alpha, beta, app) = service().await;
    let clients = join_all((0..CONVERSATIONS).map(|_| WsClient::open(&app))).await;
    // The conversations start one after the other throughout the minute.
    let mut ticks = interval(60 * SECOND / u32::try_from(CONVERSATIONS).unwrap());
    let mut asking = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        ticks.tick().await;
        asking.push(tokio::spawn(ask(client, number)));
    }
    let mut observations: Vec<_> = join_all(asking)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();

    // The limits hold also for questions that both providers were still tried for.
    let mut times: Vec<_> = observations
        .iter()
        .map(|seen| seen.answered_after)
        .collect();
    times.sort();
    let median = times[CONVERSATIONS / 2];
    let slowest = times[CONVERSATIONS - 1];
    println!("a fallback answer after {median:?} (median), {slowest:?} (slowest)");
    // Two hundred clients share this process, so the limit is wider than the 100 ms that
    // `service::outage` checks.
    assert!(median < Duration::from_millis(500), "{median:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // Five failures open each breaker; a few more calls were running at that moment.
    assert!(
        alpha.question_count() + beta.question_count() < 60,
        "{} and {}",
        alpha.question_count(),
        beta.question_count()
    );
    assert_eq!(
        app.chat_service
            .turns
            .store
            .pending_followups()
            .await
            .unwrap()
            .len(),
        CONVERSATIONS
    );
    let answers = app.status().await["answers"].clone();
    assert_eq!(
        (&answers["total"], &answers["degraded"]),
        (&json!(CONVERSATIONS), &json!(CONVERSATIONS))
    );

    let before_alpha = alpha.question_count();
    let before_beta = beta.question_count();
    for provider in [&alpha, &beta] {
        provider.script_default(full_answer("The real answer."));
    }
    let recovered = Instant::now();
    let staying = observations
        .iter_mut()
        .filter_map(|seen| Some((seen.client.as_mut()?, &seen.turn)));
    join_all(staying.map(|(client, turn)| async move {
        let late = client
            .wait_for_frame(|frame| frame["type"] == "followup")
            .await;
        assert_eq!(
            (&late["turn"], &late["text"]),
            (&json!(turn), &json!("The real answer."))
        );
    }))
    .await;
    // Visitors who had left find the follow-up in the history; the last ones may still be running.
    for seen in &observations {
        let followed_up = async {
            loop {
                let client = WsClient::join(&app, &seen.conversation).await;
                let history = client.welcome["history"].as_array().unwrap().clone();
                if !history[0]["followup"].is_null() {
                    return history;
                }
            }
        };
        let history = eventually("the follow-up", followed_up).await;
        assert_eq!(
            string_fields(&history, "question"),
            [seen.question.as_str()]
        );
        assert_eq!(
            (&history[0]["text"], &history[0]["degraded"]),
            (&json!(FALLBACK), &json!(true))
        );
        assert_eq!(
            string_fields(history.iter().map(|turn| &turn["followup"]), "text"),
            ["The real answer."]
        );
    }
    println!(
        "{CONVERSATIONS} follow-ups within {:?} of the recovery",
        recovered.elapsed()
    );
    assert_eq!(
        app.chat_service.turns.store.pending_followups().await,
        Ok(vec![])
    );
    // Each question was asked exactly once more.
    let mut late = questions_since(&alpha, before_alpha);
    for (question, count) in questions_since(&beta, before_beta) {
        *late.entry(question).or_default() += count;
    }
    let expected: BTreeMap<_, _> = observations
        .iter()
        .map(|seen| (seen.question.clone(), 1))
        .collect();
    assert_eq!(late, expected);
    app.wait_until_idle().await;
}
