//! Messages in the orders that programs send: begun by the model, ending with it, with system texts in between.

use failsoft::config::Prefill;
use serde_json::{Value, json};

use crate::harness::{Act, Answer, ScriptedProvider, TestApp, answer, refusal, settings};

fn refused(message: &str) -> Vec<Act> {
    let body = json!({ "error": { "message": message, "type": "invalid_request_error" } });
    vec![refusal(
        400,
        "content-type: application/json\r\n",
        &body.to_string(),
    )]
}

fn begun() -> Value {
    json!([{ "role": "user", "content": "Who?" }, { "role": "assistant", "content": "It was " }])
}

async fn ask(app: &TestApp, messages: &Value) -> Answer {
    app.completion(&json!({ "model": "auto", "messages": messages }))
        .send()
        .await
}

/// Each message of the provider's request of this number: its speaker and text.
fn sent(provider: &ScriptedProvider, number: usize) -> Vec<String> {
    let asked = provider.requests()[number].1["messages"]
        .as_array()
        .unwrap()
        .clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    asked
        .iter()
        .map(|one| format!("{}: {}", text(&one["role"]), text(&one["content"])))
        .collect()
}

async fn with_prefill(alpha: &ScriptedProvider, form: Prefill) -> TestApp {
    let mut settings = settings(&[("alpha", alpha)]);
    settings.providers[0].prefill = form;
    TestApp::start(settings).await
}

#[tokio::test]
async fn system_texts_come_first_and_neighbours_are_one() {
    let alpha = ScriptedProvider::answering("Well.").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let messages = json!([
        { "role": "assistant", "content": "Welcome!" },
        { "role": "user", "content": "One" },
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Two" },
        { "role": "developer", "content": "Be kind." },
    ]);
    assert_eq!(ask(&app, &messages).await.status, 200);
    assert_eq!(
        sent(&alpha, 0),
        [
            "system: Be brief.\n\nBe kind.",
            "assistant: Welcome!",
            "user: One\n\nTwo"
        ]
    );
}

#[tokio::test]
async fn a_started_answer_is_history_or_taken_up_as_the_provider_does() {
    for (form, prefix, vllm) in [
        (Prefill::Off, false, false),
        (Prefill::Assistant, false, false),
        (Prefill::Prefix, true, false),
        (Prefill::Vllm, false, true),
    ] {
        let alpha = ScriptedProvider::answering("Ann.").await;
        let app = with_prefill(&alpha, form).await;
        assert_eq!(ask(&app, &begun()).await.status, 200);
        let request = alpha.requests()[0].1.clone();
        // What is taken up may not end in white space.
        let last = if form == Prefill::Off {
            "assistant: It was "
        } else {
            "assistant: It was"
        };
        assert_eq!(sent(&alpha, 0), ["user: Who?", last], "{form:?}");
        assert_eq!(
            request["messages"][1].get("prefix").is_some(),
            prefix,
            "{form:?}"
        );
        assert_eq!(
            request.get("continue_final_message").is_some(),
            vllm,
            "{form:?}"
        );
    }
}

#[tokio::test]
async fn who_refuses_to_take_it_up_is_asked_without_from_then_on() {
    let alpha = ScriptedProvider::answering("Ann.").await;
    let app = with_prefill(&alpha, Prefill::Assistant).await;
    let words = "This model does not support assistant message prefill.";
    alpha.once(refused(words));
    let answer = ask(&app, &begun()).await;
    assert_eq!((answer.status, answer.header("x-attempts")), (200, "2"));
    let instruction = "user: Go on with your answer from where it ends. Do not repeat any of it.";
    assert_eq!(sent(&alpha, 0), ["user: Who?", "assistant: It was"]);
    assert_eq!(
        sent(&alpha, 1),
        ["user: Who?", "assistant: It was ", instruction]
    );
    assert_eq!(ask(&app, &begun()).await.header("x-attempts"), "1");
    assert_eq!((alpha.asked(), sent(&alpha, 2)), (3, sent(&alpha, 1)));
    assert_eq!(app.provider("alpha").await["state"], "closed");
}

#[tokio::test]
async fn what_else_is_refused_of_such_a_request_is_passed_on() {
    let alpha = ScriptedProvider::start(refused("temperature: must be nice")).await;
    let app = with_prefill(&alpha, Prefill::Assistant).await;
    let answer = ask(&app, &begun()).await;
    assert_eq!((answer.status, alpha.asked()), (400, 1));
    assert_eq!(
        answer.json()["error"]["message"],
        "temperature: must be nice"
    );
}

#[tokio::test]
async fn an_order_that_the_model_does_not_take_is_mapped_anew() {
    let alpha = ScriptedProvider::start(answer("Ann.")).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    alpha.once(refused(
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ));
    let messages = json!([{ "role": "assistant", "content": "Welcome!" }, { "role": "user", "content": "Hi" }]);
    let answer = ask(&app, &messages).await;
    assert_eq!((answer.status, answer.header("x-attempts")), (200, "1"));
    assert_eq!(
        sent(&alpha, 1),
        ["user: Please begin.", "assistant: Welcome!", "user: Hi"]
    );
}
