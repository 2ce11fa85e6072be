//! Providers whose context is too small are skipped; the caller's messages are never cut.

use failsoft::config::Settings;
use serde_json::{Value, json};

use crate::harness::{ScriptedProvider, TestApp, TestResponse, error_response, test_settings};

/// Messages of about 300 tokens.
fn long_messages() -> Value {
    let text = "word ".repeat(120);
    json!([
        { "role": "user", "content": text },
        { "role": "assistant", "content": text },
        { "role": "user", "content": "And?" },
    ])
}

async fn ask(app: &TestApp, messages: &Value, headers: &[(&str, &str)]) -> TestResponse {
    let body = json!({ "model": "auto", "messages": messages, "max_tokens": 50 });
    let request = app.completion_request(&body);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    request.send().await
}

/// Two providers with these context sizes, in tokens.
fn with_context_tokens(
    alpha: &ScriptedProvider,
    beta: &ScriptedProvider,
    context_tokens: [u64; 2],
) -> Settings {
    let mut settings = test_settings(&[("alpha", alpha), ("beta", beta)]);
    for (provider, tokens) in settings.providers.iter_mut().zip(context_tokens) {
        provider.context_tokens = Some(tokens);
    }
    settings
}

fn assert_too_long(answer: &TestResponse) {
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
async fn a_provider_with_enough_context_gets_the_whole_prompt() {
    let alpha = ScriptedProvider::answering("Small.").await;
    let beta = ScriptedProvider::answering("Large.").await;
    let app = TestApp::start(with_context_tokens(&alpha, &beta, [200, 1_000])).await;
    let answer = ask(&app, &long_messages(), &[]).await;
    assert_eq!(
        (
            answer.status,
            answer.header("x-provider"),
            answer.header("x-attempts")
        ),
        (200, "beta", "1")
    );
    assert_eq!(
        (alpha.question_count(), &beta.requests()[0].1["messages"]),
        (0, &long_messages())
    );
    // A short prompt goes to the first provider.
    let short = json!([{ "role": "user", "content": "And?" }]);
    assert_eq!(ask(&app, &short, &[]).await.header("x-provider"), "alpha");
    assert_eq!(app.provider_status("alpha").await["state"], "closed");
}

#[tokio::test]
async fn a_prompt_too_long_for_every_provider_is_rejected_without_a_call() {
    let alpha = ScriptedProvider::answering("Not asked.").await;
    let beta = ScriptedProvider::answering("Not asked.").await;
    let app = TestApp::start(with_context_tokens(&alpha, &beta, [200, 250])).await;
    assert_too_long(&ask(&app, &long_messages(), &[]).await);
    assert_too_long(&ask(&app, &long_messages(), &[("x-degraded-answers", "off")]).await);
    assert_eq!((alpha.question_count(), beta.question_count()), (0, 0));
    app.wait_until_idle().await;
    // Without failover the limit of the requested provider counts.
    let app = TestApp::start(with_context_tokens(&alpha, &beta, [200, 1_000])).await;
    assert_too_long(&ask(&app, &long_messages(), &[("x-failover", "off")]).await);
    assert_eq!((alpha.question_count(), beta.question_count()), (0, 0));
}

#[tokio::test]
async fn a_failure_of_the_only_large_enough_provider_degrades_the_answer() {
    let alpha = ScriptedProvider::answering("Not asked.").await;
    let beta = ScriptedProvider::start(vec![error_response(503, "", "busy")]).await;
    let app = TestApp::start(with_context_tokens(&alpha, &beta, [200, 1_000])).await;
    let answer = ask(&app, &long_messages(), &[]).await;
    assert_eq!((answer.status, answer.header("x-degraded")), (200, "true"));
    let answer = ask(&app, &long_messages(), &[("x-degraded-answers", "off")]).await;
    assert_eq!(
        (answer.status, answer.header("x-should-retry")),
        (503, "false")
    );
    assert_eq!(alpha.question_count(), 0);
}
