//! The public state of the service, its outages and drills.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

/// The public view of a running outage drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    pub provider: Arc<str>,
    /// The injected fault, such as `rate_limit`.
    pub fault: String,
    /// The share of calls that fail: above 0, at most 1.
    pub share: f64,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// A period in which the service was not in normal mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The same in the banner, the status page, alerts and JSON.
    pub id: String,
    pub mode: ServiceMode,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    /// A sentence without secrets: the unavailable providers, each with its reason.
    pub cause: String,
}

/// The period in which the service is known to have run. Nothing is known outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLifetime {
    #[serde(rename = "first")]
    pub first_start: Timestamp,
    #[serde(rename = "last")]
    pub last_seen: Timestamp,
}
