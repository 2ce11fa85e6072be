//! Providers that are not configured any more: what they are still asked ends after that, costs what it costs, and is counted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::provider::backend::{Backend, Vitals};

/// So many are remembered; the one that went first is forgotten first.
pub const REMEMBERED: usize = 16;

/// A provider that went.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its prices are known.
    pub priced: bool,
    /// What it came to, also by what ended after it went.
    pub vitals: watch::Receiver<Vitals>,
}

/// Those that are gone when `now` stand where `before` stood, and `gone` were gone already; the one that went last at the end. One that is back
/// under the same name begins at nothing, and is forgotten here.
pub fn departed(gone: &[Gone], before: &[Arc<Backend>], now: &[Arc<Backend>]) -> Arc<[Gone]> {
    let went = before.iter().map(|one| Gone {
        name: Arc::clone(&one.name),
        priced: one.prices.is_some(),
        vitals: one.vitals.clone(),
    });
    let away = |gone: &Gone| now.iter().all(|one| one.name != gone.name);
    let all: Vec<_> = gone.iter().cloned().chain(went).filter(away).collect();
    let beyond = all.len().saturating_sub(REMEMBERED);
    all.into_iter().skip(beyond).collect()
}
