//! A broken stream is continued by a provider that accepts prefill, in its own form, or without it
//! if the provider rejects it.

use failsoft::config::Prefill;
use serde_json::{Value, json};

use crate::harness::{
    CompletionStream, ScriptGate, ScriptStep, ScriptedProvider, TestApp, answer_in_pieces,
    error_response, full_answer, partial_answer, test_settings,
};

const SENT: &str = "The quick brown fox jumps over the lazy dog, and then it ";

/// The last 40 characters of [`SENT`] without its final space.
const OVERLAP: &str = "fox jumps over the lazy dog, and then it";

/// A service whose second provider accepts prefill in this form.
async fn service(alpha: &ScriptedProvider, beta: &ScriptedProvider, form: Prefill) -> TestApp {
    let mut settings = test_settings(&[("alpha", alpha), ("beta", beta)]);
    settings.providers[1].prefill = form;
    TestApp::start(settings).await
}

/// Breaks alpha after its text and returns the stream that beta completes.
async fn break_after_text(app: &TestApp, alpha: &ScriptedProvider) -> CompletionStream {
    let gate = ScriptGate::default();
    alpha.script_next(vec![
        partial_answer([SENT]),
        gate.wait_step(),
        ScriptStep::Reset,
    ]);
    let mut answer = app.stream_answer("What?").await;
    answer.read_until_text(SENT).await;
    gate.let_one_through();
    answer.read_to_end().await
}

fn messages(request: &Value) -> Vec<Value> {
    request["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_prefill_form_is_sent_with_its_own_fields() {
    for (form, has_prefix, is_vllm) in [
        (Prefill::Assistant, false, false),
        (Prefill::Vllm, false, true),
        (Prefill::Prefix, true, false),
    ] {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::answering("sleeps under a tree.").await;
        let app = service(&alpha, &beta, form).await;
        let answer = break_after_text(&app, &alpha).await;
        assert_eq!(
            (answer.text(), answer.finish_reason()),
            (format!("{SENT}sleeps under a tree."), "stop".into())
        );
        assert_eq!(answer.text_sources(), ["alpha 1 ai", "beta 2 ai"]);

        let request = &beta.requests()[0].1;
        let mut started = json!({ "role": "assistant", "content": SENT.trim_end() });
        if has_prefix {
            started["prefix"] = true.into();
        }
        assert_eq!(
            messages(request),
            [json!({ "role": "user", "content": "What?" }), started],
            "{form:?}"
        );
        let flag = |name: &str| request.get(name).cloned();
        assert_eq!(
            flag("continue_final_message"),
            is_vllm.then_some(json!(true)),
            "{form:?}"
        );
        assert_eq!(
            flag("add_generation_prompt"),
            is_vllm.then_some(json!(false)),
            "{form:?}"
        );
        // A new question is asked without prefill.
        app.stream_answer("And?").await.read_to_end().await;
        app.wait_until_idle().await;
    }
}

#[tokio::test]
async fn no_space_is_lost_or_doubled_where_texts_are_joined() {
    for pieces in [vec!["sleeps."], vec![" sleeps."], vec![" ", "sleeps."]] {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::start(answer_in_pieces(pieces)).await;
        let app = service(&alpha, &beta, Prefill::Assistant).await;
        assert_eq!(
            break_after_text(&app, &alpha).await.text(),
            format!("{SENT}sleeps.")
        );
    }
}

#[tokio::test]
async fn an_echoed_beginning_is_removed() {
    let echoed = format!("{SENT}sleeps.");
    for form in [Prefill::Prefix, Prefill::Assistant] {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::answering(&echoed).await;
        let app = service(&alpha, &beta, form).await;
        assert_eq!(
            break_after_text(&app, &alpha).await.text(),
            echoed,
            "{form:?}"
        );
    }
    // The same first words alone are not an echo.
    let alpha = ScriptedProvider::start(vec![]).await;
    let beta = ScriptedProvider::answering("The quick brown fox is gone.").await;
    let app = service(&alpha, &beta, Prefill::Assistant).await;
    assert_eq!(
        break_after_text(&app, &alpha).await.text(),
        format!("{SENT}The quick brown fox is gone.")
    );
}

#[tokio::test]
async fn a_provider_that_rejects_prefill_is_asked_without_it() {
    let body = json!({ "error": { "message": "prefill is not supported", "type": "invalid_request_error" } });
    let rejection = || {
        vec![error_response(
            400,
            "content-type: application/json\r\n",
            &body.to_string(),
        )]
    };
    let alpha = ScriptedProvider::start(vec![]).await;
    let beta = ScriptedProvider::start(full_answer(&format!("{OVERLAP} sleeps."))).await;
    let app = service(&alpha, &beta, Prefill::Assistant).await;
    beta.script_next(rejection());
    let answer = break_after_text(&app, &alpha).await;
    assert_eq!(
        (answer.text(), answer.finish_reason()),
        (format!("{SENT}sleeps."), "stop".into())
    );
    assert_eq!(answer.text_sources(), ["alpha 1 ai", "beta 3 ai"]);
    let requests = beta.requests();
    let [(_, first), (_, second)] = &requests[..] else {
        panic!("beta got {} requests", requests.len())
    };
    assert_eq!(messages(first).last().unwrap()["role"], "assistant");
    assert_eq!(messages(second).last().unwrap()["role"], "user");
    // The rejection is remembered.
    assert_eq!(
        break_after_text(&app, &alpha).await.text(),
        format!("{SENT}sleeps.")
    );
    assert_eq!(beta.question_count(), 3);
    assert_eq!(app.provider_status("beta").await["state"], "closed");
}
