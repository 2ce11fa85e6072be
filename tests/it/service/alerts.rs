//! Who runs the service is told of changes, by receivers that check signatures and misbehave.

use std::time::Duration;

use failsoft::config::{Secret, Settings};
use failsoft::domain::ProviderState;
use serde_json::{Value, json};

use crate::harness::{
    Act, Delivery, Gate, Receiver, ScriptedProvider, Take, TestApp, WsClient, answer, refusal,
    settings, soon,
};

const KEY: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7];

/// Providers of which the first is down after its first failure, and who is told.
fn told(receiver: &Receiver, providers: &[(&str, &ScriptedProvider)]) -> Settings {
    let mut settings = settings(providers);
    settings.alerts.webhook = Some(Secret::new(receiver.url()));
    settings.alerts.webhook_secret = Some(Secret::new("whsec_AAECAwQFBgc="));
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
        provider.retry.same_provider = 0;
    }
    settings
}

fn unauthorized() -> Vec<Act> {
    vec![refusal(401, "", "{}")]
}

/// Waits until `/status.json` names a problem that holds all of these words.
async fn problem(app: &TestApp, words: &[&str]) -> String {
    let told = async {
        loop {
            let status = app.status().await;
            let all = status["problems"].as_array().unwrap().clone();
            let all = all.iter().map(|one| one.as_str().unwrap().to_owned());
            if let Some(found) = all
                .into_iter()
                .find(|one| words.iter().all(|word| one.contains(word)))
            {
                return found;
            }
        }
    };
    soon("the problem in the status", told).await
}

#[tokio::test]
async fn an_outage_and_its_end_are_told_under_one_incident() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let (receiver, slack) = (Receiver::start().await, Receiver::start().await);
    let mut settings = told(&receiver, &[("alpha", &alpha)]);
    settings.alerts.slack_webhook = Some(Secret::new(slack.url()));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    alpha.refuse().await;
    client.answered("Are you there?").await;
    let down = receiver.event("provider_down").await;
    down.is_signed_by(KEY);
    let down = down.json();
    assert_eq!(
        (&down["provider"], &down["reason"]),
        (&json!("alpha"), &json!("refused"))
    );
    let mode = receiver.event("mode_changed").await.json();
    assert_eq!(
        (&mode["mode"], &mode["provider"]),
        (&json!("outage"), &Value::Null)
    );
    // One id everywhere.
    let status = app.status().await;
    assert!(status["incident"].as_str().unwrap().starts_with("inc-"));
    assert_eq!(
        (&down["incident"], &mode["incident"]),
        (&status["incident"], &status["incident"])
    );
    for one in receiver.came() {
        one.is_signed_by(KEY);
        assert!(one.json()["at"].as_str().unwrap().ends_with('Z') && !one.body.contains("canary"));
    }
    let texts = slack.until(|all| all.len() == 2).await;
    assert_eq!(
        texts[0].header("webhook-signature"),
        "",
        "Slack knows no signatures"
    );
    let text = texts[0].json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.contains("alpha is down") && text.contains(status["incident"].as_str().unwrap()),
        "{text}"
    );

    alpha.listen();
    let up = receiver.event("provider_up").await.json();
    assert_eq!(
        (&up["provider"], &up["incident"]),
        (&json!("alpha"), &status["incident"])
    );
    let back = receiver.until(|all| all.len() == 4).await[3].json();
    assert_eq!(
        (&back["event"], &back["mode"]),
        (&json!("mode_changed"), &json!("normal"))
    );
    assert_eq!(
        back["incident"], status["incident"],
        "the one that has just ended"
    );
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_again_with_the_same_id_and_no_turn_waits() {
    let (alpha, beta) = (
        ScriptedProvider::start(unauthorized()).await,
        ScriptedProvider::answering("Yes.").await,
    );
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    for take in [
        Take::Status(500, String::new()),
        Take::Reset,
        Take::CloseEarly,
        Take::Hold(gate.clone()),
    ] {
        receiver.once(take);
    }
    let mut settings = told(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.alerts.webhook_secret = Some(Secret::new("plain secret"));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.answered("One").await.text, "Yes.");
    receiver.until(|all| all.len() == 1).await;
    problem(&app, &["the webhook", "500"]).await;
    // It hangs now; nobody else does.
    let tries = receiver.until(|all| all.len() == 4).await;
    for n in 0..20 {
        assert_eq!(client.answered(&format!("Question {n}")).await.text, "Yes.");
    }
    app.at_rest().await;
    assert_eq!(receiver.came().len(), 4, "the next alert waits in the line");
    for one in &tries {
        one.is_signed_by(b"plain secret");
        assert_eq!(
            (one.header("webhook-id"), &one.body),
            (tries[0].header("webhook-id"), &tries[0].body)
        );
    }
    gate.open();
    receiver.event("mode_changed").await;
    let taken = receiver.taken();
    assert_eq!(taken[0], ("provider_down".to_owned(), json!("alpha")));
    let well = async { while app.status().await["problems"] != json!([]) {} };
    soon("the problem to be over", well).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_endless_answer_is_not_read() {
    let (alpha, beta) = (
        ScriptedProvider::start(unauthorized()).await,
        ScriptedProvider::answering("Yes.").await,
    );
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    receiver.once(Take::Status(
        307,
        format!("location: {}\r\n", elsewhere.url()),
    ));
    receiver.once(Take::Endless);
    let mut settings = told(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].breaker.blocked_for = Duration::from_millis(300);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    client.answered("One").await;
    problem(&app, &["An alert to the webhook was lost"]).await;
    receiver.event("mode_changed").await;
    assert_eq!(elsewhere.came().len(), 0);
    // What was given up is not told to be over: only the mode is.
    alpha.usually(answer("Here again."));
    let all = receiver.until(|all| all.len() == 3).await;
    let events: Vec<_> = all.iter().map(|one| one.json()["event"].clone()).collect();
    assert_eq!(events, ["provider_down", "mode_changed", "mode_changed"]);
    assert_eq!(all[2].json()["mode"], "normal");
}

#[tokio::test]
async fn a_restart_neither_repeats_an_alert_nor_forgets_its_end() {
    let (alpha, beta) = (
        ScriptedProvider::start(unauthorized()).await,
        ScriptedProvider::answering("Yes.").await,
    );
    let receiver = Receiver::start().await;
    let mut settings = told(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].breaker.blocked_for = Duration::from_millis(300);
    let app = TestApp::start(settings.clone()).await;
    WsClient::open(&app).await.answered("One").await;
    let incident = receiver.event("mode_changed").await.json()["incident"].clone();
    // What was delivered is noted a moment later.
    let store = &app.lobby.turns.store;
    let noted = async {
        while !store
            .get_document("alerts/webhook".into())
            .await
            .unwrap()
            .is_some_and(|one| one.contains("mode"))
        {}
    };
    soon("the note", noted).await;
    let folder = app.stopped().await;

    let app = TestApp::in_folder(settings, folder).await;
    // It is looked at while it is still down, and then found to be well.
    let before = alpha.counts().probes;
    alpha.until(|counts| counts.probes >= before + 2).await;
    alpha.usually(answer("Here again."));
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    let all = receiver.until(|all| all.len() == 4).await;
    let events: Vec<_> = all.iter().map(|one| one.json()["event"].clone()).collect();
    assert_eq!(
        events,
        [
            "provider_down",
            "mode_changed",
            "provider_up",
            "mode_changed"
        ]
    );
    assert!(
        all.iter().all(|one| one.json()["incident"] == incident),
        "{all:?}"
    );
    assert_eq!(all[3].json()["mode"], "normal");
}

#[tokio::test]
async fn what_a_drill_brings_about_is_told_as_staged_and_holds_nothing_real_back() {
    let (alpha, beta) = (
        ScriptedProvider::answering("From alpha.").await,
        ScriptedProvider::answering("From beta.").await,
    );
    let (receiver, slack) = (Receiver::start().await, Receiver::start().await);
    let mut settings = told(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.alerts.slack_webhook = Some(Secret::new(slack.url()));
    settings.server.admin_token = Some(Secret::new("admin-canary"));
    let app = TestApp::start(settings).await;
    let order = async |method: &str, body: Option<Value>| {
        let request = app
            .request(method, "/admin/drills")
            .header("authorization", "Bearer admin-canary");
        let answer = match body {
            Some(body) => request.json(&body).send().await,
            None => request.send().await,
        };
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let mut client = WsClient::open(&app).await;
    order(
        "POST",
        Some(json!({ "provider": "alpha", "fault": "down", "for": "10m" })),
    )
    .await;
    assert_eq!(client.answered("Under it?").await.text, "From beta.");
    let all = receiver.until(|all| all.len() == 2).await;
    let of = |one: &Delivery| (one.json()["event"].clone(), one.json()["drill"].clone());
    assert_eq!(of(&all[0]), (json!("provider_down"), json!(true)));
    assert_eq!(of(&all[1]), (json!("mode_changed"), json!(true)));
    let text = all[0].json()["text"].clone();
    assert_eq!(
        text,
        "Outage drill: Provider alpha is down: it cannot be reached."
    );
    let texts = slack.until(|all| all.len() == 2).await;
    assert!(
        texts
            .iter()
            .all(|one| one.body.contains("Failsoft: Outage drill: ")),
        "{texts:?}"
    );

    // Its end is one of a drill too.
    order("DELETE", None).await;
    let all = receiver.until(|all| all.len() == 4).await;
    assert_eq!(of(&all[2]), (json!("provider_up"), json!(true)));
    assert_eq!(
        (of(&all[3]), &all[3].json()["mode"]),
        ((json!("mode_changed"), json!(true)), &json!("normal"))
    );

    // And real trouble of the same kind is told at once, well within the least interval between two alerts.
    alpha.refuse().await;
    assert_eq!(client.answered("And now?").await.text, "From beta.");
    let all = receiver.until(|all| all.len() == 6).await;
    assert_eq!(of(&all[4]), (json!("provider_down"), json!(false)));
    assert_eq!(of(&all[5]), (json!("mode_changed"), json!(false)));
    assert_eq!(
        all[4].json()["text"],
        "Provider alpha is down: it cannot be reached."
    );
}
