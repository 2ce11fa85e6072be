//! The public state of the service.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::drill::DrillView;
use super::time::Timestamp;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceMode {
    /// The preferred provider is available.
    #[default]
    Normal,
    /// Only other providers are available.
    Degraded,
    Outage,
}

/// The state of a provider, as its breaker and the operator set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    #[default]
    Closed,
    /// It failed and is not called for a while.
    Open,
    HalfOpen,
    Blocked,
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    pub name: Arc<str>,
    pub state: ProviderState,
}

/// The content of the `status` frame, also part of `welcome`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    pub mode: ServiceMode,
    pub since: Timestamp,
    /// The id of the current incident, the same everywhere.
    pub incident: Option<String>,
    /// One sentence for visitors; empty in normal mode.
    pub message: String,
    pub active: Option<Arc<str>>,
    pub providers: Vec<ProviderView>,
    /// The running drill. If there are several, the one on the most preferred provider.
    #[serde(default)]
    pub drill: Option<DrillView>,
}
