//! A future that is polled only when it asked to be: for what is hardly ever ready, beside what is ready at each token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A pinned future behind a bell of its own: while it has not rung, a poll costs a look at the bell.
///
/// Polls a future as often as it wakes, so it is for such as keep to the contract of wakers; for those it changes nothing but the cost.
pub struct Dozing<'f, F: ?Sized> {
    future: Pin<&'f mut F>,
    bell: Arc<Bell>,
    /// The bell, as the future is given it.
    waker: Waker,
}

/// Rings for one future, and wakes whoever polls it.
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl<'f, F: Future + ?Sized> Dozing<'f, F> {
    /// Lets a future doze; its first poll reaches it.
    pub fn new(future: Pin<&'f mut F>) -> Self {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(Arc::clone(&bell));
        Self {
            future,
            bell,
            waker,
        }
    }
}

impl<F: Future + ?Sized> Future for Dozing<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // First whom to wake, then whether it rang: in the other order a bell in between would be heard by nobody.
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// Counts how often it is polled.
    async fn counted<T>(polls: &Cell<u32>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            polls.set(polls.get() + 1);
            future.as_mut().poll(cx)
        })
        .await
    }

    #[tokio::test]
    async fn it_is_polled_when_it_woke_and_not_when_others_did() {
        let (polls, (ring, rung), (tell, mut told)) =
            (Cell::new(0), oneshot::channel(), mpsc::channel(1));
        let mut rung = pin!(counted(&polls, rung));
        let mut dozing = Dozing::new(rung.as_mut());
        let telling = tokio::spawn(async move {
            for word in 0..100 {
                tell.send(word).await.unwrap();
            }
            tell
        });
        for word in 0..100 {
            tokio::select! {
                biased;
                _ = &mut dozing => panic!("it did not ring"),
                heard = told.recv() => assert_eq!(heard, Some(word)),
            }
        }
        assert_eq!(polls.get(), 1);
        let _open = telling.await.unwrap();
        ring.send(7).unwrap();
        tokio::select! {
            word = told.recv() => panic!("{word:?}"),
            rung = &mut dozing => assert_eq!(rung, Ok(7)),
        }
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_polled_it_last() {
        let (ring, rung) = oneshot::channel::<()>();
        let mut rung = Box::pin(rung);
        let mut dozing = Dozing::new(rung.as_mut());
        assert!(
            Pin::new(&mut dozing)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        tokio::spawn(async move { ring.send(()) });
        dozing.await.unwrap();
    }

    #[tokio::test]
    async fn what_wakes_itself_while_it_is_polled_is_polled_again() {
        let mut yielding = pin!(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            7
        });
        assert_eq!(Dozing::new(yielding.as_mut()).await, 7);
    }
}
