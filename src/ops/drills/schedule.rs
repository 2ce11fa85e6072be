//! Starts the scheduled drills. Each minute of the wall clock is checked once.

use std::sync::Arc;
use std::time::Duration;

use super::DrillService;
use crate::domain::Timestamp;

const MINUTE_MS: u64 = 60_000;

/// The number of missed minutes that are checked later, after the machine slept or its clock was
/// set. Nobody expects a drill that starts later than that.
const MAX_CATCH_UP_MINUTES: u64 = 2;

/// Starts scheduled drills until the service stops. `wall` reads the wall clock.
pub async fn run_schedule(drills: Arc<DrillService>, wall: impl Fn() -> Timestamp) {
    let mut last = minute_of(wall());
    loop {
        let now = wall();
        let rest_ms = MINUTE_MS - now.0 % MINUTE_MS;
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
        let now = minute_of(wall());
        // Read the configuration each time: a reload may have changed it.
        let config = drills.deps.service.config();
        for minute in missed_minutes(last, now) {
            for drill in config
                .settings
                .drills
                .iter()
                .filter(|drill| drill.at.matches_at(Timestamp(minute * MINUTE_MS)))
            {
                drills.run_scheduled(drill);
            }
        }
        last = now;
    }
}

fn minute_of(at: Timestamp) -> u64 {
    at.0 / MINUTE_MS
}

/// The minutes to check after `last`. After a clock was set back, checks restart at `now`.
fn missed_minutes(last: u64, now: u64) -> impl Iterator<Item = u64> {
    let from = if now < last {
        now
    } else {
        (last + 1).max(now.saturating_sub(MAX_CATCH_UP_MINUTES))
    };
    from..=now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_is_checked_once() {
        let minutes = |last, now| missed_minutes(last, now).collect::<Vec<_>>();
        assert_eq!(minutes(5, 5), [0_u64; 0], "woken early");
        assert_eq!(minutes(5, 6), [6]);
        assert_eq!(minutes(5, 7), [6, 7]);
        assert_eq!(minutes(5, 500), [498, 499, 500], "a machine that slept");
        assert_eq!(minutes(500, 5), [5], "a clock that was set back");
    }
}
