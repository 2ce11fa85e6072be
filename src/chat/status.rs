//! The state of the service as everyone is told it. Values only; who computes them lives elsewhere.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::drill::DrillView;
use super::time::At;

/// The service's state in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The preferred provider can be asked.
    #[default]
    Normal,
    /// Some other can.
    Degraded,
    /// None can.
    Outage,
}

/// A provider's state as its breaker and its operator see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    /// It is asked.
    #[default]
    Closed,
    /// It failed; it is left alone for a time.
    Open,
    /// It is being tried.
    HalfOpen,
    /// Its key or quota is refused.
    Blocked,
    /// An operator switched it off.
    Disabled,
}

/// One provider as a page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    /// Its configured name.
    pub name: Arc<str>,
    /// Its state.
    pub state: ProviderState,
}

/// What the `status` frame says; also part of `welcome`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The state in one word.
    pub mode: Mode,
    /// Since when.
    pub since: At,
    /// The id of the incident that runs; one id everywhere.
    pub incident: Option<String>,
    /// One sentence for visitors; empty while all is well.
    pub message: String,
    /// The provider that would be asked next.
    pub active: Option<Arc<str>>,
    /// All of them, in order of preference.
    pub providers: Vec<ProviderView>,
    /// The outage drill that runs; of several the one at the most preferred provider.
    #[serde(default)]
    pub drill: Option<DrillView>,
}
