//! Conversations are forgotten: by order, and when they are older than they are kept.

use serde_json::{Value, json};

use super::service::{Configured, configuration, provider};
use crate::harness::{Gate, Heard, ScriptedProvider, WsClient, finish, say, soon, spoken, word};

/// What a client hears until the server closes: the types of the frames, with the code of an error, and the close.
async fn heard(client: &mut WsClient) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match client.hear().await {
            Heard::Frame(frame) => {
                let word = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
                all.push(format!(
                    "{} {}{}",
                    word("type"),
                    word("code"),
                    word("finish")
                ));
            }
            Heard::Closed(code) => {
                all.push(format!("close {}", code.unwrap_or_default()));
                return all;
            }
            Heard::Cut => panic!("cut after {all:?}"),
        }
    }
}

async fn service(alpha: &ScriptedProvider) -> Configured {
    let text = configuration(&[provider("alpha", alpha, "")]);
    Configured::start(&text.replace("enabled = false", "enabled = true\nshare = \"always\"")).await
}

#[tokio::test]
async fn a_conversation_is_deleted_under_those_who_are_in_it() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::answering("Whole.").await;
    let service = service(&alpha).await;
    let app = &service.app;
    let store = &app.lobby.turns.store;
    let mut client = WsClient::open(app).await;
    client.answered("First?").await;
    soon("answers to be saved", async {
        while store.answer_keys().await.unwrap().len() != 2 {}
    })
    .await;
    alpha.once(vec![
        spoken(["one "]),
        gate.hold(),
        say(&(word("two.") + &finish())),
    ]);
    let turn = client.ask("Second?").await;
    client.shows(&turn, |shown| shown.text == "one ").await;
    let id = client.conversation.clone();
    let mut tab = WsClient::join(app, &id).await;
    tab.shows(&turn, |shown| shown.text == "one ").await;
    let mut other = WsClient::open(app).await;
    other.answered("Mine?").await;

    let told = service
        .order("DELETE", &format!("/admin/conversations/{id}"))
        .await;
    assert_eq!(
        (told.status, told.json()),
        (200, json!({ "forgotten": true }))
    );
    for client in [&mut client, &mut tab] {
        assert_eq!(
            heard(client).await,
            ["done stopped", "error not_found", "close 1008"]
        );
    }
    alpha.until(|seen| seen.left == 1).await;
    let conversation = id.parse().unwrap();
    assert_eq!(store.conversation(conversation).await, Ok(None));
    assert_eq!(store.turns(conversation, None, 9).await, Ok(vec![]));
    // Of its saved answers none is left, also none that all were told.
    let mut again = WsClient::open(app).await;
    assert_eq!(
        again.answered("First?").await.done.as_ref().unwrap()["source"],
        "ai"
    );
    // Nobody else's conversation is touched, and the id begins anew for who has it.
    assert_eq!(other.answered("Still mine?").await.text, "Whole.");
    let mut back = WsClient::join(app, &id).await;
    assert_eq!(back.welcome["history"], json!([]));
    assert_eq!(back.answered("Anew?").await.text, "Whole.");
    assert_eq!(
        WsClient::join(app, &id).await.welcome["history"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    app.at_rest().await;
}

#[tokio::test]
async fn what_is_no_id_is_refused_and_what_is_not_known_is_forgotten_too() {
    let alpha = ScriptedProvider::answering("Whole.").await;
    let service = service(&alpha).await;
    for bad in ["x", "AAAAAAAAAAAAAAAAAAAAAAA", "%00", "..%2f..%2fetc"] {
        let told = service
            .order("DELETE", &format!("/admin/conversations/{bad}"))
            .await;
        assert!(
            told.status == 400 || told.status == 404,
            "{bad}: {}",
            told.status
        );
    }
    let id = WsClient::open(&service.app).await.conversation;
    let told = service
        .order("DELETE", &format!("/admin/conversations/{id}"))
        .await;
    assert_eq!(told.status, 200);
    let list = service.order("GET", "/admin/audit").await;
    assert!(
        !list.body.contains(&id) && list.body.contains("sha256 "),
        "{}",
        list.body
    );
    let entry = service
        .audit()
        .await
        .into_iter()
        .find(|entry| entry.contains("sha256"));
    assert!(entry.unwrap().ends_with("done loopback"));
}

#[tokio::test]
async fn a_conversation_that_is_older_than_it_is_kept_is_forgotten() {
    let alpha = ScriptedProvider::answering("Whole.").await;
    let service = service(&alpha).await;
    let app = &service.app;
    let mut old = WsClient::open(app).await;
    old.answered("Old?").await;
    // Until its log is gone, which is five seconds after its end, it counts as in use.
    let id = old.conversation.parse().unwrap();
    let text = configuration(&[
        provider("alpha", &alpha, ""),
        "[chat]\nretention = \"1s\"".into(),
    ]);
    service.reload(&text).await;
    assert_eq!(
        heard(&mut old).await.last().map(String::as_str),
        Some("close 1008")
    );
    assert_eq!(app.lobby.turns.store.turns(id, None, 9).await, Ok(vec![]));
    let empty: Value = WsClient::join(app, &old.conversation).await.welcome["history"].clone();
    assert_eq!(empty, json!([]));
}
