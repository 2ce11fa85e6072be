//! Providers that were removed from the configuration. Their running calls still finish, cost
//! money and are counted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::provider::backend::{Backend, Vitals};

/// Entries that are retained; the oldest is dropped first.
pub const REMEMBERED: usize = 16;

#[derive(Clone, Debug)]
pub struct Gone {
    pub name: Arc<str>,
    pub priced: bool,
    /// Keeps changing until its last call has ended.
    pub vitals: watch::Receiver<Vitals>,
}

/// Returns the removed providers after a reload, the most recently removed one last.
///
/// A provider that is configured again under its old name starts from zero and is not listed.
pub fn departed(
    removed: &[Gone],
    previous: &[Arc<Backend>],
    current: &[Arc<Backend>],
) -> Arc<[Gone]> {
    let newly_removed = previous.iter().map(|provider| Gone {
        name: Arc::clone(&provider.name),
        priced: provider.prices.is_some(),
        vitals: provider.vitals.clone(),
    });
    let is_absent = |gone: &Gone| current.iter().all(|provider| provider.name != gone.name);
    let removed: Vec<_> = removed
        .iter()
        .cloned()
        .chain(newly_removed)
        .filter(is_absent)
        .collect();
    let excess = removed.len().saturating_sub(REMEMBERED);
    removed.into_iter().skip(excess).collect()
}
