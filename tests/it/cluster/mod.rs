//! Several instances, each its own process, over one real Redis: which instance runs a turn, which
//! ones show it, and the effect of a dead instance or a dead Redis.

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
use crate::binary::wait_for;
use crate::binary::ws_client::Visitor;
use crate::harness::RedisServer;

/// An instance's process and its data folder.
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

    /// Waits until the status says that the instance shares its state through Redis.
    async fn wait_until_shared(&self) {
        self.wait_for_redis_problem(false).await;
    }

    /// Waits until the status names a problem with Redis.
    async fn wait_until_standalone(&self) {
        self.wait_for_redis_problem(true).await;
    }

    async fn wait_for_redis_problem(&self, wanted: bool) {
        self.service
            .wait_for_status("the status to report on Redis", |status| {
                status["problems"].to_string().contains("Redis") == wanted
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

/// Starts two instances that share a Redis.
async fn start_two(provider: &Provider, redis: &RedisServer) -> (Instance, Instance) {
    let pair = (
        Instance::start(provider, &redis.url()).await,
        Instance::start(provider, &redis.url()).await,
    );
    pair.0.wait_until_shared().await;
    pair.1.wait_until_shared().await;
    pair
}

/// Polls the conversation's turns on this instance until they match, and returns them.
async fn wait_for_history(
    port: u16,
    conversation: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let asking = async {
        loop {
            let back = Visitor::back(port, conversation).await;
            if wanted(back.history()) {
                return back.history().to_vec();
            }
        }
    };
    wait_for("the history to match", asking).await
}
