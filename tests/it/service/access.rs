//! Access control: origins of browsers, API keys of programs, and ids of conversations.

use failsoft::config::{Secret, Settings};
use serde_json::{Value, json};

use crate::harness::{ScriptedProvider, TestApp, WsClient, test_settings, try_upgrade};

async fn service(change: impl FnOnce(&mut Settings)) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("Come in.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    change(&mut settings);
    (alpha, TestApp::start(settings).await)
}

#[tokio::test]
async fn browsers_connect_only_from_the_own_or_an_allowed_origin() {
    let (_alpha, app) =
        service(|settings| settings.server.allowed_origins = vec!["https://good.com".into()]).await;
    let own = format!("http://127.0.0.1:{}", app.port);
    for origin in [own.as_str(), "https://good.com"] {
        assert_eq!(
            try_upgrade(&app, &[("origin", origin)]).await,
            Ok(()),
            "{origin}"
        );
    }
    let other_port = format!("http://127.0.0.1:{}", app.port ^ 1);
    let secure = format!("https://127.0.0.1:{}", app.port);
    for origin in [
        "null",
        "",
        "https://evil.example",
        "https://good.com.evil.net",
        "https://good.com:8443",
        "https://good.com/",
        "http://good.com",
        "https://GOOD.com.",
        "http://127.0.0.1",
        other_port.as_str(),
        secure.as_str(),
    ] {
        assert_eq!(
            try_upgrade(&app, &[("origin", origin)]).await,
            Err(403),
            "{origin}"
        );
    }
    // The origin has to match the host that the page itself was reached by.
    let named = [("host", "chat.example"), ("origin", "http://chat.example")];
    assert_eq!(try_upgrade(&app, &named).await, Ok(()));
    let crossed = [("host", "chat.example"), ("origin", own.as_str())];
    assert_eq!(try_upgrade(&app, &crossed).await, Err(403));
}

#[tokio::test]
async fn with_a_public_url_only_its_origin_is_accepted() {
    let (_alpha, app) =
        service(|settings| settings.server.public_url = Some("https://chat.example.com".into()))
            .await;
    assert_eq!(
        try_upgrade(&app, &[("origin", "https://chat.example.com")]).await,
        Ok(())
    );
    let address = format!("http://127.0.0.1:{}", app.port);
    assert_eq!(try_upgrade(&app, &[("origin", &address)]).await, Err(403));
}

#[tokio::test]
async fn local_programs_need_no_key_and_proxied_ones_do() {
    let (_alpha, app) = service(|_| ()).await;
    assert_eq!(try_upgrade(&app, &[]).await, Ok(()));
    for elsewhere in [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
        ("host", "rebound.example"),
    ] {
        assert_eq!(
            try_upgrade(&app, &[elsewhere]).await,
            Err(401),
            "{elsewhere:?}"
        );
    }
    let (_alpha, app) = service(|settings| {
        settings.server.api_keys = vec![Secret::new("key-one"), Secret::new("key-two")]
    })
    .await;
    for key in ["Bearer key-one", "bearer key-two"] {
        assert_eq!(
            try_upgrade(&app, &[("authorization", key)]).await,
            Ok(()),
            "{key}"
        );
    }
    let long = format!("Bearer {}", "k".repeat(8000));
    for key in [
        "Bearer key-on",
        "Bearer key-one2",
        "Bearer ",
        "key-one",
        "Basic key-one",
        "Bearer \"",
        &long,
    ] {
        assert_eq!(
            try_upgrade(&app, &[("authorization", key)]).await,
            Err(401),
            "{key}"
        );
    }
    assert_eq!(try_upgrade(&app, &[]).await, Err(401));
    // A browser on the service's own site needs no key.
    let own = format!("http://127.0.0.1:{}", app.port);
    assert_eq!(try_upgrade(&app, &[("origin", &own)]).await, Ok(()));
}

#[tokio::test]
async fn api_chat_accepts_only_programs_and_the_own_origin() {
    let (alpha, app) =
        service(|settings| settings.server.allowed_origins = vec!["https://good.com".into()]).await;
    let ask = |headers: &[(&str, &str)]| {
        let request = app
            .request("POST", "/api/chat")
            .json(&json!({ "message": "Hello?" }));
        headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .send()
    };
    let own = format!("http://127.0.0.1:{}", app.port);
    assert_eq!(ask(&[]).await.status, 200);
    assert_eq!(ask(&[("origin", &own)]).await.status, 200);
    for origin in ["null", "https://evil.example", "https://good.com"] {
        assert_eq!(ask(&[("origin", origin)]).await.status, 403, "{origin}");
    }
    let refused = ask(&[("x-forwarded-for", "127.0.0.1")]).await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, "Bearer")
    );
    assert_eq!(alpha.question_count(), 2);
}

#[tokio::test]
async fn incomplete_websocket_handshakes_are_rejected() {
    let (_alpha, app) = service(|_| ()).await;
    for (name, value, status) in [
        ("connection", "keep-alive", 400),
        ("sec-websocket-version", "7", 426),
    ] {
        let request = app
            .request("GET", "/ws")
            .header("upgrade", "websocket")
            .header(name, value)
            .send()
            .await;
        assert_eq!(request.status, status, "{name}");
    }
    assert_eq!(app.request("GET", "/ws").send().await.status, 400);
}

#[tokio::test]
async fn an_id_gives_access_only_to_its_own_conversation() {
    let (_alpha, app) = service(|_| ()).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("My secret?").await;
    client.wait_for_done(&turn).await;
    // An unknown but well-formed id opens an empty conversation under that id.
    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let mut stranger = WsClient::join(&app, unknown).await;
    assert_eq!(
        (stranger.conversation.as_str(), &stranger.welcome["history"]),
        (unknown, &json!([]))
    );
    // Frames that name a turn of another conversation are rejected.
    for frame in [
        json!({ "type": "stop", "turn": turn }),
        json!({ "type": "retry", "turn": turn, "client_msg_id": "x" }),
        json!({ "type": "feedback", "turn": turn, "value": "up" }),
    ] {
        stranger.send_frame(&frame).await;
        assert_eq!(stranger.next_frame().await["code"], "not_found", "{frame}");
    }
    stranger
        .send_frame(&json!({ "type": "history", "before": turn }))
        .await;
    assert_eq!(
        stranger.next_frame().await,
        json!({ "type": "history", "turns": [] })
    );
    let hello = json!({ "conversation": unknown, "resume": { "turn": turn, "seq": 0 } });
    let mut resuming = WsClient::connect_with_hello(app.port, &hello).await;
    assert_eq!(resuming.next_frame().await["code"], "not_found");
    // The public status shows nothing of the conversation.
    let status = app.status().await.to_string();
    assert!(
        !status.contains(&client.conversation) && !status.contains("secret"),
        "{status}"
    );
}

#[tokio::test]
async fn a_running_turn_cannot_be_stopped_from_another_conversation() {
    let gate = crate::harness::ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        crate::harness::partial_answer(["Mine"]),
        gate.wait_step(),
    ])
    .await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("My secret?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "Mine")
        .await;
    let mut stranger = WsClient::open(&app).await;
    stranger
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    assert_eq!(stranger.next_frame().await["code"], "not_found");
    client.assert_no_pending_frame().await;
    let done = &client.page.turn(&turn).done;
    assert_eq!((done, alpha.counts().client_disconnects), (&None, 0));
    assert_eq!(
        app.provider_status("alpha").await["in_flight"],
        Value::from(1)
    );
}
