//! Admin requests for the answer cache: clearing it, and warming it.

use serde_json::{Value, json};

use super::service::{ConfiguredService, configuration, provider};
use crate::harness::{ScriptedProvider, TestApp, WsClient, eventually};

const QUESTION: &str = "What are your opening hours?";

/// A configuration with the answer cache enabled, and these keys in `[cache]`.
fn with_cache(alpha: &ScriptedProvider, keys: &str) -> String {
    let text = configuration(&[provider("alpha", alpha, "")]);
    text.replace("enabled = false", &format!("enabled = true\n{keys}"))
}

async fn ask(app: &TestApp) -> Value {
    WsClient::open(app)
        .await
        .ask_and_wait(QUESTION)
        .await
        .done
        .clone()
        .unwrap()
}

async fn wait_until_saved(app: &TestApp, count: usize) {
    let store = &app.chat_service.turns.store;
    eventually("answers to be saved", async {
        while store.answer_keys().await.unwrap().len() != count {}
    })
    .await;
}

#[tokio::test]
async fn delete_cache_removes_all_answers() {
    let alpha = ScriptedProvider::answering("From nine to five.").await;
    let service = ConfiguredService::start(&with_cache(&alpha, "share = \"always\"")).await;
    let app = &service.app;
    assert_eq!(ask(app).await["source"], "ai");
    // One entry of the conversation, and a shared one.
    wait_until_saved(app, 2).await;
    assert_eq!(ask(app).await["source"], "cache");
    let answer = service.admin_request("DELETE", "/admin/cache").await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "removed": 2 }))
    );
    wait_until_saved(app, 0).await;
    assert_eq!(
        (ask(app).await["source"].clone(), alpha.question_count()),
        (json!("ai"), 2)
    );
    assert_eq!(
        service.admin_request("DELETE", "/admin/cache").await.status,
        200,
        "what is saved by then, or nothing"
    );
    assert!(
        service
            .audit_entries()
            .await
            .contains(&"cache.clear - done loopback".to_owned())
    );
}

#[tokio::test]
async fn warm_request_asks_the_configured_questions() {
    let alpha = ScriptedProvider::answering("From nine to five.").await;
    // The hours exclude the present, so that warming does not start by itself.
    let keys = format!(
        "share = \"never\"\nwarm = [\"{QUESTION}\", \"What else?\"]\nwarm_hours = \"00:00-00:01\""
    );
    let service = ConfiguredService::start(&with_cache(&alpha, "")).await;
    let app = &service.app;
    let answer = service.admin_request("POST", "/admin/cache/warm").await;
    assert!(
        answer.status == 400 && answer.body.contains("cache.warm"),
        "{}",
        answer.body
    );
    service.reload(&with_cache(&alpha, &keys)).await;
    let answer = service.admin_request("POST", "/admin/cache/warm").await;
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({ "questions": 2 }))
    );
    alpha.wait_for(|seen| seen.questions == 2).await;
    wait_until_saved(app, 2).await;
    let done = ask(app).await;
    assert_eq!(
        (&done["source"], &done["text"]),
        (&json!("cache"), &json!("From nine to five."))
    );
    assert_eq!(alpha.question_count(), 2);
    // Warming again asks the provider although the answers are fresh.
    assert_eq!(
        service
            .admin_request("POST", "/admin/cache/warm")
            .await
            .status,
        202
    );
    alpha.wait_for(|seen| seen.questions == 4).await;
    service
        .reload(&with_cache(&alpha, &keys).replace("enabled = true", "enabled = false"))
        .await;
    let answer = service.admin_request("POST", "/admin/cache/warm").await;
    assert!(
        answer.status == 400 && answer.body.contains("cache.enabled"),
        "{}",
        answer.body
    );
}
