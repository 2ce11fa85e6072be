//! The public view of a running outage drill.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

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
