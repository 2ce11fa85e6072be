//! No provider can answer, and nothing was said yet: the degraded answer says what it is; a caller that wants none gets a plain error.

use std::time::Duration;

use failsoft::domain::ProviderState;
use serde_json::json;

use crate::harness::{
    Act, Answer, Completion, ScriptedProvider, TestApp, question, refusal, settings, soon,
    streaming,
};

const SORRY: &str = "Later, please.";

/// A service whose two providers fail like this.
async fn service(fault: &[Act]) -> (TestApp, [ScriptedProvider; 2]) {
    let providers = [
        ScriptedProvider::start(fault.to_vec()).await,
        ScriptedProvider::start(fault.to_vec()).await,
    ];
    let mut settings = settings(&[("alpha", &providers[0]), ("beta", &providers[1])]);
    settings.degradation.fallback = SORRY.into();
    for provider in &mut settings.providers {
        provider.timeouts.first_token = vec![Duration::from_millis(300)];
    }
    (TestApp::start(settings).await, providers)
}

fn busy() -> Vec<Act> {
    vec![refusal(503, "", "busy")]
}

#[tokio::test]
async fn a_degraded_answer_says_what_it_is() {
    for fault in [
        busy(),
        vec![Act::Silence],
        vec![Act::Reset],
        vec![refusal(401, "", "no")],
    ] {
        let (app, _providers) = service(&fault).await;
        // Xyzzy matches no reply, a price does.
        for (asked, source) in [("Xyzzy?", "fallback"), ("What does it cost?", "template")] {
            let answer = app.completion(&question(asked)).send().await;
            assert_eq!(answer.status, 200);
            let headers = |header: &dyn Fn(&str) -> String| {
                for (name, value) in [
                    ("x-provider", "none"),
                    ("x-source", source),
                    ("x-degraded", "true"),
                ] {
                    assert_eq!(header(name), value, "{name} of {asked}");
                }
                assert!(!header("x-request-id").is_empty());
            };
            headers(&|name| answer.header(name).to_owned());
            let body = answer.json();
            let choice = &body["choices"][0];
            assert_eq!(
                (&choice["finish_reason"], &body["model"]),
                (&json!("stop"), &json!("failsoft"))
            );
            assert_eq!(
                body["failsoft"],
                json!({ "provider": null, "attempt": 0, "source": source })
            );
            let whole = choice["message"]["content"].as_str().unwrap().to_owned();
            assert_eq!(whole == SORRY, source == "fallback", "{whole}");

            let answer = app.stream(asked).await;
            assert_eq!(answer.status, 200);
            headers(&|name| answer.header(name).to_owned());
            let answer = answer.ended().await;
            assert_eq!((answer.text(), answer.finish()), (whole, "stop".into()));
            assert_eq!(answer.speakers(), [format!("none 0 {source}")]);
            assert_eq!(answer.chunks.last().unwrap()["model"], "failsoft");
        }
        app.at_rest().await;
    }
}

#[track_caller]
fn unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("server_error"), &json!("unavailable"))
    );
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(
        (answer.header("x-source"), answer.header("x-degraded")),
        ("none", "false")
    );
}

#[tokio::test]
async fn who_wants_no_degraded_answer_gets_an_error() {
    for fault in [busy(), vec![Act::Silence], vec![refusal(401, "", "no")]] {
        let (app, _providers) = service(&fault).await;
        for _ in 0..3 {
            for body in [question("What?"), streaming("What?")] {
                unavailable(
                    &app.completion(&body)
                        .header("x-degraded-answers", "off")
                        .send()
                        .await,
                );
            }
        }
        app.at_rest().await;
    }
}

#[tokio::test]
async fn once_they_are_known_to_be_down_nobody_waits() {
    let (app, providers) = service(&[Act::Silence]).await;
    let open = async {
        while app
            .lobby
            .turns
            .config()
            .providers
            .iter()
            .any(|one| one.status.borrow().state == ProviderState::Closed)
        {
            app.stream("What?").await.ended().await;
        }
    };
    soon("the breakers to open", open).await;
    let asked = providers.each_ref().map(ScriptedProvider::asked);
    let begun = std::time::Instant::now();
    let answer = app.stream("Xyzzy?").await.ended().await;
    assert_eq!(answer.text(), SORRY);
    assert!(
        begun.elapsed() < Duration::from_millis(300),
        "it took {:?}",
        begun.elapsed()
    );
    assert_eq!(providers.each_ref().map(ScriptedProvider::asked), asked);
}

#[tokio::test]
async fn who_broke_before_the_caller_saw_anything_is_not_told_of() {
    // Not streamed: what the first one said is nobody's business.
    let alpha =
        ScriptedProvider::start(vec![crate::harness::spoken(["Some ", "text"]), Act::Reset]).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.degradation.fallback = SORRY.into();
    let app = TestApp::start(settings).await;
    let answer = app.completion(&question("Xyzzy?")).send().await;
    assert_eq!((answer.status, answer.header("x-degraded")), (200, "true"));
    assert_eq!(answer.json()["choices"][0]["message"]["content"], SORRY);
    let answer = app
        .completion(&question("Xyzzy?"))
        .header("x-degraded-answers", "OFF")
        .send()
        .await;
    unavailable(&answer);
}

#[tokio::test]
async fn a_service_that_goes_down_takes_no_more_questions() {
    let gate = crate::harness::Gate::default();
    let script = vec![
        crate::harness::spoken(["One, "]),
        gate.hold(),
        crate::harness::say(&crate::harness::finish()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.server.drain = Duration::from_secs(20);
    let mut app = TestApp::start(settings).await;
    let mut running: Completion = app.stream("What?").await;
    running.shows("One, ").await;
    app.stop();
    let refused = async {
        loop {
            let answer = app.completion(&question("And?")).send().await;
            if answer.status == 503 {
                return answer;
            }
        }
    };
    alpha.usually(crate::harness::answer("Just in time."));
    unavailable_for_now(&soon("new questions to be refused", refused).await);
    gate.open();
    assert_eq!(running.ended().await.text(), "One, ");
}

#[track_caller]
fn unavailable_for_now(answer: &Answer) {
    assert_eq!(answer.json()["error"]["code"], "unavailable");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() < 10);
}

#[tokio::test]
async fn the_caller_is_told_when_the_first_provider_may_be_asked_again() {
    let limited = |seconds| {
        vec![refusal(
            429,
            &format!("retry-after: {seconds}\r\n"),
            "slow down",
        )]
    };
    let (alpha, beta) = (
        ScriptedProvider::start(limited(45)).await,
        ScriptedProvider::start(limited(30)).await,
    );
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    for body in [question("What?"), streaming("What?")] {
        let answer = app
            .completion(&body)
            .header("x-degraded-answers", "off")
            .send()
            .await;
        unavailable(&answer);
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        // The 30 s began with the refusal; a machine may be slow since.
        assert!((15..=31).contains(&seconds), "{seconds} s");
    }
    assert_eq!((alpha.asked(), beta.asked()), (1, 1));
}
