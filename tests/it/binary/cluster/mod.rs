//! Two instances of the binary that share a real Redis.

mod breakers;
mod redis_outage;
mod shared_limits;

use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::service::Service;
use super::wait_for;
use crate::harness::{RedisServer, ScriptStep, ScriptedProvider, error_response};

/// The answer of the second provider.
const BETA: &str = "The second provider's answer.";

/// Two instances that share a Redis and two providers.
struct InstancePair {
    redis: RedisServer,
    alpha: ScriptedProvider,
    _beta: ScriptedProvider,
    instances: [Service; 2],
    folders: [TempDir; 2],
}

/// Additions to the configuration: tables, and keys of the first provider.
#[derive(Clone, Copy, Default)]
struct ExtraConfig {
    tables: &'static str,
    alpha_keys: &'static str,
}

impl InstancePair {
    async fn start(ExtraConfig { tables, alpha_keys }: ExtraConfig) -> Self {
        let redis = RedisServer::start(&[]);
        let alpha = ScriptedProvider::answering("The first provider's answer.").await;
        let beta = ScriptedProvider::answering(BETA).await;
        let config = format!(
            r#"
[[providers]]
name = "alpha"
dialect = "openai"
base_url = "{}"
model = "alpha-1"
api_key = "sk-canary-key"
retry = {{ same_provider = 0 }}
{alpha_keys}

[[providers]]
name = "beta"
dialect = "openai"
base_url = "{}"
model = "beta-1"

[degradation]
outbox = false

[store]
backend = "redis"
redis_url = "{}"
{tables}"#,
            alpha.base_url(),
            beta.base_url(),
            redis.url(),
        );
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let first = Service::start(folders[0].path(), &config).await;
        let second = Service::start(folders[1].path(), &config).await;
        let pair = Self {
            redis,
            alpha,
            _beta: beta,
            instances: [first, second],
            folders,
        };
        pair.wait_until_joined().await;
        pair
    }

    /// Waits until both instances subscribe to the channel of cluster events.
    async fn wait_until_joined(&self) {
        let joined = async {
            loop {
                let reply = self
                    .redis
                    .command(&["PUBSUB", "NUMSUB", "failsoft:fleet:news"]);
                if reply.lines().last() == Some("2") {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        wait_for("both instances to join Redis", joined).await;
    }

    /// Asks one instance over HTTP, and returns the answer.
    async fn ask(&self, index: usize) -> Value {
        let answer = self.instances[index]
            .post("/api/chat", json!({ "message": "What?" }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Waits until the first provider matches in one instance's status, and returns that time.
    async fn wait_for_alpha(&self, index: usize, matches: impl Fn(&Value) -> bool) -> Instant {
        self.instances[index]
            .wait_for_status("the provider's state", |status| {
                matches(&status["providers"][0])
            })
            .await;
        Instant::now()
    }

    async fn wait_for_alpha_state(&self, index: usize, state: &str) -> Instant {
        self.wait_for_alpha(index, |alpha| alpha["state"] == state)
            .await
    }

    async fn stop(self) {
        for service in self.instances {
            let ended = service.stop().await;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            assert!(!ended.stderr.contains("canary"), "a key in the log");
        }
    }
}

/// A provider's refusal with this HTTP status.
fn refuses(status: u16) -> Vec<ScriptStep> {
    vec![error_response(
        status,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"no"}}"#,
    )]
}
