//! What is remembered of the service's bad times. Values only.

use serde::{Deserialize, Serialize};

use super::status::Mode;
use super::time::At;

/// A time in which the service was not normal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id, the same in banner, page, alerts and JSON.
    pub id: String,
    /// The worst that it came to.
    pub mode: Mode,
    /// When it began.
    pub started: At,
    /// When it was over; none while it runs.
    pub ended: Option<At>,
    /// Why, in a sentence without secrets: the providers that could not be asked, each with its reason.
    pub cause: String,
}

/// When the service was seen to run: what lies before the first or after the last moment is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// When it ran for the first time.
    pub first: At,
    /// When it was last seen to run.
    pub last: At,
}
