//! Alerts of instances that share a Redis: of one cause one alert and one recovery, whoever tells them.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::config;
use crate::binary::alone;
use crate::binary::provider::{Manner, Provider};
use crate::binary::service::Service;
use crate::binary::ws_client::Visitor;
use crate::harness::{Receiver, Redis};

/// Longer than an instance leaves an alert to another before it looks again.
const QUIET: Duration = Duration::from_secs(7);

#[tokio::test]
async fn an_outage_that_both_see_is_told_once_and_so_is_its_end() {
    let _alone = alone().await;
    let redis = Redis::start(&[]);
    let (provider, receiver) = (
        Provider::start(Manner::Answer).await,
        Receiver::start().await,
    );
    let config = config(&provider, &redis.url())
        .replace("[breaker]\n", "[breaker]\nblocked_for = \"1s\"\n")
        + &format!("[alerts]\nwebhook = \"{}\"\n", receiver.url());
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let both = [
        Service::start(folders[0].path(), &config).await,
        Service::start(folders[1].path(), &config).await,
    ];
    let mode = async |wanted: &str| {
        for service in &both {
            service
                .status_when("the mode", |status| status["mode"] == wanted)
                .await;
        }
    };
    mode("normal").await;
    provider.now(Manner::Refuse(401, json!({ "error": { "message": "no" } })));
    assert_eq!(
        *Visitor::new(both[0].port)
            .await
            .ask("Who?")
            .await
            .end("degraded"),
        true
    );
    mode("outage").await;
    receiver.event("provider_down").await;
    receiver.event("mode_changed").await;
    // What is not told is no event: nobody tells it again within this time.
    tokio::time::sleep(QUIET).await;
    provider.now(Manner::Answer);
    mode("normal").await;
    receiver.event("provider_up").await;
    receiver
        .until(|all| {
            all.iter()
                .filter(|one| one.json()["event"] == "mode_changed")
                .count()
                > 1
        })
        .await;
    tokio::time::sleep(QUIET).await;
    let mut told: Vec<_> = receiver.came().iter().map(|one| one.json()).collect();
    told.sort_by_key(|one| one["at"].to_string());
    let mut events: Vec<_> = told
        .iter()
        .map(|one: &Value| one["event"].as_str().unwrap())
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
        "{told:#?}"
    );
}
