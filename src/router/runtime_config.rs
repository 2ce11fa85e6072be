//! The runtime configuration: the settings and the providers of one moment, as an immutable
//! snapshot.
//!
//! A reload publishes a new snapshot as a whole. Turns, sessions and requests take a snapshot when
//! they start and keep it to their end. The router reads the current one for each selection, so
//! that no new call goes to a removed provider. A removed provider finishes its running calls.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Settings;
use crate::provider::handle::Provider;
use crate::provider::status::ProviderStatus;

#[derive(Clone)]
pub struct RuntimeConfig {
    /// Settings that need a restart keep the values of the start.
    pub settings: Arc<Settings>,
    /// The providers in order of preference; names are unique.
    pub providers: Arc<[Arc<Provider>]>,
    /// The most recently removed providers. No provider is in both lists.
    pub removed_providers: Arc<[RemovedProvider]>,
}

impl RuntimeConfig {
    pub fn new(settings: Arc<Settings>, providers: Arc<[Arc<Provider>]>) -> Self {
        Self {
            settings,
            providers,
            removed_providers: Arc::new([]),
        }
    }

    pub fn updated(&self, settings: Arc<Settings>, providers: Arc<[Arc<Provider>]>) -> Self {
        let removed_providers =
            removed_providers(&self.removed_providers, &self.providers, &providers);
        Self {
            settings,
            providers,
            removed_providers,
        }
    }

    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers
            .iter()
            .find(|provider| &*provider.name == name)
    }
}

pub type ConfigWatch = watch::Receiver<Arc<RuntimeConfig>>;

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
fn removed_providers(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::test_bench::{BenchOptions, ProviderBench};

    #[actix_rt::test]
    async fn each_provider_is_either_configured_or_removed() {
        const NAMES: [&str; 20] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
            "r", "s", "t",
        ];
        let benches = NAMES.map(|name| ProviderBench::standalone(BenchOptions::new(name)));
        let providers_at = |indexes: &[usize]| -> Arc<[Arc<Provider>]> {
            benches
                .iter()
                .enumerate()
                .filter(|(index, _)| indexes.contains(index))
                .map(|(_, bench)| Arc::clone(&bench.provider))
                .collect()
        };
        let settings = Arc::new(Settings::default());
        let names = |table: &RuntimeConfig| {
            let configured: String = table
                .providers
                .iter()
                .map(|provider| provider.name.to_string())
                .collect();
            let removed: String = table
                .removed_providers
                .iter()
                .map(|provider| provider.name.to_string())
                .collect();
            (configured, removed)
        };
        let mut table = RuntimeConfig::new(Arc::clone(&settings), providers_at(&[0, 1]));
        let mut reload = |indexes: &[usize]| {
            table = table.updated(Arc::clone(&settings), providers_at(indexes));
            names(&table)
        };
        let expected =
            |configured: &str, removed: &str| (configured.to_owned(), removed.to_owned());
        assert_eq!(reload(&[0, 1]), expected("ab", ""));
        assert_eq!(reload(&[1]), expected("b", "a"));
        assert_eq!(reload(&[1]), expected("b", "a"), "removed once");
        assert_eq!(reload(&[2]), expected("c", "ab"));
        assert_eq!(
            reload(&[0, 2]),
            expected("ac", "b"),
            "a provider that is configured again is not removed"
        );
        assert_eq!(
            reload(&[2]),
            expected("c", "ba"),
            "removed again, so it is last"
        );
        for index in 3..NAMES.len() {
            reload(&[index]);
        }
        let (configured, removed) = reload(&[]);
        assert_eq!(
            (configured.as_str(), removed.len(), removed.as_str()),
            ("", MAX_REMOVED_PROVIDERS, "efghijklmnopqrst")
        );
    }
}
