//! The wall-clock time of a monotonic moment, kept stable while the moment does not change.

use std::time::Duration;

use crate::chat::At;

/// A difference up to this keeps the published time. Both clocks are never read at the same
/// instant, and nobody notices less.
const ASTRAY: Duration = Duration::from_secs(1);

/// A monotonic moment and the wall-clock time published for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown(Option<(Duration, At)>);

impl Shown {
    pub(super) fn of(moment: Duration, published: At) -> Self {
        Self(Some((moment, published)))
    }

    /// Returns the time to publish for `moment`. `wall` is its wall-clock time by the present
    /// clocks.
    pub(super) fn tell(&mut self, moment: Duration, wall: At) -> At {
        let known = self.0.filter(|(known, published)| {
            let drift = published.since(wall).max(wall.since(*published));
            *known == moment && drift <= ASTRAY
        });
        let published = known.map_or(wall, |(_, published)| published);
        *self = Self::of(moment, published);
        published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_time_is_stable_until_a_clock_is_set() {
        let mut stable = Shown::default();
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
                stable.tell(moment, At(wall)),
                At(expected),
                "{moment:?}, {wall}"
            );
        }
        assert_eq!(Shown::of(first, At(5)).tell(first, At(9)), At(5));
    }
}
