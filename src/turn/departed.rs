//! Providers that are not configured any more: what they are still asked ends after that, costs what it costs, and is counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Those that went last. One that comes back under the same name begins at nothing, and is forgotten here.
#[derive(Debug, Default)]
pub struct Departed(Mutex<VecDeque<Gone>>);

impl Departed {
    /// These providers take the place of those.
    pub fn follow(&self, before: &[Arc<Backend>], now: &[Arc<Backend>]) {
        let stays = |name: &Arc<str>| now.iter().any(|one| one.name == *name);
        let mut all = self.lock();
        all.retain(|gone| !stays(&gone.name));
        all.extend(before.iter().filter(|one| !stays(&one.name)).map(|one| Gone {
            name: Arc::clone(&one.name),
            priced: one.prices.is_some(),
            vitals: one.vitals.clone(),
        }));
        let beyond = all.len().saturating_sub(REMEMBERED);
        all.drain(..beyond);
    }

    /// All of them, the one that went last at the end.
    pub fn all(&self) -> Vec<Gone> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Gone>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
