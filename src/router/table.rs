//! What the service goes by at a moment: its settings and its providers, as one value that never changes.
//!
//! A reload publishes another table in the place of the one there was, whole. Who begins something (a turn, a session, a request) looks at the
//! table once and goes by it to its end; the router looks at each question anew, so that no call is begun to a provider that is gone. A provider that is
//! not in the table any more finishes what it was asked.

use std::sync::Arc;

use tokio::sync::watch;

use crate::provider::backend::Backend;
use crate::settings::Settings;

/// The settings and the providers. Immutable.
#[derive(Clone)]
pub struct Table {
    /// The configuration. What needs a restart is in it as the service was started with it.
    pub settings: Arc<Settings>,
    /// The backends in order of preference; no two have the same name.
    pub backends: Arc<[Arc<Backend>]>,
}

impl Table {
    /// The backend of this name.
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| &*backend.name == name)
    }
}

/// Where the table is published.
pub type Published = watch::Receiver<Arc<Table>>;
