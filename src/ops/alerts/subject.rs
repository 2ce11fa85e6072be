//! The subjects of alerts and their observed conditions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Something that is either well or not. The rate limit for alerts applies per subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertSubject {
    /// A provider: well, down, or blocked.
    Provider(Arc<str>),
    /// A provider's daily budget: available, or spent.
    Budget(Arc<str>),
    Mode,
    Store,
    /// An anomaly metric: in its usual range, or not.
    Warning(AnomalyMetric),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyMetric {
    Degraded,
    /// The ratio of stale cached answers.
    Stale,
    /// The cost in USD per hour.
    Cost,
    /// The 95th percentile of the time to first token.
    FirstToken,
}

impl AnomalyMetric {
    pub const ALL: [Self; 4] = [Self::Degraded, Self::Stale, Self::Cost, Self::FirstToken];

    /// The name in `reason`, which programs read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Degraded => "degraded_share",
            Self::Stale => "stale_share",
            Self::Cost => "cost_per_hour",
            Self::FirstToken => "first_token_p95",
        }
    }
}

/// Severity: 0 well, 1 bad, 2 worse.
pub type AlertSeverity = u8;

pub const MAX_SEVERITY: AlertSeverity = 2;

impl AlertSubject {
    pub fn provider(&self) -> Option<&Arc<str>> {
        match self {
            Self::Provider(name) | Self::Budget(name) => Some(name),
            Self::Mode | Self::Store | Self::Warning(_) => None,
        }
    }

    /// A recovery from severity 2 to 1 is reported. If not, as for a blocked provider that is
    /// merely down by now, only a full recovery is.
    pub const fn reports_partial_recovery(&self) -> bool {
        matches!(self, Self::Mode)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlertCondition {
    pub subject: AlertSubject,
    pub severity: AlertSeverity,
    /// The reason in the protocol's word if it has one.
    pub reason: Option<String>,
    /// The reason in a sentence for people.
    pub description: String,
    /// An outage drill causes the condition.
    pub is_drill: bool,
}
