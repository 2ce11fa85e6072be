//! What this instance shares with others, where the configuration says so: the link to Redis, and the store over it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::chance;
use crate::settings::{Settings, StoreBackend};
use crate::store::link::{Link, Trouble};
use crate::store::{Opened, Terms};

/// How long the start waits for Redis. Without it the service starts alone, and joins later.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// The link to the instances' Redis; none where there is none to be used.
///
/// # Errors
/// The URL is none that can be used.
pub(super) async fn link(settings: &Settings, instance: &Arc<str>) -> anyhow::Result<Option<Link>> {
    if settings.store.backend != StoreBackend::Redis {
        return Ok(None);
    }
    let link = Link::open(&settings.store.redis_url, instance, chance::fraction);
    let link = link
        .map_err(anyhow::Error::msg)
        .context("store.redis_url cannot be used")?;
    let mut health = link.health();
    let known = health.wait_for(|health| health.trouble != Some(Trouble::Joining));
    // The status says how it stands.
    let _ = tokio::time::timeout(JOIN_LIMIT, known).await;
    Ok(Some(link))
}

/// The store, shared on these terms where there is a link.
pub(super) fn shared(opened: Opened, link: Option<&Link>, terms: watch::Receiver<Terms>) -> Opened {
    match link {
        Some(link) => opened.shared(link.clone(), terms, chance::fraction),
        None => opened,
    }
}

/// How long others keep what is shared.
pub(super) fn terms(settings: &Settings) -> Terms {
    let (cache, retention) = (&settings.cache, settings.chat.retention);
    Terms {
        retention,
        answers: cache.ttl + cache.revalidate.max(cache.stale_for),
    }
}
