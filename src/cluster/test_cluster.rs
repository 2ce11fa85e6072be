//! A connection to a real Redis for the tests of this module.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use crate::config::Secret;
use crate::store::redis::client::RedisClient;
pub use crate::store::server::RedisServer;

pub async fn connect(redis: &RedisServer) -> RedisClient {
    let link = RedisClient::open(&Secret::new(redis.url()), "0123456789abcdef", || 0.5).unwrap();
    let mut health = link.health();
    let up = health.wait_for(|health| health.is_up());
    tokio::time::timeout(Duration::from_secs(20), up)
        .await
        .expect("redis is connected")
        .unwrap();
    link
}
