//! The connection to Redis, if configured, and the store on top of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::chance;
use crate::settings::{Settings, StoreBackend};
use crate::store::link::{Link, Trouble};
use crate::store::{Opened, Terms};

/// The time that the start waits for Redis. Afterwards the service starts standalone and joins
/// later.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// Connects to Redis. `None` if the configuration does not use it.
///
/// # Errors
/// `store.redis_url` is invalid.
pub(super) async fn link(settings: &Settings, instance: &Arc<str>) -> anyhow::Result<Option<Link>> {
    if settings.store.backend != StoreBackend::Redis {
        return Ok(None);
    }
    let link = Link::open(&settings.store.redis_url, instance, chance::fraction);
    let link = link
        .map_err(anyhow::Error::msg)
        .context("store.redis_url cannot be used")?;
    let mut health = link.health();
    let joined = health.wait_for(|health| health.trouble != Some(Trouble::Joining));
    // A timeout is no error: the status page shows that Redis is not connected.
    let _ = tokio::time::timeout(JOIN_LIMIT, joined).await;
    Ok(Some(link))
}

/// Wraps the store so that it replicates to Redis, if there is a connection.
pub(super) fn shared(opened: Opened, link: Option<&Link>, terms: watch::Receiver<Terms>) -> Opened {
    match link {
        Some(link) => opened.shared(link.clone(), terms, chance::fraction),
        None => opened,
    }
}

pub(super) fn terms(settings: &Settings) -> Terms {
    let cache = &settings.cache;
    Terms {
        retention: settings.chat.retention,
        answers: cache.ttl + cache.revalidate.max(cache.stale_for),
    }
}
