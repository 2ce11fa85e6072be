//! Providers that were removed from the configuration. Their running calls still finish, cost
//! money and are counted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::provider::handle::{Provider, ProviderStatus};

/// Entries that are retained; the oldest is dropped first.
pub const MAX_REMOVED_PROVIDERS: usize = 16;

#[derive(Clone, Debug)]
pub struct RemovedProvider {
    pub name: Arc<str>,
    pub has_prices: bool,
    /// Keeps changing until its last call has ended.
    pub status: watch::Receiver<ProviderStatus>,
}

/// Returns the removed providers after a reload, the most recently removed one last.
///
/// A provider that is configured again under its old name starts from zero and is not listed.
pub fn removed_providers(
    removed: &[RemovedProvider],
    previous: &[Arc<Provider>],
    current: &[Arc<Provider>],
) -> Arc<[RemovedProvider]> {
    let newly_removed = previous.iter().map(|provider| RemovedProvider {
        name: Arc::clone(&provider.name),
        has_prices: provider.prices.is_some(),
        status: provider.status.clone(),
    });
    let is_absent =
        |gone: &RemovedProvider| current.iter().all(|provider| provider.name != gone.name);
    let removed: Vec<_> = removed
        .iter()
        .cloned()
        .chain(newly_removed)
        .filter(is_absent)
        .collect();
    let excess = removed.len().saturating_sub(MAX_REMOVED_PROVIDERS);
    removed.into_iter().skip(excess).collect()
}
