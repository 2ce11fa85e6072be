//! The connection to Redis, if configured, and the store on top of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::random_unit;
use crate::config::{Settings, StoreBackend};
use crate::store::redis::client::{OutageReason, RedisClient};
use crate::store::{OpenedStore, RetentionTerms};

/// The time that the start waits for Redis. Afterwards the service starts standalone and joins
/// later.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Connects to Redis. `None` if the configuration does not use it.
///
/// # Errors
/// `store.redis_url` is invalid.
pub(super) async fn connect_redis(
    settings: &Settings,
    instance: &Arc<str>,
) -> anyhow::Result<Option<RedisClient>> {
    if settings.store.backend != StoreBackend::Redis {
        return Ok(None);
    }
    let link = RedisClient::open(&settings.store.redis_url, instance, random_unit);
    let link = link
        .map_err(anyhow::Error::msg)
        .context("store.redis_url cannot be used")?;
    let mut health = link.health();
    let joined = health.wait_for(|health| health.outage != Some(OutageReason::Joining));
    // A timeout is no error: the status page shows that Redis is not connected.
    let _ = tokio::time::timeout(JOIN_TIMEOUT, joined).await;
    Ok(Some(link))
}

/// Wraps the store so that it replicates to Redis, if there is a connection.
pub(super) fn with_replication(
    opened: OpenedStore,
    link: Option<&RedisClient>,
    terms: watch::Receiver<RetentionTerms>,
) -> OpenedStore {
    match link {
        Some(link) => opened.replicated(link.clone(), terms, random_unit),
        None => opened,
    }
}

pub(super) fn retention_terms(settings: &Settings) -> RetentionTerms {
    let cache = &settings.cache;
    RetentionTerms {
        retention: settings.chat.retention,
        answer_ttl: cache.ttl + cache.revalidate.max(cache.stale_for),
    }
}
