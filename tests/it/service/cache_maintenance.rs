//! Upkeep of the answer cache: removal, revalidation, warming and eviction.

use std::sync::Arc;
use std::time::Duration;

use failsoft::answer_cache::key::{CacheScope, cache_key};
use failsoft::config::{CacheSharing, Settings};
use serde_json::json;

use super::cache::{
    QUESTION, ask, ask_anew, cache_settings, save, service, shared_key, wait_for_saved,
};
use crate::harness::{TestApp, WsClient, eventually};

#[tokio::test]
async fn negative_feedback_removes_an_answer_from_the_cache() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask(QUESTION).await;
    assert_eq!(client.wait_for_done(&turn).await.text, "Saved.");
    for (value, left) in [("up", 1), ("down", 0)] {
        client
            .send_frame(&json!({ "type": "feedback", "turn": turn, "value": value }))
            .await;
        client.assert_no_pending_frame().await;
        wait_for_saved(&app, left).await;
    }
    assert_eq!(ask_anew(&app, QUESTION, 2).await["source"], "ai");
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn entries_of_another_version_are_ignored() {
    let (alpha, app) = service(CacheSharing::Always, |_| {}).await;
    save(&app, "Saved.", 0).await;
    let folder = app.shut_down().await;
    {
        let tree = sled::open(folder.path().join("data").join("store")).unwrap();
        let key = format!("a/{}", shared_key());
        let mut bytes = tree.get(&key).unwrap().unwrap().to_vec();
        bytes[0] += 1;
        tree.insert(&key, bytes).unwrap();
        tree.flush().unwrap();
    }
    let app = TestApp::start_in(cache_settings(&alpha, CacheSharing::Always, |_| {}), folder).await;
    assert_eq!(ask_anew(&app, QUESTION, 2).await["source"], "ai");
    assert_eq!(ask_anew(&app, QUESTION, 2).await["source"], "cache");
}

#[tokio::test]
async fn an_ageing_answer_is_served_and_revalidated_in_the_background() {
    let (alpha, app) = service(CacheSharing::Never, |settings| {
        settings.cache.revalidate = Duration::from_secs(4 * 3600);
    })
    .await;
    save(&app, "Saved.", 2).await;
    assert_eq!(ask_anew(&app, QUESTION, 1).await["text"], "Saved.");
    alpha.wait_for(|counts| counts.questions == 1).await;
    let store = Arc::clone(&app.chat_service.turns.store);
    let renewed =
        async { while store.get_answer(shared_key()).await.unwrap().unwrap().text == "Saved." {} };
    eventually("the renewed answer", renewed).await;
    let done = ask_anew(&app, QUESTION, 1).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("cache"), &json!("From nine to five."))
    );
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn configured_questions_are_warmed() {
    let (alpha, app) = service(CacheSharing::Never, |settings| {
        settings.cache.warm = vec![QUESTION.into()]
    })
    .await;
    alpha.wait_for(|counts| counts.questions == 1).await;
    wait_for_saved(&app, 1).await;
    assert_eq!(ask_anew(&app, QUESTION, 1).await["source"], "cache");
    assert_eq!(alpha.question_count(), 1);
    assert_eq!(app.status().await["answers"]["total"], 1);
}

#[tokio::test]
async fn the_least_recently_used_entry_is_evicted() {
    // Each answer is saved twice: for its own conversation and for all.
    let (alpha, app) = service(CacheSharing::Always, |settings| {
        settings.cache.max_entries = 4
    })
    .await;
    ask_anew(&app, "One?", 2).await;
    ask_anew(&app, "Two?", 4).await;
    assert_eq!(ask_anew(&app, "One?", 4).await["source"], "cache");
    let mut third = WsClient::open(&app).await;
    ask(&mut third, "Three?").await;
    // The entry of the own conversation is written last.
    let scopes = [
        CacheScope::Conversation(third.conversation.parse().unwrap()),
        CacheScope::Shared,
    ];
    let [own, shared] = scopes
        .map(|scope| cache_key(scope, &Settings::default().chat.system_prompt, "Three?").unwrap());
    let store = &app.chat_service.turns.store;
    eventually("the third to be saved", async {
        while store.get_answer(own).await.unwrap().is_none() {}
    })
    .await;
    assert!(store.get_answer(shared).await.unwrap().is_some());
    assert_eq!(store.answer_keys().await.unwrap().len(), 4);
    assert_eq!(
        ask(&mut WsClient::open(&app).await, "One?").await["source"],
        "cache"
    );
    assert_eq!(
        ask(&mut WsClient::open(&app).await, "Two?").await["source"],
        "ai"
    );
    assert_eq!(alpha.question_count(), 4);
}
