//! Who is let in: origins, programs, and what stands behind each conversation's id.

use failsoft::config::{Secret, Settings};
use serde_json::{Value, json};

use crate::harness::{ScriptedProvider, TestApp, WsClient, settings, upgrade};

async fn service(change: impl FnOnce(&mut Settings)) -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("Come in.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    change(&mut settings);
    (alpha, TestApp::start(settings).await)
}

#[tokio::test]
async fn a_browser_comes_from_the_services_own_site_or_an_allowed_one() {
    let (_alpha, app) =
        service(|settings| settings.server.allowed_origins = vec!["https://good.com".into()]).await;
    let own = format!("http://127.0.0.1:{}", app.port);
    for origin in [own.as_str(), "https://good.com"] {
        assert_eq!(
            upgrade(&app, &[("origin", origin)]).await,
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
            upgrade(&app, &[("origin", origin)]).await,
            Err(403),
            "{origin}"
        );
    }
    // Another name that leads here is another site, unless the page itself was reached by it.
    let named = [("host", "chat.example"), ("origin", "http://chat.example")];
    assert_eq!(upgrade(&app, &named).await, Ok(()));
    let crossed = [("host", "chat.example"), ("origin", own.as_str())];
    assert_eq!(upgrade(&app, &crossed).await, Err(403));
}

#[tokio::test]
async fn behind_a_public_url_only_that_is_the_own_site() {
    let (_alpha, app) =
        service(|settings| settings.server.public_url = Some("https://chat.example.com".into()))
            .await;
    assert_eq!(
        upgrade(&app, &[("origin", "https://chat.example.com")]).await,
        Ok(())
    );
    let address = format!("http://127.0.0.1:{}", app.port);
    assert_eq!(upgrade(&app, &[("origin", &address)]).await, Err(403));
}

#[tokio::test]
async fn a_program_at_home_needs_no_key_and_one_from_elsewhere_does() {
    let (_alpha, app) = service(|_| ()).await;
    assert_eq!(upgrade(&app, &[]).await, Ok(()));
    for elsewhere in [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
        ("host", "rebound.example"),
    ] {
        assert_eq!(upgrade(&app, &[elsewhere]).await, Err(401), "{elsewhere:?}");
    }
    let (_alpha, app) = service(|settings| {
        settings.server.api_keys = vec![Secret::new("key-one"), Secret::new("key-two")]
    })
    .await;
    for key in ["Bearer key-one", "bearer key-two"] {
        assert_eq!(
            upgrade(&app, &[("authorization", key)]).await,
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
            upgrade(&app, &[("authorization", key)]).await,
            Err(401),
            "{key}"
        );
    }
    assert_eq!(upgrade(&app, &[]).await, Err(401));
    // A browser on the own site needs none.
    let own = format!("http://127.0.0.1:{}", app.port);
    assert_eq!(upgrade(&app, &[("origin", &own)]).await, Ok(()));
}

#[tokio::test]
async fn the_api_is_for_programs_and_the_own_page() {
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
    assert_eq!(alpha.asked(), 2);
}

#[tokio::test]
async fn no_handshake_is_no_socket() {
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
async fn an_id_opens_its_own_conversation_alone() {
    let (_alpha, app) = service(|_| ()).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("My secret?").await;
    client.done(&turn).await;
    // A well-formed id that is not known is an empty conversation, under that id.
    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let mut stranger = WsClient::join(&app, unknown).await;
    assert_eq!(
        (stranger.conversation.as_str(), &stranger.welcome["history"]),
        (unknown, &json!([]))
    );
    // A turn of another conversation is none of it, for whatever it is named.
    for frame in [
        json!({ "type": "stop", "turn": turn }),
        json!({ "type": "retry", "turn": turn, "client_msg_id": "x" }),
        json!({ "type": "feedback", "turn": turn, "value": "up" }),
    ] {
        stranger.say(&frame).await;
        assert_eq!(stranger.next().await["code"], "not_found", "{frame}");
    }
    stranger
        .say(&json!({ "type": "history", "before": turn }))
        .await;
    assert_eq!(
        stranger.next().await,
        json!({ "type": "history", "turns": [] })
    );
    let hello = json!({ "conversation": unknown, "resume": { "turn": turn, "seq": 0 } });
    let mut resuming = WsClient::hello(app.port, &hello).await;
    assert_eq!(resuming.next().await["code"], "not_found");
    // Nor is anything of it in what everyone may see.
    let status = app.status().await.to_string();
    assert!(
        !status.contains(&client.conversation) && !status.contains("secret"),
        "{status}"
    );
}

#[tokio::test]
async fn a_turn_under_way_is_its_own_conversations_alone() {
    let gate = crate::harness::Gate::default();
    let alpha = ScriptedProvider::start(vec![crate::harness::spoken(["Mine"]), gate.hold()]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("My secret?").await;
    client.shows(&turn, |shown| shown.text == "Mine").await;
    let mut stranger = WsClient::open(&app).await;
    stranger.say(&json!({ "type": "stop", "turn": turn })).await;
    assert_eq!(stranger.next().await["code"], "not_found");
    client.quiet().await;
    let mine = &client.page.turn(&turn).done;
    assert_eq!((mine, alpha.counts().left), (&None, 0));
    assert_eq!(app.provider("alpha").await["in_flight"], Value::from(1));
}
