//! The wall-clock time of a monotonic moment, kept stable while the moment does not change.

use std::time::Duration;

use crate::domain::Timestamp;

/// A difference up to this keeps the published time. Both clocks are never read at the same
/// instant, and nobody notices less.
const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(1);

/// A monotonic moment and the wall-clock time published for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StableRetryAt(Option<(Duration, Timestamp)>);

impl StableRetryAt {
    pub(super) fn new(moment: Duration, published: Timestamp) -> Self {
        Self(Some((moment, published)))
    }

    /// Returns the time to publish for `moment`. `wall` is its wall-clock time by the present
    /// clocks.
    pub(super) fn resolve(&mut self, moment: Duration, wall: Timestamp) -> Timestamp {
        let known = self.0.filter(|(known, published)| {
            let drift = published.since(wall).max(wall.since(*published));
            *known == moment && drift <= MAX_CLOCK_DRIFT
        });
        let published = known.map_or(wall, |(_, published)| published);
        *self = Self::new(moment, published);
        published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_time_is_stable_until_a_clock_is_set() {
        let mut stable = StableRetryAt::default();
        let first = Duration::from_secs(10);
        let second = Duration::from_secs(11);
        let steps = [
            (first, 5_000, 5_000),
            (first, 5_001, 5_000),
            (first, 4_999, 5_000),
            (first, 6_000, 5_000),
            (first, 6_001, 6_001),
            (first, 6_000, 6_001),
            (second, 6_002, 6_002),
            (first, 6_000, 6_000),
            (first, 3_600_000, 3_600_000),
            (first, 0, 0),
        ];
        for (moment, wall, expected) in steps {
            assert_eq!(
                stable.resolve(moment, Timestamp(wall)),
                Timestamp(expected),
                "{moment:?}, {wall}"
            );
        }
        assert_eq!(
            StableRetryAt::new(first, Timestamp(5)).resolve(first, Timestamp(9)),
            Timestamp(5)
        );
    }
}
