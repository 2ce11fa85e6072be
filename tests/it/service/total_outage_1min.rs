//! For a minute no provider can be asked, under two hundred conversations: none loses its question, each gets a labelled answer at once and the
//! real one after.
//!
//! As in the minute of one provider, times are a twentieth of the defaults. What cannot be scaled is the budget of late answers, a share of a
//! real minute's turns: it is wide here, and its arithmetic is tested in the router.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::interval;

use crate::harness::{
    Act, ScriptedProvider, TestApp, WsClient, answer, refusal, settings, soon, texts,
};

/// What takes a second by default, takes this long here.
const SECOND: Duration = Duration::from_millis(1000 / 20);

const CONVERSATIONS: usize = 200;

const LABELLED: &str = "Later, please.";

/// What one visitor saw of the outage.
struct Seen {
    client: Option<WsClient>,
    conversation: String,
    question: String,
    turn: String,
    after: Duration,
}

async fn service() -> (ScriptedProvider, ScriptedProvider, TestApp) {
    let busy = vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let (alpha, beta) = (
        ScriptedProvider::start(busy).await,
        ScriptedProvider::start(vec![Act::Reset]).await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.degradation.outbox = true;
    settings.degradation.fallback = LABELLED.into();
    settings.retry.budget = 10.0;
    settings.limits.connections_per_ip = 2 * CONVERSATIONS;
    for provider in &mut settings.providers {
        provider.breaker.open_for = 10 * SECOND;
        provider.breaker.open_max = 25 * SECOND;
    }
    let app = TestApp::start(settings).await;
    (alpha, beta, app)
}

/// Asks. Every second one closes the page on the labelled answer.
async fn ask(mut client: WsClient, number: usize) -> Seen {
    let question = format!("Question {number}?");
    let asked = Instant::now();
    let turn = client.ask(&question).await;
    let shown = client.done(&turn).await;
    let after = asked.elapsed();
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["source"], &done["degraded"], &done["text"]),
        (&json!("fallback"), &json!(true), &json!(LABELLED))
    );
    let conversation = client.conversation.clone();
    Seen {
        client: number.is_multiple_of(2).then_some(client),
        conversation,
        question,
        turn,
        after,
    }
}

fn asked_late(provider: &ScriptedProvider, from: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, request) in provider.requests().split_off(from) {
        let last = request["messages"].as_array().unwrap().last().unwrap()["content"].clone();
        *counts.entry(last.as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn of_two_hundred_conversations_none_loses_its_question() {
    let (alpha, beta, app) = service().await;
    let clients = join_all((0..CONVERSATIONS).map(|_| WsClient::open(&app))).await;
    // They come one after the other, all through the minute.
    let mut every = interval(60 * SECOND / u32::try_from(CONVERSATIONS).unwrap());
    let mut asking = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        every.tick().await;
        asking.push(tokio::spawn(ask(client, number)));
    }
    let mut seen: Vec<_> = join_all(asking)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();

    // "At once" for all: also for those whose question was still tried at both providers.
    let mut times: Vec<_> = seen.iter().map(|one| one.after).collect();
    times.sort();
    let (median, slowest) = (times[CONVERSATIONS / 2], times[CONVERSATIONS - 1]);
    println!("a labelled answer after {median:?} (median), {slowest:?} (slowest)");
    // Two hundred clients and the service share this process; the hundred milliseconds of one who asks are measured where nobody else does.
    assert!(median < Duration::from_millis(500), "{median:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // The breakers kept the visitors away from who cannot answer: five failures opened each, and some were under way at that moment.
    assert!(
        alpha.asked() + beta.asked() < 60,
        "{} and {}",
        alpha.asked(),
        beta.asked()
    );
    assert_eq!(
        app.lobby
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

    let (before_alpha, before_beta) = (alpha.asked(), beta.asked());
    for provider in [&alpha, &beta] {
        provider.usually(answer("The real answer."));
    }
    let mended = Instant::now();
    let staying = seen
        .iter_mut()
        .filter_map(|one| Some((one.client.as_mut()?, &one.turn)));
    join_all(staying.map(|(client, turn)| async move {
        let late = client.until(|frame| frame["type"] == "followup").await;
        assert_eq!(
            (&late["turn"], &late["text"]),
            (&json!(turn), &json!("The real answer."))
        );
    }))
    .await;
    // Those who had left find theirs in the history; the last in the line may still be under way.
    for one in &seen {
        let looking = async {
            loop {
                let client = WsClient::join(&app, &one.conversation).await;
                let kept = client.welcome["history"].as_array().unwrap().clone();
                if !kept[0]["followup"].is_null() {
                    return kept;
                }
            }
        };
        let kept = soon("the late answer", looking).await;
        assert_eq!(texts(&kept, "question"), [one.question.as_str()]);
        assert_eq!(
            (&kept[0]["text"], &kept[0]["degraded"]),
            (&json!(LABELLED), &json!(true))
        );
        assert_eq!(
            texts(kept.iter().map(|turn| &turn["followup"]), "text"),
            ["The real answer."]
        );
    }
    println!(
        "{CONVERSATIONS} late answers within {:?} of the mending",
        mended.elapsed()
    );
    assert_eq!(app.lobby.turns.store.pending_followups().await, Ok(vec![]));
    // Each question was asked once more, and once only.
    let mut late = asked_late(&alpha, before_alpha);
    for (question, count) in asked_late(&beta, before_beta) {
        *late.entry(question).or_default() += count;
    }
    let expected: BTreeMap<_, _> = seen.iter().map(|one| (one.question.clone(), 1)).collect();
    assert_eq!(late, expected);
    app.at_rest().await;
}
