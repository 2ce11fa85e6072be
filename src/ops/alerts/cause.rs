//! What an alert can be about. Values only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A thing that can be well or not. What is told of one is held back only by what was told of the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A provider: well, down, or blocked.
    Provider(Arc<str>),
    /// A provider's budget: there, or spent.
    Budget(Arc<str>),
    /// The service's mode: normal, degraded, or an outage.
    Mode,
    /// The store: well, or failing.
    Store,
    /// A figure: in its usual range, or not.
    Warning(Figure),
}

/// A figure that early warning watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// The share of answers that no AI gave.
    Degraded,
    /// The share of answers that were old saved ones.
    Stale,
    /// USD an hour.
    Cost,
    /// What 95 % of first words stay within.
    FirstToken,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Degraded, Self::Stale, Self::Cost, Self::FirstToken];

    /// Its name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded_share",
            Self::Stale => "stale_share",
            Self::Cost => "cost_per_hour",
            Self::FirstToken => "first_token_p95",
        }
    }
}

/// How bad something is: 0 well, 1 not, 2 worse.
pub type Level = u8;

/// The worst level.
pub const WORST: Level = 2;

impl Cause {
    /// The provider that it is about.
    pub fn provider(&self) -> Option<&Arc<str>> {
        match self {
            Self::Provider(name) | Self::Budget(name) => Some(name),
            Self::Mode | Self::Store | Self::Warning(_) => None,
        }
    }

    /// Whether a better level that is not yet well is news too. A blocked provider that is merely down is no news.
    pub const fn tells_steps(&self) -> bool {
        matches!(self, Self::Mode)
    }
}

/// How a cause is found at a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub cause: Cause,
    /// How bad.
    pub level: Level,
    /// Why, in the protocol's word where there is one.
    pub reason: Option<String>,
    /// The same for people.
    pub words: String,
    /// Whether an outage drill brings it about.
    pub staged: bool,
}
