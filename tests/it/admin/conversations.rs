//! The deletion of conversations: by an admin request, and after the retention period.

use serde_json::{Value, json};

use super::service::{ConfiguredService, configuration, provider};
use crate::harness::{
    ClientEvent, ScriptGate, ScriptedProvider, WsClient, eventually, partial_answer, send_text,
    stream_end, token_event,
};

/// Everything a client receives until the server closes: `type code finish` of each frame, then
/// the close code.
async fn events_until_close(client: &mut WsClient) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        match client.next_event().await {
            ClientEvent::Frame(frame) => {
                let word = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
                events.push(format!(
                    "{} {}{}",
                    word("type"),
                    word("code"),
                    word("finish")
                ));
            }
            ClientEvent::Closed(code) => {
                events.push(format!("close {}", code.unwrap_or_default()));
                return events;
            }
            ClientEvent::ConnectionLost => panic!("cut after {events:?}"),
        }
    }
}

async fn start_service(alpha: &ScriptedProvider) -> ConfiguredService {
    let text = configuration(&[provider("alpha", alpha, "")]);
    ConfiguredService::start(&text.replace("enabled = false", "enabled = true\nshare = \"always\""))
        .await
}

#[tokio::test]
async fn delete_ends_the_sessions_and_removes_turns_and_cached_answers() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::answering("Whole.").await;
    let service = start_service(&alpha).await;
    let app = &service.app;
    let store = &app.chat_service.turns.store;
    let mut client = WsClient::open(app).await;
    client.ask_and_wait("First?").await;
    eventually("answers to be saved", async {
        while store.answer_keys().await.unwrap().len() != 2 {}
    })
    .await;
    alpha.script_next(vec![
        partial_answer(["one "]),
        gate.wait_step(),
        send_text(&(token_event("two.") + &stream_end())),
    ]);
    let turn = client.ask("Second?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "one ")
        .await;
    let id = client.conversation.clone();
    let mut tab = WsClient::join(app, &id).await;
    tab.wait_for_turn(&turn, |shown| shown.text == "one ").await;
    let mut other = WsClient::open(app).await;
    other.ask_and_wait("Mine?").await;

    let answer = service
        .admin_request("DELETE", &format!("/admin/conversations/{id}"))
        .await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "forgotten": true }))
    );
    for client in [&mut client, &mut tab] {
        assert_eq!(
            events_until_close(client).await,
            ["done stopped", "error not_found", "close 1008"]
        );
    }
    alpha.wait_for(|seen| seen.client_disconnects == 1).await;
    let conversation = id.parse().unwrap();
    assert_eq!(store.conversation(conversation).await, Ok(None));
    assert_eq!(store.turns(conversation, None, 9).await, Ok(vec![]));
    // None of its cached answers is left, not even the shared ones.
    let mut again = WsClient::open(app).await;
    assert_eq!(
        again.ask_and_wait("First?").await.done.as_ref().unwrap()["source"],
        "ai"
    );
    // Other conversations are untouched, and the id can be used for a new conversation.
    assert_eq!(other.ask_and_wait("Still mine?").await.text, "Whole.");
    let mut back = WsClient::join(app, &id).await;
    assert_eq!(back.welcome["history"], json!([]));
    assert_eq!(back.ask_and_wait("Anew?").await.text, "Whole.");
    assert_eq!(
        WsClient::join(app, &id).await.welcome["history"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    app.wait_until_idle().await;
}

#[tokio::test]
async fn delete_rejects_invalid_ids_and_accepts_unknown_ones() {
    let alpha = ScriptedProvider::answering("Whole.").await;
    let service = start_service(&alpha).await;
    for bad in ["x", "AAAAAAAAAAAAAAAAAAAAAAA", "%00", "..%2f..%2fetc"] {
        let answer = service
            .admin_request("DELETE", &format!("/admin/conversations/{bad}"))
            .await;
        assert!(
            answer.status == 400 || answer.status == 404,
            "{bad}: {}",
            answer.status
        );
    }
    let id = WsClient::open(&service.app).await.conversation;
    let answer = service
        .admin_request("DELETE", &format!("/admin/conversations/{id}"))
        .await;
    assert_eq!(answer.status, 200);
    let list = service.admin_request("GET", "/admin/audit").await;
    assert!(
        !list.body.contains(&id) && list.body.contains("sha256 "),
        "{}",
        list.body
    );
    let entry = service
        .audit_entries()
        .await
        .into_iter()
        .find(|entry| entry.contains("sha256"));
    assert!(entry.unwrap().ends_with("done loopback"));
}

#[tokio::test]
async fn expired_conversations_are_deleted() {
    let alpha = ScriptedProvider::answering("Whole.").await;
    let service = start_service(&alpha).await;
    let app = &service.app;
    let mut old = WsClient::open(app).await;
    old.ask_and_wait("Old?").await;
    // The conversation counts as in use until its turn log is dropped, five seconds after the end.
    let id = old.conversation.parse().unwrap();
    let text = configuration(&[
        provider("alpha", &alpha, ""),
        "[chat]\nretention = \"1s\"".into(),
    ]);
    service.reload(&text).await;
    assert_eq!(
        events_until_close(&mut old)
            .await
            .last()
            .map(String::as_str),
        Some("close 1008")
    );
    assert_eq!(
        app.chat_service.turns.store.turns(id, None, 9).await,
        Ok(vec![])
    );
    let empty: Value = WsClient::join(app, &old.conversation).await.welcome["history"].clone();
    assert_eq!(empty, json!([]));
}
