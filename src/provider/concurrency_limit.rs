//! A concurrency limit whose maximum can change at run time.
//!
//! `tokio::sync::Semaphore` does not fit: a reload may set the maximum below the number of permits
//! already held, and the permits must outlive the actor that issued them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct ConcurrencyLimit {
    in_use: AtomicUsize,
    idle: Notify,
}

/// A held slot. Dropping it releases the slot.
#[derive(Debug)]
pub struct ConcurrencyPermit(Arc<ConcurrencyLimit>);

impl ConcurrencyLimit {
    /// Acquires a permit if fewer than `max` are held.
    pub fn try_acquire(self: &Arc<Self>, max: usize) -> Option<ConcurrencyPermit> {
        let increment = |in_use: usize| (in_use < max).then(|| in_use + 1);
        let acquired = self
            .in_use
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, increment);
        acquired
            .is_ok()
            .then(|| ConcurrencyPermit(Arc::clone(self)))
    }

    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Acquire)
    }

    pub async fn wait_idle(&self) {
        loop {
            // Register before the check, so that no wake-up in between is lost.
            let notified = self.idle.notified();
            if self.in_use() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        if self.0.in_use.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn max_may_drop_below_the_held_permits() {
        let limit = Arc::new(ConcurrencyLimit::default());
        let mut held: Vec<_> = (0..4).map_while(|_| limit.try_acquire(3)).collect();
        assert_eq!((held.len(), limit.in_use()), (3, 3));
        assert!(limit.try_acquire(1).is_none());
        held.truncate(1);
        assert!(limit.try_acquire(1).is_none(), "one is still held");
        assert!(limit.try_acquire(2).is_some(), "dropped at once");
        held.clear();
        assert_eq!(limit.in_use(), 0);
    }

    #[tokio::test]
    async fn wait_idle_waits_for_the_last_permit() {
        let limit = Arc::new(ConcurrencyLimit::default());
        limit.wait_idle().await;
        let first = limit.try_acquire(2);
        let second = limit.try_acquire(2);
        let mut waiting = pin!(limit.wait_idle());
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().is_none());
        drop(second);
        let again = limit.try_acquire(2);
        assert!(
            (&mut waiting).now_or_never().is_none(),
            "a permit is held again"
        );
        drop(again);
        waiting.await;
    }
}
