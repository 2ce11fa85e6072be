//! Records of past outages and of the time the service has been observed.

use serde::{Deserialize, Serialize};

use super::status::ServiceMode;
use super::time::Timestamp;

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
