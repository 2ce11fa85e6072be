//! What a provider refuses because of the request: told to the caller with the provider's reason, and no breaker counts it.

use serde_json::{Value, json};

use crate::harness::{
    Act, ScriptedProvider, TestApp, question, refusal, settings, spoken, streaming,
};

fn error(status: u16, body: &Value) -> Vec<Act> {
    let body = json!({ "error": body }).to_string();
    vec![refusal(status, "content-type: application/json\r\n", &body)]
}

fn too_long() -> Value {
    let message = "This model's maximum context length is 8192 tokens.";
    json!({ "message": message, "type": "invalid_request_error", "code": "context_length_exceeded" })
}

#[tokio::test]
async fn a_refused_request_is_passed_on_with_its_reason() {
    for (status, told) in [(400, 400), (422, 422)] {
        let message = "temperature: must be nice, not sk-canary-key";
        let fault =
            json!({ "message": message, "type": "invalid_request_error", "param": "temperature" });
        let alpha = ScriptedProvider::start(error(status, &fault)).await;
        let beta = ScriptedProvider::answering("Not asked.").await;
        let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
        for body in [question("What?"), streaming("What?")] {
            // Also where no degraded answer is wanted: it is no outage.
            for degraded in ["on", "off"] {
                let answer = app
                    .completion(&body)
                    .header("x-degraded-answers", degraded)
                    .send()
                    .await;
                assert_eq!(
                    (answer.status, answer.header("content-type")),
                    (told, "application/json")
                );
                let error = &answer.json()["error"];
                assert_eq!(error["type"], "invalid_request_error");
                let said = error["message"].as_str().unwrap();
                assert!(
                    said.starts_with("temperature: must be nice") && !said.contains("canary"),
                    "{said}"
                );
                assert_eq!(
                    (answer.header("x-provider"), answer.header("x-attempts")),
                    ("alpha", "1")
                );
                assert!(!answer.header("x-request-id").is_empty());
            }
        }
        assert_eq!((alpha.asked(), beta.asked()), (4, 0));
        assert_eq!(app.provider("alpha").await["state"], "closed");
        app.at_rest().await;
    }
}

#[tokio::test]
async fn a_refusal_of_another_than_the_first_is_passed_on_too() {
    let alpha = ScriptedProvider::start(vec![refusal(503, "", "busy")]).await;
    let beta = ScriptedProvider::start(error(
        400,
        &json!({ "message": "no", "type": "invalid_request_error" }),
    ))
    .await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app.completion(&streaming("What?")).send().await;
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
async fn what_is_too_long_goes_to_who_has_more_room() {
    for (status, fault) in [
        (400, too_long()),
        (413, json!({ "message": "Payload too large" })),
    ] {
        for body in [question("What?"), streaming("What?")] {
            let alpha = ScriptedProvider::start(error(status, &fault)).await;
            let beta = ScriptedProvider::answering("Not asked: no more room.").await;
            let gamma = ScriptedProvider::answering("Room enough.").await;
            let mut settings = settings(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]);
            for (provider, room) in settings.providers.iter_mut().zip([8192, 4096, 128_000]) {
                provider.context_tokens = Some(room);
            }
            let app = TestApp::start(settings).await;
            let answer = app.completion(&body).send().await;
            assert_eq!((answer.status, answer.header("x-provider")), (200, "gamma"));
            assert!(answer.body.contains("Room "), "{}", answer.body);
            assert_eq!((alpha.asked(), beta.asked(), gamma.asked()), (1, 0, 1));
            assert_eq!(app.provider("alpha").await["state"], "closed");
        }
    }
}

#[tokio::test]
async fn what_is_too_long_for_all_is_told_and_never_cut() {
    for (status, fault) in [
        (400, too_long()),
        (413, json!({ "message": "Payload too large" })),
    ] {
        let alpha = ScriptedProvider::start(error(status, &fault)).await;
        let app = TestApp::of(&[("alpha", &alpha)]).await;
        let history = json!([
            { "role": "user", "content": "One?" },
            { "role": "assistant", "content": "Two." },
            { "role": "user", "content": "Three?" },
        ]);
        for stream in [false, true] {
            let answer =
                app.completion(&json!({ "model": "auto", "messages": history, "stream": stream }));
            let answer = answer.send().await;
            assert_eq!(answer.status, 400);
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["code"], &error["message"]),
                (&json!("context_length_exceeded"), &fault["message"])
            );
        }
        // Each time the whole history, and once.
        let asked = alpha.requests();
        assert_eq!(asked.len(), 2);
        for (_, asked) in asked {
            assert_eq!(asked["messages"], history);
        }
    }
}

#[tokio::test]
async fn a_refused_parameter_of_ours_is_mapped_anew_and_not_passed_on() {
    let fault = json!({
        "message": "Unsupported parameter: 'max_tokens'", "type": "invalid_request_error",
        "param": "max_tokens", "code": "unsupported_parameter",
    });
    let alpha = ScriptedProvider::answering("Well.").await;
    alpha.once(error(400, &fault));
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let answer = app.completion(&question("What?")).send().await;
    assert_eq!((answer.status, answer.header("x-attempts")), (200, "1"));
    assert!(alpha.requests()[1].1["max_completion_tokens"].is_u64());
}

#[tokio::test]
async fn what_broke_is_not_the_callers_fault() {
    // A refusal that comes after text, from one that is to go on with it.
    let alpha = ScriptedProvider::start(vec![spoken(["Some ", "text"]), Act::Reset]).await;
    let beta = ScriptedProvider::start(error(
        400,
        &json!({ "message": "no", "type": "invalid_request_error" }),
    ))
    .await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let answer = app.stream("What?").await.ended().await;
    assert_eq!(
        (answer.text().as_str(), &answer.error.unwrap()["code"]),
        ("Some text", &json!("stream_interrupted"))
    );
}
