//! When the planned drills come: each minute of the wall clock is looked at once.

use std::sync::Arc;
use std::time::Duration;

use super::Drills;
use crate::chat::At;

const MINUTE_MS: u64 = 60_000;

/// Minutes that passed without a look, by a machine that slept or a clock that was set, are looked at afterwards up to this many: a drill that comes
/// much later than it was planned is none that anybody expects.
const LATE: u64 = 2;

/// Begins the planned drills, for ever. `wall`: the wall clock.
pub async fn run(drills: Arc<Drills>, wall: impl Fn() -> At) {
    let mut last = minute(wall());
    loop {
        let now = wall();
        let rest = MINUTE_MS - now.0 % MINUTE_MS;
        tokio::time::sleep(Duration::from_millis(rest)).await;
        let now = minute(wall());
        // As it is now: a reload may have changed it.
        let plan = drills.means.desk.table();
        for minute in unseen(last, now) {
            for drill in plan
                .settings
                .drills
                .iter()
                .filter(|drill| drill.at.holds_at(At(minute * MINUTE_MS)))
            {
                drills.planned(drill);
            }
        }
        last = now;
    }
}

fn minute(at: At) -> u64 {
    at.0 / MINUTE_MS
}

/// The minutes to look at, when the last look was at minute `last`. A clock that was set back begins anew, so that no drill waits for years.
fn unseen(last: u64, now: u64) -> impl Iterator<Item = u64> {
    let from = if now < last {
        now
    } else {
        (last + 1).max(now.saturating_sub(LATE))
    };
    from..=now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_is_looked_at_once() {
        let looks = |last, now| unseen(last, now).collect::<Vec<_>>();
        assert_eq!(looks(5, 5), [0_u64; 0], "woken early");
        assert_eq!(looks(5, 6), [6]);
        assert_eq!(looks(5, 7), [6, 7]);
        assert_eq!(looks(5, 500), [498, 499, 500], "a machine that slept");
        assert_eq!(looks(500, 5), [5], "a clock that was set back");
    }
}
