//! Provider selection by `model` and `X-Failover`.

use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, TestResponse, error_response, question_body,
    streaming_body, test_settings,
};

struct Service {
    app: TestApp,
    providers: [ScriptedProvider; 3],
}

impl Service {
    /// Alpha, beta and gamma, each answering with its name. Beta and gamma have the same model.
    async fn start() -> Self {
        let mut providers = vec![];
        for name in ["alpha.", "beta.", "gamma."] {
            providers.push(ScriptedProvider::answering(name).await);
        }
        let providers: [_; 3] = providers.try_into().ok().unwrap();
        let [alpha, beta, gamma] = &providers;
        let mut settings = test_settings(&[("alpha", alpha), ("beta", beta), ("gamma", gamma)]);
        settings.providers[1].model = "vendor/large-2".into();
        settings.providers[2].model = "vendor/large-2".into();
        Self {
            app: TestApp::start(settings).await,
            providers,
        }
    }

    fn break_provider(&self, index: usize) {
        self.providers[index].script_default(vec![error_response(503, "", "busy")]);
    }

    async fn ask(&self, model: &str, headers: &[(&str, &str)]) -> TestResponse {
        self.send(model, headers, question_body("What?")).await
    }

    async fn send(&self, model: &str, headers: &[(&str, &str)], mut body: Value) -> TestResponse {
        body["model"] = model.into();
        let request = self.app.completion_request(&body);
        headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .send()
            .await
    }
}

#[tokio::test]
async fn the_model_selects_the_first_provider() {
    let service = Service::start().await;
    for (model, provider) in [
        ("auto", "alpha"),
        ("alpha", "alpha"),
        ("beta", "beta"),
        ("gamma", "gamma"),
        ("alpha-model", "alpha"),
        // Beta is the first provider with this model.
        ("vendor/large-2", "beta"),
    ] {
        let answer = service.ask(model, &[]).await;
        assert_eq!(
            (
                answer.status,
                answer.header("x-provider"),
                answer.header("x-attempts")
            ),
            (200, provider, "1")
        );
        let body = answer.json();
        assert_eq!(
            body["choices"][0]["message"]["content"],
            format!("{provider}.")
        );
        let expected_model = if provider == "alpha" {
            "alpha-model"
        } else {
            "vendor/large-2"
        };
        assert_eq!(body["model"], expected_model, "{model}");
    }
}

#[tokio::test]
async fn other_providers_follow_the_selected_one() {
    let service = Service::start().await;
    service.break_provider(1);
    let answer = service.ask("beta", &[]).await;
    assert_eq!(
        (answer.header("x-provider"), answer.header("x-attempts")),
        ("alpha", "2")
    );
    service.break_provider(0);
    let answer = service.ask("beta", &[("x-failover", "on")]).await;
    assert_eq!(
        (answer.header("x-provider"), answer.header("x-attempts")),
        ("gamma", "3")
    );
}

#[tokio::test]
async fn unknown_models_are_rejected() {
    let service = Service::start().await;
    for model in ["gpt-4o", "", "AUTO", "alpha ", "large-2"] {
        for body in [question_body("What?"), streaming_body("What?")] {
            let answer = service.send(model, &[], body).await;
            assert_eq!(answer.status, 404, "{model:?}");
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["code"], &error["param"]),
                (&json!("model_not_found"), &json!("model"))
            );
            assert_eq!(error["type"], "invalid_request_error");
        }
    }
    assert_eq!(
        service
            .providers
            .each_ref()
            .map(ScriptedProvider::question_count),
        [0, 0, 0]
    );
}

#[tokio::test]
async fn without_failover_only_the_selected_provider_is_called() {
    let service = Service::start().await;
    for (model, provider) in [
        ("beta", "beta"),
        ("vendor/large-2", "beta"),
        ("auto", "alpha"),
    ] {
        let answer = service.ask(model, &[("x-failover", "off")]).await;
        assert_eq!(answer.header("x-provider"), provider, "{model}");
    }
    service.break_provider(1);
    let before = service
        .providers
        .each_ref()
        .map(ScriptedProvider::question_count);
    let answer = service.ask("beta", &[("x-failover", "Off")]).await;
    assert_eq!(
        (
            answer.status,
            answer.header("x-degraded"),
            answer.header("x-provider")
        ),
        (200, "true", "none")
    );
    let answer = service
        .ask(
            "beta",
            &[("x-failover", "off"), ("x-degraded-answers", "off")],
        )
        .await;
    assert_eq!(
        (answer.status, answer.header("x-should-retry")),
        (503, "false")
    );
    let after = service
        .providers
        .each_ref()
        .map(ScriptedProvider::question_count);
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    // No other provider continues its text either.
    service.providers[1].script_default(vec![
        crate::harness::partial_answer(["Some ", "text"]),
        ScriptStep::Reset,
    ]);
    let mut body = streaming_body("What?");
    body["model"] = "gamma".into();
    service.providers[2].script_default(vec![
        crate::harness::partial_answer(["Some ", "text"]),
        ScriptStep::Reset,
    ]);
    let request = service
        .app
        .completion_request(&body)
        .header("x-failover", "off");
    let answer = crate::harness::CompletionStream::open(request)
        .await
        .read_to_end()
        .await;
    assert_eq!(
        (answer.text().as_str(), answer.has_end_mark),
        ("Some text", false)
    );
    assert_eq!(service.providers[0].question_count(), before[0]);
}
