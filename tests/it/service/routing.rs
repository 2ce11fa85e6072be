//! Whom a turn goes to: by strategy, by what is left of a budget, by who speaks first; and what an answer must be to count as one.

use std::time::Duration;

use failsoft::config::{Prices, RoutingStrategy, Settings};
use failsoft::provider::handle::ProviderStatus;
use serde_json::json;

use crate::harness::{
    Act, Gate, ScriptedProvider, TestApp, WsClient, answer, event, finish, head, last_chunk,
    refusal, say, settings, spoken,
};

/// Alpha does this, beta answers; alpha is preferred.
async fn two(alpha: Vec<Act>) -> (ScriptedProvider, ScriptedProvider, Settings) {
    let (alpha, beta) = (
        ScriptedProvider::start(alpha).await,
        ScriptedProvider::answering("Beta.").await,
    );
    let settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    (alpha, beta, settings)
}

/// A page that knows of races.
async fn racing(app: &TestApp) -> WsClient {
    let mut client = WsClient::open(app).await;
    client.page.races = true;
    client
}

fn counts(vitals: &ProviderStatus) -> (u64, u64) {
    (vitals.successes, vitals.failures)
}

#[tokio::test]
async fn the_second_answers_while_the_first_is_silent_and_the_first_is_hung_up_on() {
    let (alpha, beta, mut settings) = two(vec![Act::Silence]).await;
    settings.routing.hedge_after = Duration::from_millis(100);
    let app = TestApp::start(settings).await;
    let mut client = racing(&app).await;
    let shown = client.answered("What?").await;
    assert_eq!(
        (
            shown.text.as_str(),
            shown.restarts.len(),
            shown.drafts.len()
        ),
        ("Beta.", 0, 0)
    );
    assert_eq!(shown.outcomes(), ["stopped", "ok"]);
    assert_eq!(shown.done.as_ref().unwrap()["provider"], "beta");
    alpha
        .until(|counts| counts.left == 1 && counts.open == 0)
        .await;
    app.at_rest().await;
    assert_eq!((alpha.asked(), beta.asked()), (1, 1));
    assert_eq!(
        counts(&app.vitals("alpha", |_| true).await),
        (0, 0),
        "it counts nothing"
    );
    assert_eq!(counts(&app.vitals("beta", |_| true).await), (1, 0));
}

#[tokio::test]
async fn the_first_goes_on_where_it_speaks_first_and_the_second_is_hung_up_on() {
    let gate = Gate::default();
    let mut script = vec![gate.hold()];
    script.extend(answer("Alpha."));
    let (alpha, beta, mut settings) = two(script).await;
    beta.usually(vec![Act::Silence]);
    settings.routing.hedge_after = Duration::from_millis(100);
    let app = TestApp::start(settings).await;
    let mut client = racing(&app).await;
    let turn = client.ask("What?").await;
    beta.until(|counts| counts.open == 1).await;
    gate.open();
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.path()),
        ("Alpha.", vec![("alpha".into(), "".into())])
    );
    assert_eq!(shown.outcomes(), ["ok", "stopped"]);
    beta.until(|counts| counts.left == 1 && counts.open == 0)
        .await;
    app.at_rest().await;
    assert_eq!((alpha.asked(), beta.asked()), (1, 1));
    assert_eq!(
        counts(&app.vitals("beta", |_| true).await),
        (0, 0),
        "it counts nothing"
    );
}

#[tokio::test]
async fn a_spent_budget_means_the_next_provider_also_after_a_restart() {
    let (alpha, beta, mut settings) = two(answer("Alpha.")).await;
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 1.0,
    });
    // An answer's twelve tokens cost more.
    settings.providers[0].daily_budget_usd = Some(0.000_01);
    let app = TestApp::start(settings.clone()).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.answered("What?").await.text, "Alpha.");
    let vitals = app
        .vitals("alpha", |vitals| vitals.budget_resets_at.is_some())
        .await;
    assert!(!vitals.spend_today.estimated, "it told what it used");
    assert_eq!(
        client.answered("What?").await.path(),
        [("beta".into(), "".into())]
    );
    let told = app.provider("alpha").await;
    for (key, value) in [
        ("state", json!("closed")),
        ("reason", json!("budget_spent")),
        (
            "counts",
            json!({ "success": 1, "failure": 0, "restarts": 0 }),
        ),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    let midnight = told["retry_at"]
        .as_str()
        .is_some_and(|at| at.contains("T00:00:00"));
    assert!(midnight, "until midnight UTC, not {}", told["retry_at"]);
    let problems = app.status().await["problems"].to_string();
    assert!(
        problems.contains("alpha") && problems.contains("budget"),
        "{problems}"
    );

    let app = TestApp::in_folder(settings, app.stopped().await).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.answered("What?").await.text, "Beta.");
    assert_eq!((alpha.asked(), beta.asked()), (1, 2));
    assert_eq!(app.provider("alpha").await["reason"], "budget_spent");
}

#[tokio::test]
async fn tokens_that_are_not_told_are_estimated_and_spend_the_budget_too() {
    let whole = event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    let end = whole + &event("[DONE]") + &last_chunk();
    let (_alpha, _beta, mut settings) = two(vec![spoken(["Al", "pha."]), say(&end)]).await;
    settings.providers[0].prices = Some(Prices {
        input: 1.0,
        output: 1.0,
    });
    settings.providers[0].daily_budget_usd = Some(0.000_001);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.answered("What?").await;
    assert_eq!(
        (
            shown.text.as_str(),
            &shown.done.as_ref().unwrap()["usage"]["estimated"]
        ),
        ("Alpha.", &json!(true))
    );
    let vitals = app
        .vitals("alpha", |vitals| vitals.budget_resets_at.is_some())
        .await;
    assert!(vitals.spend_today.estimated);
    assert_eq!(client.answered("What?").await.text, "Beta.");
}

#[tokio::test]
async fn by_weight_a_conversation_stays_with_who_answered_it() {
    let unwell = vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let (alpha, beta, mut settings) = two(unwell).await;
    settings.routing.strategy = RoutingStrategy::Weighted;
    settings.providers[0].weight = 1_000_000;
    settings.providers[0].retry.same_provider = 0;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.answered("What?").await.text, "Beta.");
    alpha.usually(answer("Alpha."));
    let asked = alpha.asked();
    for _ in 0..5 {
        let shown = client.answered("And?").await;
        assert_eq!(
            (shown.text.as_str(), shown.attempts.len()),
            ("Beta.", 1),
            "whatever the weights are"
        );
    }
    assert_eq!((alpha.asked(), beta.asked()), (asked, 6));
    // Others are drawn by weight, a million to one.
    assert_eq!(
        WsClient::open(&app).await.answered("What?").await.text,
        "Alpha."
    );
    // It stays no longer than it is well.
    beta.refuse().await;
    assert_eq!(client.answered("And?").await.text, "Alpha.");
    beta.listen();
    assert_eq!(client.answered("And?").await.text, "Alpha.", "it has moved");
}

/// Answers that end in good order and are none.
#[tokio::test]
async fn what_is_no_answer_is_asked_of_the_next_provider() {
    for (words, min_chars) in [(&[][..], 1), (&[" \n", "\t "], 1), (&["Well", "."], 6)] {
        let script = if words.is_empty() {
            vec![say(&(head() + &finish()))]
        } else {
            vec![spoken(words.iter().copied()), say(&finish())]
        };
        let (alpha, beta, mut settings) = two(script).await;
        settings.providers[0].retry.same_provider = 0;
        settings.quality.min_chars = min_chars;
        beta.usually(answer("Beta answers."));
        let app = TestApp::start(settings).await;
        let mut client = WsClient::open(&app).await;
        let shown = client.answered("What?").await;
        assert_eq!(
            (shown.text.as_str(), shown.drafts.len()),
            ("Beta answers.", 0),
            "{words:?}"
        );
        assert_eq!(
            shown.path(),
            [
                ("alpha".into(), "".into()),
                ("beta".into(), "malformed".into())
            ]
        );
        assert_eq!((alpha.asked(), shown.outcomes()[1].as_str()), (1, "ok"));
        app.at_rest().await;
        assert_eq!(
            app.provider("alpha").await["counts"]["failure"],
            1,
            "{words:?}"
        );
    }
}
