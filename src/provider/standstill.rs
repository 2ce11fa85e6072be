//! How long this thread stood still: held up by a call that blocks, or left without a processor. A limit of time that passes meanwhile says
//! nothing of the provider that is waited for: what it said in time lies in the socket, unread. So the limits of tokens and probes are those of the
//! time for which the thread was there; those of a whole attempt and of a turn are not, because a visitor waits.
//!
//! Known by a beat, of each thread on which providers are read. Without one (in tests on a paused clock) no thread ever stands still.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// From beat to beat.
const EVERY: Duration = Duration::from_millis(200);

/// So long without a beat is a standstill; less is a busy moment.
const NOTICED: Duration = Duration::from_secs(1);

/// The most that a limit is put off in all: a thread that stands still again and again is one more reason to ask elsewhere.
const MOST: Duration = Duration::from_secs(60);

thread_local! {
    static BEATS: Cell<Option<Beats>> = const { Cell::new(None) };
}

/// Watches this thread from now on, to the end of its runtime.
pub fn watch() {
    if BEATS.get().is_some() {
        return;
    }
    BEATS.set(Some(Beats::begin(Instant::now())));
    let unwatched = Unwatched;
    actix::spawn(async move {
        let _at_the_end = unwatched;
        loop {
            tokio::time::sleep(EVERY).await;
            BEATS.set(BEATS.get().map(|beats| beats.beat(Instant::now())));
        }
    });
}

/// Dropped with its runtime.
struct Unwatched;

impl Drop for Unwatched {
    fn drop(&mut self) {
        BEATS.set(None);
    }
}

/// The beats of a thread, as far as they matter.
#[derive(Clone, Copy, Debug)]
struct Beats {
    last: Instant,
    /// How long it stood still until then, all together.
    still: Duration,
}

impl Beats {
    fn begin(now: Instant) -> Self {
        Self {
            last: now,
            still: Duration::ZERO,
        }
    }

    fn beat(self, now: Instant) -> Self {
        Self {
            last: now,
            still: self.still(now),
        }
    }

    /// How long it stood still until now. Right also where others than the beat are first to go on.
    fn still(self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.last);
        if since < NOTICED {
            self.still
        } else {
            self.still + since
        }
    }
}

fn still(now: Instant) -> Duration {
    BEATS.get().map_or(Duration::ZERO, |beats| beats.still(now))
}

/// A moment on this thread, from which on time is measured.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: Instant,
    /// How long the thread had stood still until then.
    still: Duration,
}

impl Mark {
    /// This moment.
    pub fn now() -> Self {
        let at = Instant::now();
        Self {
            at,
            still: still(at),
        }
    }

    /// All of the time since.
    pub fn elapsed(self) -> Duration {
        self.at.elapsed()
    }

    /// How much of the time since was a standstill; a minute at most.
    pub fn still(self) -> Duration {
        self.still_at(Instant::now())
    }

    /// How much of it was not.
    pub fn awake(self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(self.at)
            .saturating_sub(self.still_at(now))
    }

    /// So much later, whatever this thread did.
    pub fn after(self, time: Duration) -> Instant {
        self.at + time
    }

    /// When so much time has passed that was none, as far as is known now.
    pub fn plus(self, limit: Duration) -> Instant {
        self.after(limit) + self.still()
    }

    /// Waits for `future` until the limit from here on is over, of the time for which this thread is there.
    ///
    /// # Errors
    /// It is over.
    pub async fn timeout<T>(
        self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut future = pin!(future);
        loop {
            let waited = tokio::time::timeout_at(self.plus(limit), &mut future).await;
            if waited.is_ok() || Instant::now() >= self.plus(limit) {
                return waited;
            }
        }
    }

    fn still_at(self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at);
        still(now).saturating_sub(self.still).min(since).min(MOST)
    }
}

/// Waits for `future`, for so long as this thread is there.
///
/// # Errors
/// The limit is over.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    Mark::now().timeout(limit, future).await
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_late_beat_is_a_standstill_from_when_it_is_due_to_be_noticed() {
        let begun = Instant::now();
        let mut beats = Beats::begin(begun);
        for beat in 1..=10 {
            beats = beats.beat(begun + ms(200) * beat);
        }
        let last = begun + ms(2_000);
        assert_eq!(
            (beats.last, beats.still(last + ms(999))),
            (last, Duration::ZERO)
        );
        assert_eq!(
            beats.still(last + ms(3_000)),
            ms(3_000),
            "known before the beat"
        );
        let after = beats.beat(last + ms(3_000));
        assert_eq!(after.still(last + ms(3_200)), ms(3_000), "and after, once");
        assert_eq!(
            after.beat(last + ms(5_000)).still,
            ms(5_000),
            "the second with the first"
        );
    }

    #[actix_rt::test]
    async fn time_for_which_the_thread_stood_still_is_not_counted() {
        let before = Mark::now();
        watch();
        watch();
        let held = Mark::now();
        // The test is of a thread that is blocked, so it is.
        thread::sleep(ms(1_500));
        assert!(
            held.still() >= ms(1_500) && held.awake() < ms(500),
            "{held:?}"
        );
        assert!(before.still() >= ms(1_500));
        assert!(
            Mark::now().still() < ms(500),
            "what was before counts no more"
        );
        assert!(held.plus(ms(700)) > Instant::now());
    }

    #[actix_rt::test]
    async fn what_came_in_time_is_taken_though_the_thread_was_not_there() {
        watch();
        let (tell, told) = tokio::sync::oneshot::channel();
        let late = async {
            // It is told only after the standstill, as a socket is read only then.
            tokio::task::yield_now().await;
            thread::sleep(ms(1_500));
            actix::spawn(async { tell.send(()) });
            told.await
        };
        assert!(timeout(ms(300), late).await.is_ok());
        assert!(timeout(ms(20), std::future::pending::<()>()).await.is_err());
    }

    #[actix_rt::test]
    async fn a_thread_that_nobody_watches_never_stands_still() {
        let mark = Mark::now();
        thread::sleep(ms(1_100));
        assert_eq!(mark.still(), Duration::ZERO);
        let limit = timeout(ms(20), std::future::pending::<()>());
        assert!(limit.await.is_err());
    }
}
