//! Availability of the last day and month in the status, also after a restart.

use failsoft::config::{Prices, Secret};
use serde_json::{Value, json};

use crate::harness::{ScriptedProvider, TestApp, WsClient, eventually, test_settings};

const TOKEN: &str = "admin-canary";

/// Waits until `total` messages are counted. Returns the last day's availability as the operator
/// sees it.
async fn availability_after(app: &TestApp, total: u64) -> Value {
    let counted = async {
        loop {
            let request = app
                .request("GET", "/status.json")
                .header("authorization", &format!("Bearer {TOKEN}"));
            let day = request.send().await.json()["availability"]["24h"].clone();
            if day["counts"]["total"] == total {
                return day;
            }
        }
    };
    eventually("the messages to be counted", counted).await
}

#[tokio::test]
async fn the_last_days_availability_survives_a_restart() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.server.admin_token = Some(Secret::new(TOKEN));
    settings.providers[0].prices = Some(Prices {
        input: 1_000.0,
        output: 1_000.0,
    });
    let app = TestApp::start(settings.clone()).await;
    let mut client = WsClient::open(&app).await;
    for _ in 0..3 {
        client.ask_and_wait("Are you there?").await;
    }
    alpha.stop_listening().await;
    client.ask_and_wait("And now?").await;
    let day = availability_after(&app, 4).await;
    assert_eq!((&day["answers"], &day["ai"]), (&json!(1.0), &json!(0.75)));
    assert_eq!(
        day["counts"],
        json!({ "total": 4, "ai": 3, "degraded": 1, "lost": 0 })
    );
    assert!(
        day["cost_usd"].as_f64() > Some(0.01) && day["ai_time"].as_f64() <= Some(1.0),
        "{day}"
    );
    assert_eq!(
        app.status().await["availability"]["30d"].get("cost_usd"),
        None,
        "costs are for the operator only"
    );
    let reasons = day["reasons"].as_object().unwrap();
    assert!(
        reasons.len() == 1 && reasons["refused"].as_u64() > Some(0),
        "{day}"
    );
    // This message is counted just before the service stops.
    client.ask_and_wait("Still?").await;
    let folder = app.shut_down().await;

    let app = TestApp::start_in(settings, folder).await;
    let after = availability_after(&app, 5).await;
    assert_eq!(
        after["counts"],
        json!({ "total": 5, "ai": 3, "degraded": 2, "lost": 0 })
    );
    assert_eq!(after["cost_usd"], day["cost_usd"]);
    assert!(
        after["reasons"]["refused"].as_u64() >= day["reasons"]["refused"].as_u64(),
        "{after}"
    );
    let page = app.request("GET", "/status").send().await;
    assert!(
        page.body
            .contains("Messages: 5; answered: 100.00 %; by an AI: 60.00 %"),
        "{}",
        page.body
    );
}
