//! The answer cache: which turns are answered from it, and which call a provider.

use failsoft::answer_cache::key::{CacheScope, cache_key};
use failsoft::config::{CacheSharing, Settings};
use failsoft::domain::Timestamp;
use failsoft::store::{CacheKey, CachedAnswer};
use serde_json::{Value, json};

use crate::harness::{
    ScriptGate, ScriptedProvider, TestApp, WsClient, eventually, full_answer, partial_answer,
    question_body, stream_end, test_settings, unique_message_id,
};

pub(super) const QUESTION: &str = "What are your opening hours?";

/// A service with one provider and an enabled answer cache.
pub(super) async fn service(
    share: CacheSharing,
    change: impl FnOnce(&mut Settings),
) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("From nine to five.").await;
    let app = TestApp::start(cache_settings(&alpha, share, change)).await;
    (alpha, app)
}

pub(super) fn cache_settings(
    alpha: &ScriptedProvider,
    share: CacheSharing,
    change: impl FnOnce(&mut Settings),
) -> Settings {
    let mut settings = test_settings(&[("alpha", alpha)]);
    settings.cache.enabled = true;
    settings.cache.share = share;
    settings.chat.visitor_options = true;
    settings.degradation.fallback = "Later, please.".into();
    change(&mut settings);
    settings
}

/// Asks in this conversation and returns the `done` frame.
pub(super) async fn ask(client: &mut WsClient, question: &str) -> Value {
    client.ask_and_wait(question).await.done.clone().unwrap()
}

/// Asks in a new conversation, waits until `saved` answers are cached in all, and returns the
/// `done` frame.
pub(super) async fn ask_anew(app: &TestApp, question: &str, saved: usize) -> Value {
    let done = ask(&mut WsClient::open(app).await, question).await;
    wait_for_saved(app, saved).await;
    done
}

pub(super) async fn wait_for_saved(app: &TestApp, count: usize) {
    let store = &app.chat_service.turns.store;
    eventually("answers to be saved", async {
        while store.answer_keys().await.unwrap().len() != count {}
    })
    .await;
}

/// Asks with options and returns the `done` frame.
async fn ask_with(client: &mut WsClient, options: Value) -> Value {
    let id = unique_message_id();
    client
        .send_frame(
            &json!({ "type": "send", "client_msg_id": id, "text": QUESTION, "options": options }),
        )
        .await;
    let accepted = client
        .wait_for_frame(|frame| frame["client_msg_id"] == *id && frame["type"] != "start")
        .await;
    let turn = accepted["turn"]
        .as_str()
        .unwrap_or_else(|| panic!("{accepted}"))
        .to_owned();
    client.wait_for_done(&turn).await.done.clone().unwrap()
}

pub(super) fn shared_key() -> CacheKey {
    cache_key(
        CacheScope::Shared,
        &Settings::default().chat.system_prompt,
        QUESTION,
    )
    .unwrap()
}

/// Writes an answer with an age of `hours` into the store.
pub(super) async fn save(app: &TestApp, text: &str, hours: u64) {
    let saved = Timestamp(app.chat_service.turns.clock.wall().0 - hours * 3_600_000);
    let answer = CachedAnswer {
        text: text.into(),
        saved_at: saved,
        conversation: None,
        turn: None,
        is_context_free: true,
        asker_count: 0,
    };
    app.chat_service
        .turns
        .store
        .put_answer(shared_key(), answer)
        .await
        .unwrap();
    // The service loads the index of cached answers at its start, before this one was written.
    app.chat_service.turns.answer_cache.load().await;
}

#[tokio::test]
async fn a_fresh_cached_answer_is_streamed_without_calling_a_provider() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    assert_eq!(ask_anew(&app, QUESTION, 2).await["source"], "ai");
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait(" what are your OPENING hours ").await;
    assert_eq!(
        (
            shown.text.as_str(),
            shown.token_frames,
            shown.attempts.len()
        ),
        ("From nine to five.", 1, 0)
    );
    let done = shown.done.clone().unwrap();
    assert_eq!(
        (&done["source"], &done["degraded"]),
        (&json!("cache"), &json!(false))
    );
    assert_eq!(
        (&done["provider"], &done["attempts"]),
        (&Value::Null, &json!(0))
    );
    assert!(
        done["age_s"].as_u64().unwrap() < 30 && done["first_token_ms"].is_u64(),
        "{done}"
    );
    // The cached answer becomes part of the history and of the next prompt.
    let welcome = WsClient::join(&app, &client.conversation).await.welcome;
    let turn = &welcome["history"][0];
    assert_eq!(
        (&turn["source"], &turn["text"]),
        (&json!("cache"), &json!("From nine to five."))
    );
    assert_eq!(ask(&mut client, "And on Sundays?").await["source"], "ai");
    let (_, request) = alpha.requests().pop().unwrap();
    assert_eq!(request["messages"].as_array().unwrap().len(), 4);
    assert_eq!(alpha.question_count(), 2);
    let answer = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": QUESTION }))
        .send()
        .await;
    assert_eq!(
        (answer.header("x-source"), answer.header("x-degraded")),
        ("cache", "false")
    );
    let answers = app.status().await["answers"].clone();
    assert_eq!(
        (&answers["total"], &answers["degraded"]),
        (&json!(4), &json!(0))
    );
}

#[tokio::test]
async fn the_openai_api_neither_reads_nor_writes_the_cache() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    let ask = || app.completion_request(&question_body(QUESTION)).send();
    assert_eq!(ask().await.status, 200);
    assert_eq!(ask_anew(&app, QUESTION, 2).await["source"], "ai");
    assert_eq!(ask().await.header("x-source"), "ai");
    assert_eq!(alpha.question_count(), 3);
}

#[tokio::test]
async fn unshared_answers_are_not_served_to_other_conversations() {
    let (alpha, app) = service(CacheSharing::Never, |_| {}).await;
    for saved in 1..=4 {
        assert_eq!(ask_anew(&app, QUESTION, saved).await["source"], "ai");
    }
    assert_eq!(alpha.question_count(), 4);
    alpha.stop_listening().await;
    assert_ne!(ask_anew(&app, QUESTION, 4).await["source"], "stale_cache");
}

#[tokio::test]
async fn a_question_of_three_conversations_is_served_from_the_cache_to_the_third() {
    let (alpha, app) = service(CacheSharing::Repeated, |_| {}).await;
    for (saved, source) in [(2, "ai"), (3, "ai"), (3, "cache"), (3, "cache")] {
        assert_eq!(ask_anew(&app, QUESTION, saved).await["source"], source);
    }
    assert_eq!(alpha.question_count(), 2);
    // A question with personal data is not shared, however many conversations ask it.
    for saved in 4..=7 {
        assert_eq!(
            ask_anew(&app, "My name is Ann Smith, hello!", saved).await["source"],
            "ai"
        );
    }
    // The count of askers survives a restart.
    let folder = app.shut_down().await;
    let app = TestApp::start_in(
        cache_settings(&alpha, CacheSharing::Repeated, |_| {}),
        folder,
    )
    .await;
    assert_eq!(ask_anew(&app, QUESTION, 7).await["source"], "cache");
}

#[tokio::test]
async fn a_stale_answer_is_served_only_in_an_outage_and_with_its_age() {
    let (alpha, app) = service(CacheSharing::Never, |_| {}).await;
    save(&app, "From eight to four.", 2).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(ask(&mut client, QUESTION).await["source"], "ai");
    alpha.stop_listening().await;
    let done = ask_anew(&app, QUESTION, 2).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("stale_cache"), &json!("From eight to four."))
    );
    assert_eq!(
        (&done["degraded"], done["age_s"].as_u64().unwrap() / 60),
        (&json!(true), 120)
    );
    // The visitor's own answer is younger. No cached answer replaces a provider's for other
    // questions.
    let done = ask(&mut client, QUESTION).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("stale_cache"), &json!("From nine to five."))
    );
    assert_ne!(ask(&mut client, "Xyzzy?").await["source"], "stale_cache");
    // An answer older than a day is not used.
    save(&app, "From eight to four.", 25).await;
    assert_ne!(ask_anew(&app, QUESTION, 2).await["source"], "stale_cache");
}

#[tokio::test]
async fn visitors_can_bypass_or_refresh_the_cache() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    assert_eq!(
        ask_with(&mut WsClient::open(&app).await, json!({ "cache": "use" })).await["text"],
        "Saved."
    );
    let mut uncached = WsClient::open(&app).await;
    assert_eq!(
        ask_with(&mut uncached, json!({ "cache": "off" })).await["source"],
        "ai"
    );
    assert_eq!(ask_anew(&app, QUESTION, 1).await["text"], "Saved.");
    alpha.script_default(full_answer("From ten."));
    let mut refresh = WsClient::open(&app).await;
    assert_eq!(
        ask_with(&mut refresh, json!({ "cache": "refresh" })).await["text"],
        "From ten."
    );
    wait_for_saved(&app, 2).await;
    let done = ask_anew(&app, QUESTION, 2).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("cache"), &json!("From ten."))
    );
    assert_eq!(alpha.question_count(), 2);
}

#[tokio::test]
async fn cache_options_are_ignored_unless_allowed() {
    let (alpha, app) = service(CacheSharing::Always, |settings| {
        settings.chat.visitor_options = false
    })
    .await;
    save(&app, "Saved.", 0).await;
    assert_eq!(
        ask_with(&mut WsClient::open(&app).await, json!({ "cache": "off" })).await["text"],
        "Saved."
    );
    assert_eq!(alpha.question_count(), 0);
}

#[tokio::test]
async fn a_retry_calls_a_provider() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask(QUESTION).await;
    assert_eq!(client.wait_for_done(&turn).await.text, "Saved.");
    client
        .send_frame(&json!({ "type": "retry", "turn": turn, "client_msg_id": "again" }))
        .await;
    let accepted = client
        .wait_for_frame(|frame| frame["type"] == "accepted")
        .await;
    let again = accepted["turn"].as_str().unwrap().to_owned();
    assert_eq!(
        client.wait_for_done(&again).await.text,
        "From nine to five."
    );
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn concurrent_identical_questions_make_one_call() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    let gate = ScriptGate::default();
    alpha.script_next(vec![
        partial_answer(["From ", "nine."]),
        gate.wait_step(),
        crate::harness::send_text(&stream_end()),
    ]);
    let mut first = WsClient::open(&app).await;
    let asked = first.ask(QUESTION).await;
    alpha.wait_for(|counts| counts.questions == 1).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut other = WsClient::open(&app).await;
        let turn = other.ask(QUESTION).await;
        others.push((other, turn));
    }
    gate.let_one_through();
    assert_eq!(first.wait_for_done(&asked).await.text, "From nine.");
    for (mut other, turn) in others {
        let done = other.wait_for_done(&turn).await.done.clone().unwrap();
        assert_eq!(
            (&done["source"], &done["text"]),
            (&json!("cache"), &json!("From nine."))
        );
    }
    assert_eq!(alpha.question_count(), 1);
}
