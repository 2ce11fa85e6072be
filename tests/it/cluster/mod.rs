//! Several instances, each a process of its own, over one real Redis: whose turn a message is, who shows it, what becomes of it when an instance
//! or Redis is gone.

mod alerts;
mod chaos;
mod redis_outage;
mod slow_proxy;
mod tls;
mod turns;

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::provider::Provider;
use crate::binary::service::Service;
use crate::binary::within;
use crate::binary::ws_client::Visitor;
use crate::harness::Redis;

/// An instance: its process and its folder.
struct Instance {
    service: Service,
    folder: TempDir,
}

impl Instance {
    async fn start(provider: &Provider, redis: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let service = start_in(folder.path(), provider, redis).await;
        Self { service, folder }
    }

    fn port(&self) -> u16 {
        self.service.port
    }

    /// Waits until it shares, or until it goes on alone.
    async fn shares(&self, shares: bool) {
        let redis = |status: &Value| status["problems"].to_string().contains("Redis");
        self.service
            .status_when("the status to tell of Redis", |status| {
                redis(status) != shares
            })
            .await;
    }
}

async fn start_in(folder: &Path, provider: &Provider, redis: &str) -> Service {
    Service::start(folder, &config(provider, redis)).await
}

fn config(provider: &Provider, redis: &str) -> String {
    format!(
        "{}\n[store]\nbackend = \"redis\"\nredis_url = \"{redis}\"\n[breaker]\nopen_for = \"200ms\"\n[retry]\nbase = \"20ms\"\nmax = \"50ms\"\nbudget = 1.0\n",
        provider.config()
    )
}

/// Two instances that share.
async fn two(provider: &Provider, redis: &Redis) -> (Instance, Instance) {
    let pair = (
        Instance::start(provider, &redis.url()).await,
        Instance::start(provider, &redis.url()).await,
    );
    pair.0.shares(true).await;
    pair.1.shares(true).await;
    pair
}

/// The conversation's turns as this instance tells them, as soon as they are as wanted.
async fn history(port: u16, conversation: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let asking = async {
        loop {
            let back = Visitor::back(port, conversation).await;
            if wanted(back.history()) {
                return back.history().to_vec();
            }
        }
    };
    within("the history to be so", asking).await
}
