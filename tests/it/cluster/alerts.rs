//! Alerts of instances that share a Redis: one alert and one recovery per cause.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::config;
use crate::binary::exclusive;
use crate::binary::provider::{Behavior, Provider};
use crate::binary::service::Service;
use crate::binary::ws_client::Visitor;
use crate::harness::{AlertReceiver, RedisServer};

/// Longer than an instance leaves an alert to another before it checks again.
const QUIET_PERIOD: Duration = Duration::from_secs(7);

#[tokio::test]
async fn an_outage_seen_by_both_instances_is_alerted_once() {
    let _exclusive = exclusive().await;
    let redis = RedisServer::start(&[]);
    let provider = Provider::start(Behavior::Answer).await;
    let receiver = AlertReceiver::start().await;
    let config = config(&provider, &redis.url())
        .replace("[breaker]\n", "[breaker]\nblocked_for = \"1s\"\n")
        + &format!("[alerts]\nwebhook = \"{}\"\n", receiver.url());
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let both = [
        Service::start(folders[0].path(), &config).await,
        Service::start(folders[1].path(), &config).await,
    ];
    let wait_for_mode = async |wanted: &str| {
        for service in &both {
            service
                .wait_for_status("the mode", |status| status["mode"] == wanted)
                .await;
        }
    };
    wait_for_mode("normal").await;
    provider.set_behavior(Behavior::Refuse(
        401,
        json!({ "error": { "message": "no" } }),
    ));
    assert_eq!(
        *Visitor::new(both[0].port)
            .await
            .ask("Who?")
            .await
            .done_field("degraded"),
        true
    );
    wait_for_mode("outage").await;
    receiver.wait_for_event("provider_down").await;
    receiver.wait_for_event("mode_changed").await;
    // A repeated alert would arrive within this time; its absence has no event to wait for.
    tokio::time::sleep(QUIET_PERIOD).await;
    provider.set_behavior(Behavior::Answer);
    wait_for_mode("normal").await;
    receiver.wait_for_event("provider_up").await;
    receiver
        .wait_for(|received| {
            received
                .iter()
                .filter(|alert| alert.json()["event"] == "mode_changed")
                .count()
                > 1
        })
        .await;
    tokio::time::sleep(QUIET_PERIOD).await;
    let mut alerts: Vec<_> = receiver
        .deliveries()
        .iter()
        .map(|alert| alert.json())
        .collect();
    alerts.sort_by_key(|alert| alert["at"].to_string());
    let mut events: Vec<_> = alerts
        .iter()
        .map(|alert: &Value| alert["event"].as_str().unwrap())
        .collect();
    events.sort_unstable();
    assert_eq!(
        events,
        [
            "mode_changed",
            "mode_changed",
            "provider_down",
            "provider_up"
        ],
        "{alerts:#?}"
    );
}
