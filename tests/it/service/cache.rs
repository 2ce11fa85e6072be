//! Saved answers: who is told one instead of a provider being asked, and who is not.

use std::sync::Arc;
use std::time::Duration;

use failsoft::answer_cache::policy::key::{CacheScope, cache_key};
use failsoft::config::{CacheSharing, Settings};
use failsoft::domain::Timestamp;
use failsoft::store::{CacheKey, CachedAnswer};
use serde_json::{Value, json};

use crate::harness::{
    Gate, ScriptedProvider, TestApp, WsClient, answer, finish, fresh_id, question, settings, soon,
    spoken,
};

const QUESTION: &str = "What are your opening hours?";

/// A service that saves answers, with one provider.
async fn service(
    share: CacheSharing,
    change: impl FnOnce(&mut Settings),
) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("From nine to five.").await;
    let app = TestApp::start(saving(&alpha, share, change)).await;
    (alpha, app)
}

fn saving(
    alpha: &ScriptedProvider,
    share: CacheSharing,
    change: impl FnOnce(&mut Settings),
) -> Settings {
    let mut settings = settings(&[("alpha", alpha)]);
    settings.cache.enabled = true;
    settings.cache.share = share;
    settings.chat.visitor_options = true;
    settings.degradation.fallback = "Later, please.".into();
    change(&mut settings);
    settings
}

/// Asks in this conversation; gives the `done`.
async fn told(client: &mut WsClient, question: &str) -> Value {
    client.answered(question).await.done.clone().unwrap()
}

/// Asks in a new conversation, and waits until what is to be saved is: so many answers in all.
async fn told_anew(app: &TestApp, question: &str, saved: usize) -> Value {
    let done = told(&mut WsClient::open(app).await, question).await;
    until_saved(app, saved).await;
    done
}

async fn until_saved(app: &TestApp, count: usize) {
    let store = &app.lobby.turns.store;
    soon("answers to be saved", async {
        while store.answer_keys().await.unwrap().len() != count {}
    })
    .await;
}

/// Asks with options; gives the `done`.
async fn told_with(client: &mut WsClient, options: Value) -> Value {
    let id = fresh_id();
    client
        .say(&json!({ "type": "send", "client_msg_id": id, "text": QUESTION, "options": options }))
        .await;
    let accepted = client
        .until(|frame| frame["client_msg_id"] == *id && frame["type"] != "start")
        .await;
    let turn = accepted["turn"]
        .as_str()
        .unwrap_or_else(|| panic!("{accepted}"))
        .to_owned();
    client.done(&turn).await.done.clone().unwrap()
}

fn shared() -> CacheKey {
    cache_key(
        CacheScope::Shared,
        &Settings::default().chat.system_prompt,
        QUESTION,
    )
    .unwrap()
}

/// Saves an answer that nobody asked for, as old as that.
async fn save(app: &TestApp, text: &str, hours: u64) {
    let saved = Timestamp(app.lobby.turns.clock.wall().0 - hours * 3_600_000);
    let (conversation, turn) = (None, None);
    let answer = CachedAnswer {
        text: text.into(),
        saved_at: saved,
        conversation,
        turn,
        is_context_free: true,
        asker_count: 0,
    };
    app.lobby
        .turns
        .store
        .put_answer(shared(), answer)
        .await
        .unwrap();
    // It was not there when the service looked for what is saved.
    app.lobby.turns.answer_cache.load().await;
}

#[tokio::test]
async fn a_fresh_answer_asks_no_provider_and_is_streamed_as_any() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    assert_eq!(told_anew(&app, QUESTION, 2).await["source"], "ai");
    let mut client = WsClient::open(&app).await;
    let shown = client.answered(" what are your OPENING hours ").await;
    assert_eq!(
        (shown.text.as_str(), shown.tokens, shown.attempts.len()),
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
    // The history has it as it was, and the model hears of it.
    let welcome = WsClient::join(&app, &client.conversation).await.welcome;
    let turn = &welcome["history"][0];
    assert_eq!(
        (&turn["source"], &turn["text"]),
        (&json!("cache"), &json!("From nine to five."))
    );
    assert_eq!(told(&mut client, "And on Sundays?").await["source"], "ai");
    let (_, request) = alpha.requests().pop().unwrap();
    assert_eq!(request["messages"].as_array().unwrap().len(), 4);
    assert_eq!(alpha.asked(), 2);
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
async fn programs_neither_read_nor_write_saved_answers() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    let ask = || app.completion(&question(QUESTION)).send();
    assert_eq!(ask().await.status, 200);
    assert_eq!(told_anew(&app, QUESTION, 2).await["source"], "ai");
    assert_eq!(ask().await.header("x-source"), "ai");
    assert_eq!(alpha.asked(), 3);
}

#[tokio::test]
async fn a_visitors_own_answer_is_not_told_to_another() {
    let (alpha, app) = service(CacheSharing::Never, |_| {}).await;
    for saved in 1..=4 {
        assert_eq!(told_anew(&app, QUESTION, saved).await["source"], "ai");
    }
    assert_eq!(alpha.asked(), 4);
    alpha.refuse().await;
    assert_ne!(told_anew(&app, QUESTION, 4).await["source"], "stale_cache");
}

#[tokio::test]
async fn what_was_asked_from_three_conversations_is_told_to_the_third() {
    let (alpha, app) = service(CacheSharing::Repeated, |_| {}).await;
    for (saved, source) in [(2, "ai"), (3, "ai"), (3, "cache"), (3, "cache")] {
        assert_eq!(told_anew(&app, QUESTION, saved).await["source"], source);
    }
    assert_eq!(alpha.asked(), 2);
    // Whose words they are counts more than how many say them.
    for saved in 4..=7 {
        assert_eq!(
            told_anew(&app, "My name is Ann Smith, hello!", saved).await["source"],
            "ai"
        );
    }
    // Also when the process that counted is gone.
    let folder = app.stopped().await;
    let app = TestApp::in_folder(saving(&alpha, CacheSharing::Repeated, |_| {}), folder).await;
    assert_eq!(told_anew(&app, QUESTION, 7).await["source"], "cache");
}

#[tokio::test]
async fn an_old_answer_is_told_in_an_outage_alone_and_with_its_age() {
    let (alpha, app) = service(CacheSharing::Never, |_| {}).await;
    save(&app, "From eight to four.", 2).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(told(&mut client, QUESTION).await["source"], "ai");
    alpha.refuse().await;
    let done = told_anew(&app, QUESTION, 2).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("stale_cache"), &json!("From eight to four."))
    );
    assert_eq!(
        (&done["degraded"], done["age_s"].as_u64().unwrap() / 60),
        (&json!(true), 120)
    );
    // One's own is younger, and a template is less.
    let done = told(&mut client, QUESTION).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("stale_cache"), &json!("From nine to five."))
    );
    assert_ne!(told(&mut client, "Xyzzy?").await["source"], "stale_cache");
    // A day is too old.
    save(&app, "From eight to four.", 25).await;
    assert_ne!(told_anew(&app, QUESTION, 2).await["source"], "stale_cache");
}

#[tokio::test]
async fn visitors_may_ask_for_an_answer_of_today() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    assert_eq!(
        told_with(&mut WsClient::open(&app).await, json!({ "cache": "use" })).await["text"],
        "Saved."
    );
    let mut off = WsClient::open(&app).await;
    assert_eq!(
        told_with(&mut off, json!({ "cache": "off" })).await["source"],
        "ai"
    );
    assert_eq!(told_anew(&app, QUESTION, 1).await["text"], "Saved.");
    alpha.usually(answer("From ten."));
    let mut refresh = WsClient::open(&app).await;
    assert_eq!(
        told_with(&mut refresh, json!({ "cache": "refresh" })).await["text"],
        "From ten."
    );
    until_saved(&app, 2).await;
    let done = told_anew(&app, QUESTION, 2).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("cache"), &json!("From ten."))
    );
    assert_eq!(alpha.asked(), 2);
}

#[tokio::test]
async fn where_visitors_may_not_choose_their_options_do_not_count() {
    let (alpha, app) = service(CacheSharing::Always, |settings| {
        settings.chat.visitor_options = false
    })
    .await;
    save(&app, "Saved.", 0).await;
    assert_eq!(
        told_with(&mut WsClient::open(&app).await, json!({ "cache": "off" })).await["text"],
        "Saved."
    );
    assert_eq!(alpha.asked(), 0);
}

#[tokio::test]
async fn a_retry_asks_a_provider() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask(QUESTION).await;
    assert_eq!(client.done(&turn).await.text, "Saved.");
    client
        .say(&json!({ "type": "retry", "turn": turn, "client_msg_id": "again" }))
        .await;
    let accepted = client.until(|frame| frame["type"] == "accepted").await;
    let again = accepted["turn"].as_str().unwrap().to_owned();
    assert_eq!(client.done(&again).await.text, "From nine to five.");
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn a_thumb_down_takes_an_answer_off_the_shelf() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask(QUESTION).await;
    assert_eq!(client.done(&turn).await.text, "Saved.");
    for (value, left) in [("up", 1), ("down", 0)] {
        client
            .say(&json!({ "type": "feedback", "turn": turn, "value": value }))
            .await;
        client.quiet().await;
        until_saved(&app, left).await;
    }
    assert_eq!(told_anew(&app, QUESTION, 2).await["source"], "ai");
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn an_answer_of_another_version_is_as_if_it_were_not_there() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    let folder = app.stopped().await;
    {
        let tree = sled::open(folder.path().join("data").join("store")).unwrap();
        let key = format!("a/{}", shared());
        let mut bytes = tree.get(&key).unwrap().unwrap().to_vec();
        bytes[0] += 1;
        tree.insert(&key, bytes).unwrap();
        tree.flush().unwrap();
    }
    let app = TestApp::in_folder(saving(&alpha, CacheSharing::Always, |_| {}), folder).await;
    assert_eq!(told_anew(&app, QUESTION, 2).await["source"], "ai");
    assert_eq!(told_anew(&app, QUESTION, 2).await["source"], "cache");
}

#[tokio::test]
async fn many_who_ask_at_once_ask_once() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    let gate = Gate::default();
    alpha.once(vec![
        spoken(["From ", "nine."]),
        gate.hold(),
        crate::harness::say(&finish()),
    ]);
    let mut first = WsClient::open(&app).await;
    let asked = first.ask(QUESTION).await;
    alpha.until(|counts| counts.asked == 1).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut other = WsClient::open(&app).await;
        let turn = other.ask(QUESTION).await;
        others.push((other, turn));
    }
    gate.open();
    assert_eq!(first.done(&asked).await.text, "From nine.");
    for (mut other, turn) in others {
        let done = other.done(&turn).await.done.clone().unwrap();
        assert_eq!(
            (&done["source"], &done["text"]),
            (&json!("cache"), &json!("From nine."))
        );
    }
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn an_answer_that_ages_is_renewed_behind() {
    let (alpha, app) = service(CacheSharing::Never, |settings| {
        settings.cache.revalidate = Duration::from_secs(4 * 3600);
    })
    .await;
    save(&app, "Saved.", 2).await;
    assert_eq!(told_anew(&app, QUESTION, 1).await["text"], "Saved.");
    alpha.until(|counts| counts.asked == 1).await;
    let store = Arc::clone(&app.lobby.turns.store);
    let renewed =
        async { while store.get_answer(shared()).await.unwrap().unwrap().text == "Saved." {} };
    soon("the renewed answer", renewed).await;
    let done = told_anew(&app, QUESTION, 1).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("cache"), &json!("From nine to five."))
    );
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn the_operators_questions_are_answered_before_anybody_asks() {
    let (alpha, app) = service(CacheSharing::Never, |settings| {
        settings.cache.warm = vec![QUESTION.into()]
    })
    .await;
    alpha.until(|counts| counts.asked == 1).await;
    until_saved(&app, 1).await;
    assert_eq!(told_anew(&app, QUESTION, 1).await["source"], "cache");
    assert_eq!(alpha.asked(), 1);
    assert_eq!(app.status().await["answers"]["total"], 1);
}

#[tokio::test]
async fn of_more_than_may_be_saved_the_one_used_longest_ago_goes() {
    // Each is saved twice: for its own conversation, and for all.
    let (alpha, app) = service(CacheSharing::Always, |settings| {
        settings.cache.max_entries = 4
    })
    .await;
    told_anew(&app, "One?", 2).await;
    told_anew(&app, "Two?", 4).await;
    assert_eq!(told_anew(&app, "One?", 4).await["source"], "cache");
    let mut third = WsClient::open(&app).await;
    told(&mut third, "Three?").await;
    // For its own conversation it is saved last.
    let scopes = [
        CacheScope::Conversation(third.conversation.parse().unwrap()),
        CacheScope::Shared,
    ];
    let [own, shared] = scopes
        .map(|scope| cache_key(scope, &Settings::default().chat.system_prompt, "Three?").unwrap());
    let store = &app.lobby.turns.store;
    soon("the third to be saved", async {
        while store.get_answer(own).await.unwrap().is_none() {}
    })
    .await;
    assert!(store.get_answer(shared).await.unwrap().is_some());
    assert_eq!(store.answer_keys().await.unwrap().len(), 4);
    assert_eq!(
        told(&mut WsClient::open(&app).await, "One?").await["source"],
        "cache"
    );
    assert_eq!(
        told(&mut WsClient::open(&app).await, "Two?").await["source"],
        "ai"
    );
    assert_eq!(alpha.asked(), 4);
}
