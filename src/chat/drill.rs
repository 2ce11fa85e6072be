//! An outage drill as everyone is told of it. Values only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::time::At;

/// A drill that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    /// The provider that seems to fail.
    pub provider: Arc<str>,
    /// How, as in `rate_limit`.
    pub fault: String,
    /// The share of its calls that this befalls, above 0 and up to 1.
    pub share: f64,
    /// When it began.
    pub from: At,
    /// When it ends by itself.
    pub until: At,
}
