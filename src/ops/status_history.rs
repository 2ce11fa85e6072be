//! Status history: incidents, the last change of the active provider, and recent latencies.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Incident, ServiceLifetime, Timestamp};

pub const TREND_INTERVAL: Duration = Duration::from_secs(30);

/// Half an hour of points.
pub const MAX_TREND_POINTS: usize = 60;

#[derive(Clone, Debug, PartialEq)]
pub struct StatusHistory {
    /// All saved incidents, newest first.
    pub incidents: Vec<Incident>,
    pub lifetime: ServiceLifetime,
    /// The last time another provider became the active one.
    pub last_provider_change: Option<ActiveProviderChange>,
    pub latency_trends: HashMap<Arc<str>, LatencyTrend>,
}

/// A change of the provider that the next turn would ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveProviderChange {
    /// `None` if no provider was available.
    pub from: Option<Arc<str>>,
    /// `None` if no provider is available.
    pub to: Option<Arc<str>>,
    pub at: Timestamp,
    /// Why the previous provider was unavailable. `None` if it was available and another one is
    /// preferred.
    pub reason: Option<&'static str>,
}

/// The median time to first token of one provider in milliseconds, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyTrend {
    /// At most [`MAX_TREND_POINTS`]. `None` if the provider had no calls.
    pub points: VecDeque<Option<u64>>,
}

impl LatencyTrend {
    pub fn record(&mut self, median: Option<u64>) {
        if self.points.len() >= MAX_TREND_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_points_are_dropped() {
        let mut trend = LatencyTrend::default();
        (0..100).for_each(|n| trend.record(Some(n)));
        assert_eq!(
            (trend.points.len(), trend.points[0]),
            (MAX_TREND_POINTS, Some(40))
        );
    }
}
