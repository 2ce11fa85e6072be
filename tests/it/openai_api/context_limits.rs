//! A provider whose context is known to be too small is passed over: the caller's messages are never cut to fit it.

use failsoft::config::Settings;
use serde_json::{Value, json};

use crate::harness::{Answer, ScriptedProvider, TestApp, refusal, settings};

/// A conversation of about 300 tokens.
fn long() -> Value {
    let text = "word ".repeat(120);
    json!([
        { "role": "user", "content": text },
        { "role": "assistant", "content": text },
        { "role": "user", "content": "And?" },
    ])
}

async fn ask(app: &TestApp, messages: &Value, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "model": "auto", "messages": messages, "max_tokens": 50 });
    let request = app.completion(&body);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.send().await
}

/// Two providers with these rooms.
fn with_rooms(alpha: &ScriptedProvider, beta: &ScriptedProvider, rooms: [u64; 2]) -> Settings {
    let mut settings = settings(&[("alpha", alpha), ("beta", beta)]);
    for (provider, room) in settings.providers.iter_mut().zip(rooms) {
        provider.context_tokens = Some(room);
    }
    settings
}

fn is_too_long(answer: &Answer) {
    let error = &answer.json()["error"];
    assert_eq!(
        (answer.status, &error["code"]),
        (400, &json!("context_length_exceeded")),
        "{error}"
    );
    assert_eq!(
        (answer.header("x-attempts"), answer.header("x-should-retry")),
        ("0", "")
    );
}

#[tokio::test]
async fn who_has_room_is_asked_and_gets_all_of_it() {
    let alpha = ScriptedProvider::answering("Small.").await;
    let beta = ScriptedProvider::answering("Large.").await;
    let app = TestApp::start(with_rooms(&alpha, &beta, [200, 1_000])).await;
    let answer = ask(&app, &long(), &[]).await;
    assert_eq!(
        (
            answer.status,
            answer.header("x-provider"),
            answer.header("x-attempts")
        ),
        (200, "beta", "1")
    );
    assert_eq!(
        (alpha.asked(), &beta.requests()[0].1["messages"]),
        (0, &long())
    );
    // What fits goes to the first.
    let short = json!([{ "role": "user", "content": "And?" }]);
    assert_eq!(ask(&app, &short, &[]).await.header("x-provider"), "alpha");
    assert_eq!(app.provider("alpha").await["state"], "closed");
}

#[tokio::test]
async fn what_no_provider_has_room_for_is_told_unasked() {
    let alpha = ScriptedProvider::answering("Not asked.").await;
    let beta = ScriptedProvider::answering("Not asked.").await;
    let app = TestApp::start(with_rooms(&alpha, &beta, [200, 250])).await;
    is_too_long(&ask(&app, &long(), &[]).await);
    is_too_long(&ask(&app, &long(), &[("x-degraded-answers", "off")]).await);
    assert_eq!((alpha.asked(), beta.asked()), (0, 0));
    app.at_rest().await;
    // Who wants one provider alone is told of that one.
    let app = TestApp::start(with_rooms(&alpha, &beta, [200, 1_000])).await;
    is_too_long(&ask(&app, &long(), &[("x-failover", "off")]).await);
    assert_eq!((alpha.asked(), beta.asked()), (0, 0));
}

#[tokio::test]
async fn where_only_the_large_one_is_down_it_is_an_outage() {
    let alpha = ScriptedProvider::answering("Not asked.").await;
    let beta = ScriptedProvider::start(vec![refusal(503, "", "busy")]).await;
    let app = TestApp::start(with_rooms(&alpha, &beta, [200, 1_000])).await;
    let answer = ask(&app, &long(), &[]).await;
    assert_eq!((answer.status, answer.header("x-degraded")), (200, "true"));
    let answer = ask(&app, &long(), &[("x-degraded-answers", "off")]).await;
    assert_eq!(
        (answer.status, answer.header("x-should-retry")),
        (503, "false")
    );
    assert_eq!(alpha.asked(), 0);
}
