//! Alerts to receivers that check signatures, fail, redirect or never finish a response.

use std::time::Duration;

use failsoft::config::{Secret, Settings};
use failsoft::domain::ProviderState;
use serde_json::{Value, json};

use crate::harness::{
    AlertReceiver, Delivery, DeliveryResponse, ScriptGate, ScriptStep, ScriptedProvider, TestApp,
    WsClient, error_response, eventually, full_answer, test_settings,
};

const KEY: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7];

/// Settings with an alert webhook, where one failure opens a provider's breaker.
fn alert_settings(receiver: &AlertReceiver, providers: &[(&str, &ScriptedProvider)]) -> Settings {
    let mut settings = test_settings(providers);
    settings.alerts.webhook = Some(Secret::new(receiver.url()));
    settings.alerts.webhook_secret = Some(Secret::new("whsec_AAECAwQFBgc="));
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
        provider.retry.same_provider = 0;
    }
    settings
}

fn unauthorized() -> Vec<ScriptStep> {
    vec![error_response(401, "", "{}")]
}

/// Waits for a problem in `/status.json` that contains all of `words`.
async fn wait_for_problem(app: &TestApp, words: &[&str]) {
    let reported = async {
        loop {
            let status = app.status().await;
            let problems = status["problems"].as_array().unwrap();
            if problems.iter().any(|problem| {
                let problem = problem.as_str().unwrap();
                words.iter().all(|word| problem.contains(word))
            }) {
                return;
            }
        }
    };
    eventually("the problem in the status", reported).await
}

#[tokio::test]
async fn an_outage_and_its_recovery_are_reported_with_one_incident_id() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let receiver = AlertReceiver::start().await;
    let slack = AlertReceiver::start().await;
    let mut settings = alert_settings(&receiver, &[("alpha", &alpha)]);
    settings.alerts.slack_webhook = Some(Secret::new(slack.url()));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    alpha.stop_listening().await;
    client.ask_and_wait("Are you there?").await;
    let down = receiver.wait_for_event("provider_down").await;
    down.assert_signed_by(KEY);
    let down = down.json();
    assert_eq!(
        (&down["provider"], &down["reason"]),
        (&json!("alpha"), &json!("refused"))
    );
    let mode = receiver.wait_for_event("mode_changed").await.json();
    assert_eq!(
        (&mode["mode"], &mode["provider"]),
        (&json!("outage"), &Value::Null)
    );
    // All alerts carry the id of the incident.
    let status = app.status().await;
    assert!(status["incident"].as_str().unwrap().starts_with("inc-"));
    assert_eq!(
        (&down["incident"], &mode["incident"]),
        (&status["incident"], &status["incident"])
    );
    for alert in receiver.deliveries() {
        alert.assert_signed_by(KEY);
        let body = alert.json();
        assert!(body["at"].as_str().unwrap().ends_with('Z') && !alert.body.contains("canary"));
    }
    let texts = slack.wait_for(|alerts| alerts.len() == 2).await;
    assert_eq!(
        texts[0].header("webhook-signature"),
        "",
        "Slack messages are not signed"
    );
    let text = texts[0].json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.contains("alpha is down") && text.contains(status["incident"].as_str().unwrap()),
        "{text}"
    );

    alpha.listen();
    let up = receiver.wait_for_event("provider_up").await.json();
    assert_eq!(
        (&up["provider"], &up["incident"]),
        (&json!("alpha"), &status["incident"])
    );
    let back = receiver.wait_for(|alerts| alerts.len() == 4).await[3].json();
    assert_eq!(
        (&back["event"], &back["mode"]),
        (&json!("mode_changed"), &json!("normal"))
    );
    assert_eq!(
        back["incident"], status["incident"],
        "the recovery belongs to the incident that has just ended"
    );
}

#[tokio::test]
async fn failed_deliveries_are_retried_with_the_same_id_and_delay_no_turn() {
    let alpha = ScriptedProvider::start(unauthorized()).await;
    let beta = ScriptedProvider::answering("Yes.").await;
    let receiver = AlertReceiver::start().await;
    let gate = ScriptGate::default();
    for take in [
        DeliveryResponse::Status(500, String::new()),
        DeliveryResponse::Reset,
        DeliveryResponse::CloseMidHead,
        DeliveryResponse::AcceptAfter(gate.clone()),
    ] {
        receiver.respond_next(take);
    }
    let mut settings = alert_settings(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.alerts.webhook_secret = Some(Secret::new("plain secret"));
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.ask_and_wait("One").await.text, "Yes.");
    receiver.wait_for(|alerts| alerts.len() == 1).await;
    wait_for_problem(&app, &["the webhook", "500"]).await;
    // The receiver now hangs; turns do not.
    let tries = receiver.wait_for(|alerts| alerts.len() == 4).await;
    for n in 0..20 {
        assert_eq!(
            client.ask_and_wait(&format!("Question {n}")).await.text,
            "Yes."
        );
    }
    app.wait_until_idle().await;
    assert_eq!(
        receiver.deliveries().len(),
        4,
        "the next alert waits in the queue"
    );
    for delivery in &tries {
        delivery.assert_signed_by(b"plain secret");
        assert_eq!(
            (delivery.header("webhook-id"), &delivery.body),
            (tries[0].header("webhook-id"), &tries[0].body)
        );
    }
    gate.let_one_through();
    receiver.wait_for_event("mode_changed").await;
    let taken = receiver.accepted_events();
    assert_eq!(taken[0], ("provider_down".to_owned(), json!("alpha")));
    let resolved = async { while app.status().await["problems"] != json!([]) {} };
    eventually("the problem to be over", resolved).await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_endless_responses_are_abandoned() {
    let alpha = ScriptedProvider::start(unauthorized()).await;
    let beta = ScriptedProvider::answering("Yes.").await;
    let receiver = AlertReceiver::start().await;
    let elsewhere = AlertReceiver::start().await;
    receiver.respond_next(DeliveryResponse::Status(
        307,
        format!("location: {}\r\n", elsewhere.url()),
    ));
    receiver.respond_next(DeliveryResponse::EndlessBody);
    let mut settings = alert_settings(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].breaker.blocked_for = Duration::from_millis(300);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    client.ask_and_wait("One").await;
    wait_for_problem(&app, &["An alert to the webhook was lost"]).await;
    receiver.wait_for_event("mode_changed").await;
    assert_eq!(elsewhere.deliveries().len(), 0);
    // The lost `provider_down` alert gets no `provider_up`; the change of mode is reported.
    alpha.script_default(full_answer("Here again."));
    let alerts = receiver.wait_for(|alerts| alerts.len() == 3).await;
    let events: Vec<_> = alerts
        .iter()
        .map(|alert| alert.json()["event"].clone())
        .collect();
    assert_eq!(events, ["provider_down", "mode_changed", "mode_changed"]);
    assert_eq!(alerts[2].json()["mode"], "normal");
}

#[tokio::test]
async fn after_a_restart_alerts_are_not_repeated_and_recoveries_are_sent() {
    let alpha = ScriptedProvider::start(unauthorized()).await;
    let beta = ScriptedProvider::answering("Yes.").await;
    let receiver = AlertReceiver::start().await;
    let mut settings = alert_settings(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].breaker.blocked_for = Duration::from_millis(300);
    let app = TestApp::start(settings.clone()).await;
    WsClient::open(&app).await.ask_and_wait("One").await;
    let incident = receiver.wait_for_event("mode_changed").await.json()["incident"].clone();
    // The delivery is recorded a moment after it happened.
    let store = &app.chat_service.turns.store;
    let recorded = async {
        while !store
            .note("alerts/webhook".into())
            .await
            .unwrap()
            .is_some_and(|note| note.contains("mode"))
        {}
    };
    eventually("the note", recorded).await;
    let folder = app.shut_down().await;

    let app = TestApp::start_in(settings, folder).await;
    // The restarted service probes it while it is still down, and then finds it healthy.
    let before = alpha.counts().probes;
    alpha.wait_for(|counts| counts.probes >= before + 2).await;
    alpha.script_default(full_answer("Here again."));
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Closed
    })
    .await;
    let alerts = receiver.wait_for(|alerts| alerts.len() == 4).await;
    let events: Vec<_> = alerts
        .iter()
        .map(|alert| alert.json()["event"].clone())
        .collect();
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
        alerts
            .iter()
            .all(|alert| alert.json()["incident"] == incident),
        "{alerts:?}"
    );
    assert_eq!(alerts[3].json()["mode"], "normal");
}

#[tokio::test]
async fn drill_alerts_are_marked_and_do_not_suppress_real_ones() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let beta = ScriptedProvider::answering("From beta.").await;
    let receiver = AlertReceiver::start().await;
    let slack = AlertReceiver::start().await;
    let mut settings = alert_settings(&receiver, &[("alpha", &alpha), ("beta", &beta)]);
    settings.alerts.slack_webhook = Some(Secret::new(slack.url()));
    settings.server.admin_token = Some(Secret::new("admin-canary"));
    let app = TestApp::start(settings).await;
    let send_order = async |method: &str, body: Option<Value>| {
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
    send_order(
        "POST",
        Some(json!({ "provider": "alpha", "fault": "down", "for": "10m" })),
    )
    .await;
    assert_eq!(client.ask_and_wait("Under it?").await.text, "From beta.");
    let alerts = receiver.wait_for(|alerts| alerts.len() == 2).await;
    let event_and_drill =
        |alert: &Delivery| (alert.json()["event"].clone(), alert.json()["drill"].clone());
    assert_eq!(
        event_and_drill(&alerts[0]),
        (json!("provider_down"), json!(true))
    );
    assert_eq!(
        event_and_drill(&alerts[1]),
        (json!("mode_changed"), json!(true))
    );
    let text = alerts[0].json()["text"].clone();
    assert_eq!(
        text,
        "Outage drill: Provider alpha is down: it cannot be reached."
    );
    let texts = slack.wait_for(|alerts| alerts.len() == 2).await;
    assert!(
        texts
            .iter()
            .all(|message| message.body.contains("Failsoft: Outage drill: ")),
        "{texts:?}"
    );

    // The recovery at the end of a drill is marked too.
    send_order("DELETE", None).await;
    let alerts = receiver.wait_for(|alerts| alerts.len() == 4).await;
    assert_eq!(
        event_and_drill(&alerts[2]),
        (json!("provider_up"), json!(true))
    );
    assert_eq!(
        (event_and_drill(&alerts[3]), &alerts[3].json()["mode"]),
        ((json!("mode_changed"), json!(true)), &json!("normal"))
    );

    // A real failure of the same kind is reported at once, within the minimum interval of alerts.
    alpha.stop_listening().await;
    assert_eq!(client.ask_and_wait("And now?").await.text, "From beta.");
    let alerts = receiver.wait_for(|alerts| alerts.len() == 6).await;
    assert_eq!(
        event_and_drill(&alerts[4]),
        (json!("provider_down"), json!(false))
    );
    assert_eq!(
        event_and_drill(&alerts[5]),
        (json!("mode_changed"), json!(false))
    );
    assert_eq!(
        alerts[4].json()["text"],
        "Provider alpha is down: it cannot be reached."
    );
}
