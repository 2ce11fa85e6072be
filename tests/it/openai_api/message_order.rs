//! Message orders that programs send: starting or ending with the assistant, system texts in
//! between.

use failsoft::config::Prefill;
use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, TestResponse, error_response, full_answer, test_settings,
};

fn rejection(message: &str) -> Vec<ScriptStep> {
    let body = json!({ "error": { "message": message, "type": "invalid_request_error" } });
    vec![error_response(
        400,
        "content-type: application/json\r\n",
        &body.to_string(),
    )]
}

/// A question and the beginning of its answer.
fn started_answer() -> Value {
    json!([{ "role": "user", "content": "Who?" }, { "role": "assistant", "content": "It was " }])
}

async fn ask(app: &TestApp, messages: &Value) -> TestResponse {
    app.completion_request(&json!({ "model": "auto", "messages": messages }))
        .send()
        .await
}

/// The messages of the provider's request with this index, as "role: text".
fn sent_messages(provider: &ScriptedProvider, index: usize) -> Vec<String> {
    let messages = provider.requests()[index].1["messages"]
        .as_array()
        .unwrap()
        .clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    messages
        .iter()
        .map(|message| format!("{}: {}", text(&message["role"]), text(&message["content"])))
        .collect()
}

async fn with_prefill(alpha: &ScriptedProvider, form: Prefill) -> TestApp {
    let mut settings = test_settings(&[("alpha", alpha)]);
    settings.providers[0].prefill = form;
    TestApp::start(settings).await
}

#[tokio::test]
async fn system_messages_are_moved_first_and_adjacent_ones_merged() {
    let alpha = ScriptedProvider::answering("Well.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let messages = json!([
        { "role": "assistant", "content": "Welcome!" },
        { "role": "user", "content": "One" },
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Two" },
        { "role": "developer", "content": "Be kind." },
    ]);
    assert_eq!(ask(&app, &messages).await.status, 200);
    assert_eq!(
        sent_messages(&alpha, 0),
        [
            "system: Be brief.\n\nBe kind.",
            "assistant: Welcome!",
            "user: One\n\nTwo"
        ]
    );
}

#[tokio::test]
async fn a_started_answer_is_sent_in_the_providers_prefill_form() {
    for (form, has_prefix, is_vllm) in [
        (Prefill::Off, false, false),
        (Prefill::Assistant, false, false),
        (Prefill::Prefix, true, false),
        (Prefill::Vllm, false, true),
    ] {
        let alpha = ScriptedProvider::answering("Ann.").await;
        let app = with_prefill(&alpha, form).await;
        assert_eq!(ask(&app, &started_answer()).await.status, 200);
        let request = alpha.requests()[0].1.clone();
        // A started answer that is continued may not end in white space.
        let last = if form == Prefill::Off {
            "assistant: It was "
        } else {
            "assistant: It was"
        };
        assert_eq!(sent_messages(&alpha, 0), ["user: Who?", last], "{form:?}");
        assert_eq!(
            request["messages"][1].get("prefix").is_some(),
            has_prefix,
            "{form:?}"
        );
        assert_eq!(
            request.get("continue_final_message").is_some(),
            is_vllm,
            "{form:?}"
        );
    }
}

#[tokio::test]
async fn a_provider_that_rejects_prefill_is_asked_without_it_from_then_on() {
    let alpha = ScriptedProvider::answering("Ann.").await;
    let app = with_prefill(&alpha, Prefill::Assistant).await;
    let message = "This model does not support assistant message prefill.";
    alpha.script_next(rejection(message));
    let answer = ask(&app, &started_answer()).await;
    assert_eq!((answer.status, answer.header("x-attempts")), (200, "2"));
    let instruction = "user: Go on with your answer from where it ends. Do not repeat any of it.";
    assert_eq!(
        sent_messages(&alpha, 0),
        ["user: Who?", "assistant: It was"]
    );
    assert_eq!(
        sent_messages(&alpha, 1),
        ["user: Who?", "assistant: It was ", instruction]
    );
    assert_eq!(ask(&app, &started_answer()).await.header("x-attempts"), "1");
    assert_eq!(
        (alpha.question_count(), sent_messages(&alpha, 2)),
        (3, sent_messages(&alpha, 1))
    );
    assert_eq!(app.provider_status("alpha").await["state"], "closed");
}

#[tokio::test]
async fn other_rejections_of_a_started_answer_are_passed_on() {
    let alpha = ScriptedProvider::start(rejection("temperature: must be nice")).await;
    let app = with_prefill(&alpha, Prefill::Assistant).await;
    let answer = ask(&app, &started_answer()).await;
    assert_eq!((answer.status, alpha.question_count()), (400, 1));
    assert_eq!(
        answer.json()["error"]["message"],
        "temperature: must be nice"
    );
}

#[tokio::test]
async fn a_rejected_message_order_is_mapped_and_retried() {
    let alpha = ScriptedProvider::start(full_answer("Ann.")).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    alpha.script_next(rejection(
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ));
    let messages = json!([{ "role": "assistant", "content": "Welcome!" }, { "role": "user", "content": "Hi" }]);
    let answer = ask(&app, &messages).await;
    assert_eq!((answer.status, answer.header("x-attempts")), (200, "1"));
    assert_eq!(
        sent_messages(&alpha, 1),
        ["user: Please begin.", "assistant: Welcome!", "user: Hi"]
    );
}
