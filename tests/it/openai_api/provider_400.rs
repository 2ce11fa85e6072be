//! Requests that a provider rejects: the caller gets the reason, and no breaker counts it.

use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, error_response, partial_answer, question_body,
    streaming_body, test_settings,
};

fn error(status: u16, body: &Value) -> Vec<ScriptStep> {
    let body = json!({ "error": body }).to_string();
    vec![error_response(
        status,
        "content-type: application/json\r\n",
        &body,
    )]
}

fn too_long() -> Value {
    let message = "This model's maximum context length is 8192 tokens.";
    json!({ "message": message, "type": "invalid_request_error", "code": "context_length_exceeded" })
}

#[tokio::test]
async fn a_rejection_is_passed_on_with_its_reason() {
    for status in [400, 422] {
        let message = "temperature: must be nice, not sk-canary-key";
        let fault =
            json!({ "message": message, "type": "invalid_request_error", "param": "temperature" });
        let alpha = ScriptedProvider::start(error(status, &fault)).await;
        let beta = ScriptedProvider::answering("Not asked.").await;
        let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
        for body in [question_body("What?"), streaming_body("What?")] {
            // A rejected request is no outage, so `x-degraded-answers` does not matter.
            for degraded in ["on", "off"] {
                let answer = app
                    .completion_request(&body)
                    .header("x-degraded-answers", degraded)
                    .send()
                    .await;
                assert_eq!(
                    (answer.status, answer.header("content-type")),
                    (status, "application/json")
                );
                let error = &answer.json()["error"];
                assert_eq!(error["type"], "invalid_request_error");
                let reason = error["message"].as_str().unwrap();
                assert!(
                    reason.starts_with("temperature: must be nice") && !reason.contains("canary"),
                    "{reason}"
                );
                assert_eq!(
                    (answer.header("x-provider"), answer.header("x-attempts")),
                    ("alpha", "1")
                );
                assert!(!answer.header("x-request-id").is_empty());
            }
        }
        assert_eq!((alpha.question_count(), beta.question_count()), (4, 0));
        assert_eq!(app.provider_status("alpha").await["state"], "closed");
        app.wait_until_idle().await;
    }
}

#[tokio::test]
async fn a_rejection_of_a_later_provider_is_passed_on() {
    let alpha = ScriptedProvider::start(vec![error_response(503, "", "busy")]).await;
    let beta = ScriptedProvider::start(error(
        400,
        &json!({ "message": "no", "type": "invalid_request_error" }),
    ))
    .await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app
        .completion_request(&streaming_body("What?"))
        .send()
        .await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (400, &json!("no"))
    );
    assert_eq!(
        (answer.header("x-provider"), answer.header("x-attempts")),
        ("beta", "2")
    );
}

#[tokio::test]
async fn a_too_long_prompt_goes_to_a_provider_with_more_context() {
    for (status, fault) in [
        (400, too_long()),
        (413, json!({ "message": "Payload too large" })),
    ] {
        for body in [question_body("What?"), streaming_body("What?")] {
            let alpha = ScriptedProvider::start(error(status, &fault)).await;
            let beta = ScriptedProvider::answering("Not asked: no more room.").await;
            let gamma = ScriptedProvider::answering("Room enough.").await;
            let mut settings =
                test_settings(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]);
            for (provider, tokens) in settings.providers.iter_mut().zip([8192, 4096, 128_000]) {
                provider.context_tokens = Some(tokens);
            }
            let app = TestApp::start(settings).await;
            let answer = app.completion_request(&body).send().await;
            assert_eq!((answer.status, answer.header("x-provider")), (200, "gamma"));
            assert!(answer.body.contains("Room "), "{}", answer.body);
            assert_eq!(
                (
                    alpha.question_count(),
                    beta.question_count(),
                    gamma.question_count()
                ),
                (1, 0, 1)
            );
            assert_eq!(app.provider_status("alpha").await["state"], "closed");
        }
    }
}

#[tokio::test]
async fn a_prompt_too_long_for_all_is_rejected_uncut() {
    for (status, fault) in [
        (400, too_long()),
        (413, json!({ "message": "Payload too large" })),
    ] {
        let alpha = ScriptedProvider::start(error(status, &fault)).await;
        let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
        let history = json!([
            { "role": "user", "content": "One?" },
            { "role": "assistant", "content": "Two." },
            { "role": "user", "content": "Three?" },
        ]);
        for stream in [false, true] {
            let answer = app.completion_request(
                &json!({ "model": "auto", "messages": history, "stream": stream }),
            );
            let answer = answer.send().await;
            assert_eq!(answer.status, 400);
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["code"], &error["message"]),
                (&json!("context_length_exceeded"), &fault["message"])
            );
        }
        // Each request had the whole history, and there was no retry.
        let requests = alpha.requests();
        assert_eq!(requests.len(), 2);
        for (_, request) in requests {
            assert_eq!(request["messages"], history);
        }
    }
}

#[tokio::test]
async fn an_unsupported_parameter_name_is_mapped_and_retried() {
    let fault = json!({
        "message": "Unsupported parameter: 'max_tokens'", "type": "invalid_request_error",
        "param": "max_tokens", "code": "unsupported_parameter",
    });
    let alpha = ScriptedProvider::answering("Well.").await;
    alpha.script_next(error(400, &fault));
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let answer = app.completion_request(&question_body("What?")).send().await;
    assert_eq!((answer.status, answer.header("x-attempts")), (200, "1"));
    assert!(alpha.requests()[1].1["max_completion_tokens"].is_u64());
}

#[tokio::test]
async fn a_rejected_continuation_is_not_the_callers_fault() {
    // Beta rejects the request to continue alpha's text.
    let alpha =
        ScriptedProvider::start(vec![partial_answer(["Some ", "text"]), ScriptStep::Reset]).await;
    let beta = ScriptedProvider::start(error(
        400,
        &json!({ "message": "no", "type": "invalid_request_error" }),
    ))
    .await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app.stream_answer("What?").await.read_to_end().await;
    assert_eq!(
        (answer.text().as_str(), &answer.error.unwrap()["code"]),
        ("Some text", &json!("stream_interrupted"))
    );
}
