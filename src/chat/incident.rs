//! Records of past outages and of the time the service has been observed.

use serde::{Deserialize, Serialize};

use super::status::Mode;
use super::time::At;

/// A period in which the service was not in normal mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The same in the banner, the status page, alerts and JSON.
    pub id: String,
    pub mode: Mode,
    pub started: At,
    pub ended: Option<At>,
    /// A sentence without secrets: the unavailable providers, each with its reason.
    pub cause: String,
}

/// The period in which the service is known to have run. Nothing is known outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    #[serde(rename = "first")]
    pub first: At,
    #[serde(rename = "last")]
    pub last: At,
}
