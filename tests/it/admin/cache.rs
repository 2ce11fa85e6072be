//! Saved answers, by order: removed, and asked for ahead of time.

use serde_json::{Value, json};

use super::service::{Configured, configuration, provider};
use crate::harness::{ScriptedProvider, TestApp, WsClient, soon};

const QUESTION: &str = "What are your opening hours?";

/// A configuration that saves answers, with these keys in `[cache]`.
fn saving(alpha: &ScriptedProvider, keys: &str) -> String {
    let text = configuration(&[provider("alpha", alpha, "")]);
    text.replace("enabled = false", &format!("enabled = true\n{keys}"))
}

async fn asked(app: &TestApp) -> Value {
    WsClient::open(app)
        .await
        .answered(QUESTION)
        .await
        .done
        .clone()
        .unwrap()
}

async fn until_saved(app: &TestApp, count: usize) {
    let store = &app.lobby.turns.store;
    soon("answers to be saved", async {
        while store.answer_keys().await.unwrap().len() != count {}
    })
    .await;
}

#[tokio::test]
async fn all_saved_answers_are_removed_at_once() {
    let alpha = ScriptedProvider::answering("From nine to five.").await;
    let service = Configured::start(&saving(&alpha, "share = \"always\"")).await;
    let app = &service.app;
    assert_eq!(asked(app).await["source"], "ai");
    // Its own, and the one for all.
    until_saved(app, 2).await;
    assert_eq!(asked(app).await["source"], "cache");
    let told = service.order("DELETE", "/admin/cache").await;
    assert_eq!((told.status, told.json()), (200, json!({ "removed": 2 })));
    until_saved(app, 0).await;
    assert_eq!(
        (asked(app).await["source"].clone(), alpha.asked()),
        (json!("ai"), 2)
    );
    assert_eq!(
        service.order("DELETE", "/admin/cache").await.status,
        200,
        "what is saved by then, or nothing"
    );
    assert!(
        service
            .audit()
            .await
            .contains(&"cache.clear - done loopback".to_owned())
    );
}

#[tokio::test]
async fn the_warm_questions_are_asked_when_the_operator_says_so() {
    let alpha = ScriptedProvider::answering("From nine to five.").await;
    // Not by themselves at this hour: the hours are over before they begin.
    let keys = format!(
        "share = \"never\"\nwarm = [\"{QUESTION}\", \"What else?\"]\nwarm_hours = \"00:00-00:01\""
    );
    let service = Configured::start(&saving(&alpha, "")).await;
    let app = &service.app;
    let told = service.order("POST", "/admin/cache/warm").await;
    assert!(
        told.status == 400 && told.body.contains("cache.warm"),
        "{}",
        told.body
    );
    service.reload(&saving(&alpha, &keys)).await;
    let told = service.order("POST", "/admin/cache/warm").await;
    assert_eq!((told.status, told.json()), (202, json!({ "questions": 2 })));
    alpha.until(|seen| seen.asked == 2).await;
    until_saved(app, 2).await;
    let done = asked(app).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("cache"), &json!("From nine to five."))
    );
    assert_eq!(alpha.asked(), 2);
    // Once more, however young the answers are.
    assert_eq!(service.order("POST", "/admin/cache/warm").await.status, 202);
    alpha.until(|seen| seen.asked == 4).await;
    service
        .reload(&saving(&alpha, &keys).replace("enabled = true", "enabled = false"))
        .await;
    let told = service.order("POST", "/admin/cache/warm").await;
    assert!(
        told.status == 400 && told.body.contains("cache.enabled"),
        "{}",
        told.body
    );
}
