//! Measures for how long the current thread was stalled, by a blocking call or for lack of CPU
//! time.
//!
//! A timeout that fires during a stall proves nothing about the provider, because its data may lie
//! unread in the socket. Token and probe timeouts are therefore extended by the stall. The timeouts
//! of a whole attempt and of a turn are not, because a visitor waits.
//!
//! Stalls are detected by a heartbeat on each thread that reads from providers. A thread without
//! one (in tests on a paused clock) never counts as stalled.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);

/// A gap between heartbeats from which on it counts as a stall. Shorter ones are normal load.
const MIN_STALL: Duration = Duration::from_secs(1);

/// The maximum extension of a timeout. A thread that stalls repeatedly is one more reason to try
/// another provider.
const MAX_COMPENSATION: Duration = Duration::from_secs(60);

thread_local! {
    static HEARTBEAT: Cell<Option<Heartbeat>> = const { Cell::new(None) };
}

/// Starts the heartbeat of this thread, which lasts until its runtime ends.
pub fn monitor_current_thread() {
    if HEARTBEAT.get().is_some() {
        return;
    }
    HEARTBEAT.set(Some(Heartbeat::start(Instant::now())));
    // Dropped with the runtime, even if the task never ran.
    let guard = HeartbeatGuard;
    actix::spawn(async move {
        let _guard = guard;
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            HEARTBEAT.set(HEARTBEAT.get().map(|beats| beats.beat(Instant::now())));
        }
    });
}

struct HeartbeatGuard;

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        HEARTBEAT.set(None);
    }
}

/// The last heartbeat of a thread and its stalls so far.
#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    last_beat: Instant,
    /// The total time stalled until `last_beat`.
    total_stall: Duration,
}

impl Heartbeat {
    fn start(now: Instant) -> Self {
        Self {
            last_beat: now,
            total_stall: Duration::ZERO,
        }
    }

    fn beat(self, now: Instant) -> Self {
        Self {
            last_beat: now,
            total_stall: self.stalled_until(now),
        }
    }

    /// The total time stalled until `now`. Includes a stall that the heartbeat has not seen yet,
    /// because other tasks may run first after it.
    fn stalled_until(self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.last_beat);
        if since < MIN_STALL {
            self.total_stall
        } else {
            self.total_stall + since
        }
    }
}

fn thread_stalled_until(now: Instant) -> Duration {
    HEARTBEAT
        .get()
        .map_or(Duration::ZERO, |beats| beats.stalled_until(now))
}

/// An instant on this thread. Timeouts measured from it can exclude stalls.
#[derive(Clone, Copy, Debug)]
pub struct StallAwareInstant {
    at: Instant,
    /// The thread's total stall at `at`.
    stalled_before: Duration,
}

impl StallAwareInstant {
    pub fn now() -> Self {
        let at = Instant::now();
        Self {
            at,
            stalled_before: thread_stalled_until(at),
        }
    }

    pub fn elapsed(self) -> Duration {
        self.at.elapsed()
    }

    /// The stalled part of the time since, at most `MAX_COMPENSATION`.
    pub fn stalled(self) -> Duration {
        self.stalled_until(Instant::now())
    }

    /// The time since, without stalls.
    pub fn elapsed_awake(self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(self.at)
            .saturating_sub(self.stalled_until(now))
    }

    /// The instant `time` later, regardless of stalls.
    pub fn wall_deadline(self, time: Duration) -> Instant {
        self.at + time
    }

    /// The deadline of a timeout, extended by the stalls so far.
    pub fn deadline(self, limit: Duration) -> Instant {
        self.wall_deadline(limit) + self.stalled()
    }

    /// Waits for `future`, at most for `limit` from this instant, not counting stalls.
    ///
    /// # Errors
    /// The limit has passed.
    pub async fn timeout<T>(
        self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut future = pin!(future);
        // A stall while waiting moves the deadline: wait again until it has really passed.
        loop {
            let waited = tokio::time::timeout_at(self.deadline(limit), &mut future).await;
            if waited.is_ok() || Instant::now() >= self.deadline(limit) {
                return waited;
            }
        }
    }

    fn stalled_until(self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at);
        thread_stalled_until(now)
            .saturating_sub(self.stalled_before)
            .min(since)
            .min(MAX_COMPENSATION)
    }
}

/// Waits for `future`, at most for `limit` from now, not counting stalls.
///
/// # Errors
/// The limit has passed.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    StallAwareInstant::now().timeout(limit, future).await
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn late_heartbeat_counts_as_a_stall() {
        let begun = Instant::now();
        let mut beats = Heartbeat::start(begun);
        for beat in 1..=10 {
            beats = beats.beat(begun + ms(200) * beat);
        }
        let last = begun + ms(2_000);
        assert_eq!(
            (beats.last_beat, beats.stalled_until(last + ms(999))),
            (last, Duration::ZERO)
        );
        assert_eq!(
            beats.stalled_until(last + ms(3_000)),
            ms(3_000),
            "known before the next heartbeat"
        );
        let after = beats.beat(last + ms(3_000));
        assert_eq!(
            after.stalled_until(last + ms(3_200)),
            ms(3_000),
            "counted once"
        );
        assert_eq!(
            after.beat(last + ms(5_000)).total_stall,
            ms(5_000),
            "the second stall is added to the first"
        );
    }

    #[actix_rt::test]
    async fn stalled_time_is_not_counted() {
        let before = StallAwareInstant::now();
        monitor_current_thread();
        monitor_current_thread();
        let held = StallAwareInstant::now();
        // Block the thread deliberately.
        thread::sleep(ms(1_500));
        assert!(
            held.stalled() >= ms(1_500) && held.elapsed_awake() < ms(500),
            "{held:?}"
        );
        assert!(before.stalled() >= ms(1_500));
        assert!(
            StallAwareInstant::now().stalled() < ms(500),
            "earlier stalls do not count"
        );
        assert!(held.deadline(ms(700)) > Instant::now());
    }

    #[actix_rt::test]
    async fn data_that_arrived_during_a_stall_is_accepted() {
        monitor_current_thread();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let late = async {
            // The result arrives only after the stall, just as a socket is read only then.
            tokio::task::yield_now().await;
            thread::sleep(ms(1_500));
            actix::spawn(async { sender.send(()) });
            receiver.await
        };
        assert!(timeout(ms(300), late).await.is_ok());
        assert!(timeout(ms(20), std::future::pending::<()>()).await.is_err());
    }

    #[actix_rt::test]
    async fn thread_without_heartbeat_never_stalls() {
        let mark = StallAwareInstant::now();
        thread::sleep(ms(1_100));
        assert_eq!(mark.stalled(), Duration::ZERO);
        let limit = timeout(ms(20), std::future::pending::<()>());
        assert!(limit.await.is_err());
    }
}
