//! A future that is polled only after it was woken. It keeps a rarely ready future cheap beside one
//! that is ready at each token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wraps a pinned future. A poll costs one atomic operation unless the future's own waker was
/// called.
///
/// The future must follow the `Waker` contract. The wrapper does not change its result.
pub struct PollOnWake<'f, F: ?Sized> {
    future: Pin<&'f mut F>,
    flag: Arc<WakeFlag>,
    /// Wakes through `flag`. The future is polled with it.
    waker: Waker,
}

/// The waker of the inner future: remembers that it was called, and wakes the polling task.
struct WakeFlag {
    is_woken: AtomicBool,
    parent: AtomicWaker,
}

impl<'f, F: Future + ?Sized> PollOnWake<'f, F> {
    pub fn new(future: Pin<&'f mut F>) -> Self {
        let bell = Arc::new(WakeFlag {
            is_woken: AtomicBool::new(true),
            parent: AtomicWaker::new(),
        });
        let waker = Waker::from(Arc::clone(&bell));
        Self {
            future,
            flag: bell,
            waker,
        }
    }
}

impl<F: Future + ?Sized> Future for PollOnWake<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Register before reading the flag: a wake in between is then seen by the flag or the task.
        self.flag.parent.register(cx.waker());
        if !self.flag.is_woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.parent.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    async fn counted<T>(polls: &Cell<u32>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            polls.set(polls.get() + 1);
            future.as_mut().poll(cx)
        })
        .await
    }

    #[tokio::test]
    async fn future_is_polled_only_after_its_own_wake() {
        let polls = Cell::new(0);
        let (wake, woken) = oneshot::channel();
        let (sender, mut receiver) = mpsc::channel(1);
        let mut woken = pin!(counted(&polls, woken));
        let mut poll_on_wake = PollOnWake::new(woken.as_mut());
        let sending = tokio::spawn(async move {
            for number in 0..100 {
                sender.send(number).await.unwrap();
            }
            sender
        });
        for number in 0..100 {
            tokio::select! {
                biased;
                _ = &mut poll_on_wake => panic!("ready without a wake"),
                received = receiver.recv() => assert_eq!(received, Some(number)),
            }
        }
        assert_eq!(polls.get(), 1);
        let _sender = sending.await.unwrap();
        wake.send(7).unwrap();
        tokio::select! {
            received = receiver.recv() => panic!("{received:?}"),
            result = &mut poll_on_wake => assert_eq!(result, Ok(7)),
        }
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn wake_reaches_the_task_that_polled_last() {
        let (wake, woken) = oneshot::channel::<()>();
        let mut woken = Box::pin(woken);
        let mut poll_on_wake = PollOnWake::new(woken.as_mut());
        assert!(
            Pin::new(&mut poll_on_wake)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        tokio::spawn(async move { wake.send(()) });
        poll_on_wake.await.unwrap();
    }

    #[tokio::test]
    async fn future_that_wakes_itself_is_polled_again() {
        let mut yielding = pin!(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            7
        });
        assert_eq!(PollOnWake::new(yielding.as_mut()).await, 7);
    }
}
