//! What the service goes by at a moment: its settings and its providers, as one value that never changes.
//!
//! A reload publishes another table in the place of the one there was, whole. Who begins something (a turn, a session, a request) looks at the
//! table once and goes by it to its end; the router looks at each question anew, so that no call is begun to a provider that is gone. A provider that is
//! not in the table any more finishes what it was asked.

use std::sync::Arc;

use tokio::sync::watch;

use super::departed::{Gone, departed};
use crate::provider::backend::Backend;
use crate::settings::Settings;

/// The settings and the providers. Immutable.
#[derive(Clone)]
pub struct Table {
    /// The configuration. What needs a restart is in it as the service was started with it.
    pub settings: Arc<Settings>,
    /// The backends in order of preference; no two have the same name.
    pub backends: Arc<[Arc<Backend>]>,
    /// The providers that went last; none of them is among the backends, so who counts both counts each once.
    pub departed: Arc<[Gone]>,
}

impl Table {
    /// The first one.
    pub fn first(settings: Arc<Settings>, backends: Arc<[Arc<Backend>]>) -> Self {
        Self {
            settings,
            backends,
            departed: Arc::new([]),
        }
    }

    /// The one that takes the place of this.
    pub fn next(&self, settings: Arc<Settings>, backends: Arc<[Arc<Backend>]>) -> Self {
        let departed = departed(&self.departed, &self.backends, &backends);
        Self {
            settings,
            backends,
            departed,
        }
    }

    /// The backend of this name.
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| &*backend.name == name)
    }
}

/// Where the table is published.
pub type Published = watch::Receiver<Arc<Table>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stand::{Plan, Stand};
    use crate::router::departed::REMEMBERED;

    #[actix_rt::test]
    async fn at_every_moment_each_provider_is_there_or_gone_and_not_both() {
        const NAMES: [&str; 20] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
            "r", "s", "t",
        ];
        let stands = NAMES.map(|name| Stand::alone(Plan::new(name)));
        let of = |places: &[usize]| -> Arc<[Arc<Backend>]> {
            stands
                .iter()
                .enumerate()
                .filter(|(place, _)| places.contains(place))
                .map(|(_, one)| Arc::clone(&one.backend))
                .collect()
        };
        let settings = Arc::new(Settings::default());
        let names = |table: &Table| {
            let there: Vec<_> = table
                .backends
                .iter()
                .map(|one| one.name.to_string())
                .collect();
            let gone: Vec<_> = table
                .departed
                .iter()
                .map(|one| one.name.to_string())
                .collect();
            (there.join(""), gone.join(""))
        };
        let mut table = Table::first(Arc::clone(&settings), of(&[0, 1]));
        let mut after = |places: &[usize]| {
            table = table.next(Arc::clone(&settings), of(places));
            names(&table)
        };
        let told = |there: &str, gone: &str| (there.to_owned(), gone.to_owned());
        assert_eq!(after(&[0, 1]), told("ab", ""));
        assert_eq!(after(&[1]), told("b", "a"));
        assert_eq!(after(&[1]), told("b", "a"), "it goes once");
        assert_eq!(after(&[2]), told("c", "ab"));
        assert_eq!(
            after(&[0, 2]),
            told("ac", "b"),
            "one that is back is not gone"
        );
        assert_eq!(after(&[2]), told("c", "ba"), "it went again, last");
        for place in 3..NAMES.len() {
            after(&[place]);
        }
        let (there, gone) = after(&[]);
        assert_eq!(
            (there.as_str(), gone.len(), gone.as_str()),
            ("", REMEMBERED, "efghijklmnopqrst")
        );
    }
}
