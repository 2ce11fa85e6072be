//! What the status tells beyond the state of the moment: incidents, the last switch, how fast providers were lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::chat::{At, Incident, Life};

/// How often a provider's speed is noted.
pub const TREND_EVERY: Duration = Duration::from_secs(30);

/// How many of these notes are kept: half an hour of them.
pub const TREND_POINTS: usize = 60;

/// The history that goes with a state. Values only.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The incidents that are remembered, the newest first.
    pub incidents: Vec<Incident>,
    /// When the service was seen to run.
    pub life: Life,
    /// The last time that another provider became the one to be asked next.
    pub switched: Option<Switch>,
    /// How long first tokens took lately, by provider.
    pub trends: HashMap<Arc<str>, Trend>,
}

/// Another provider became the one to be asked next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The one before; none where there was nobody.
    pub from: Option<Arc<str>>,
    /// The one now; none where there is nobody.
    pub to: Option<Arc<str>>,
    /// When.
    pub at: At,
    /// What was wrong with the one before; none where it was well and another is preferred.
    pub reason: Option<&'static str>,
}

/// A provider's median time to the first token in milliseconds, oldest first; none where it was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trend {
    /// At most [`TREND_POINTS`].
    pub points: VecDeque<Option<u64>>,
}

impl Trend {
    /// Notes one more.
    pub fn note(&mut self, median: Option<u64>) {
        if self.points.len() >= TREND_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_forgets_its_oldest() {
        let mut trend = Trend::default();
        (0..100).for_each(|n| trend.note(Some(n)));
        assert_eq!(
            (trend.points.len(), trend.points[0]),
            (TREND_POINTS, Some(40))
        );
    }
}
