//! A streamed answer that breaks goes on with a provider that takes the beginning of an answer: in its own form, and without where it refuses.

use failsoft::config::Prefill;
use serde_json::{Value, json};

use crate::harness::{
    Act, Completion, Gate, ScriptedProvider, TestApp, answer, apart, refusal, settings, spoken,
};

const SAID: &str = "The quick brown fox jumps over the lazy dog, and then it ";

const LAST: &str = "fox jumps over the lazy dog, and then it";

/// A service whose second provider takes beginnings in this form.
async fn service(alpha: &ScriptedProvider, beta: &ScriptedProvider, form: Prefill) -> TestApp {
    let mut settings = settings(&[("alpha", alpha), ("beta", beta)]);
    settings.providers[1].prefill = form;
    TestApp::start(settings).await
}

/// The first breaks, the second goes on.
async fn broken(app: &TestApp, alpha: &ScriptedProvider) -> Completion {
    let gate = Gate::default();
    alpha.once(vec![spoken([SAID]), gate.hold(), Act::Reset]);
    let mut answer = app.stream("What?").await;
    answer.shows(SAID).await;
    gate.open();
    answer.ended().await
}

fn messages(asked: &Value) -> Vec<Value> {
    asked["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_form_is_asked_in_its_own_words() {
    for (form, prefix, vllm) in [
        (Prefill::Assistant, false, false),
        (Prefill::Vllm, false, true),
        (Prefill::Prefix, true, false),
    ] {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::answering("sleeps under a tree.").await;
        let app = service(&alpha, &beta, form).await;
        let answer = broken(&app, &alpha).await;
        assert_eq!(
            (answer.text(), answer.finish()),
            (format!("{SAID}sleeps under a tree."), "stop".into())
        );
        assert_eq!(answer.speakers(), ["alpha 1 ai", "beta 2 ai"]);

        let asked = &beta.requests()[0].1;
        let mut begun = json!({ "role": "assistant", "content": SAID.trim_end() });
        if prefix {
            begun["prefix"] = true.into();
        }
        assert_eq!(
            messages(asked),
            [json!({ "role": "user", "content": "What?" }), begun],
            "{form:?}"
        );
        let flag = |name: &str| asked.get(name).cloned();
        assert_eq!(
            flag("continue_final_message"),
            vllm.then_some(json!(true)),
            "{form:?}"
        );
        assert_eq!(
            flag("add_generation_prompt"),
            vllm.then_some(json!(false)),
            "{form:?}"
        );
        // A question that nothing was said to yet is asked as ever.
        app.stream("And?").await.ended().await;
        app.at_rest().await;
    }
}

#[tokio::test]
async fn no_space_is_lost_or_doubled_at_the_seam() {
    for pieces in [vec!["sleeps."], vec![" sleeps."], vec![" ", "sleeps."]] {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::start(apart(pieces)).await;
        let app = service(&alpha, &beta, Prefill::Assistant).await;
        assert_eq!(broken(&app, &alpha).await.text(), format!("{SAID}sleeps."));
    }
}

#[tokio::test]
async fn a_beginning_that_comes_back_is_cut() {
    let whole = format!("{SAID}sleeps.");
    for form in [Prefill::Prefix, Prefill::Assistant] {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::answering(&whole).await;
        let app = service(&alpha, &beta, form).await;
        assert_eq!(broken(&app, &alpha).await.text(), whole, "{form:?}");
    }
    // Only the same first words are no echo.
    let alpha = ScriptedProvider::start(vec![]).await;
    let beta = ScriptedProvider::answering("The quick brown fox is gone.").await;
    let app = service(&alpha, &beta, Prefill::Assistant).await;
    assert_eq!(
        broken(&app, &alpha).await.text(),
        format!("{SAID}The quick brown fox is gone.")
    );
}

#[tokio::test]
async fn who_refuses_a_beginning_is_asked_without() {
    let body = json!({ "error": { "message": "prefill is not supported", "type": "invalid_request_error" } });
    let refused = || {
        vec![refusal(
            400,
            "content-type: application/json\r\n",
            &body.to_string(),
        )]
    };
    let alpha = ScriptedProvider::start(vec![]).await;
    let beta = ScriptedProvider::start(answer(&format!("{LAST} sleeps."))).await;
    let app = service(&alpha, &beta, Prefill::Assistant).await;
    beta.once(refused());
    let answer = broken(&app, &alpha).await;
    assert_eq!(
        (answer.text(), answer.finish()),
        (format!("{SAID}sleeps."), "stop".into())
    );
    assert_eq!(answer.speakers(), ["alpha 1 ai", "beta 3 ai"]);
    let asked = beta.requests();
    let [(_, first), (_, second)] = &asked[..] else {
        panic!("asked {} times", asked.len())
    };
    assert_eq!(messages(first).last().unwrap()["role"], "assistant");
    assert_eq!(messages(second).last().unwrap()["role"], "user");
    // It is remembered.
    assert_eq!(broken(&app, &alpha).await.text(), format!("{SAID}sleeps."));
    assert_eq!(beta.asked(), 3);
    assert_eq!(app.provider("beta").await["state"], "closed");
}
