//! A moment to come, as it is told to people: the same one for as long as it is the same.

use std::time::Duration;

use crate::chat::At;

/// So far a clock that was set may lead what was told astray. Less is told apart by nobody, and the two clocks are never read at one time.
const ASTRAY: Duration = Duration::from_secs(1);

/// A moment of the clock that intervals run on, and what was told of it by the wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown(Option<(Duration, At)>);

impl Shown {
    /// This was told of that moment.
    pub(super) fn of(moment: Duration, told: At) -> Self {
        Self(Some((moment, told)))
    }

    /// What is to be told of `moment`, which the wall clock's reading of now makes `wall`.
    pub(super) fn tell(&mut self, moment: Duration, wall: At) -> At {
        let known = self.0.filter(|(known, told)| {
            *known == moment && told.since(wall).max(wall.since(*told)) <= ASTRAY
        });
        let told = known.map_or(wall, |(_, told)| told);
        *self = Self::of(moment, told);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_moment_is_told_the_same_until_a_clock_is_set() {
        let mut shown = Shown::default();
        let (first, second) = (Duration::from_secs(10), Duration::from_secs(11));
        let told = [
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
        for (moment, wall, told) in told {
            assert_eq!(shown.tell(moment, At(wall)), At(told), "{moment:?}, {wall}");
        }
        assert_eq!(Shown::of(first, At(5)).tell(first, At(9)), At(5));
    }
}
