//! An answer over time: its script, word by word, through whatever breaks on the way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::Pace;
use super::fault::{Condition, Effect, SLOW, effect};
use super::speak::Script;

/// The body of a told answer. An error in it makes the server reset the connection.
pub(super) struct Told {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    breaking: Option<io::Error>,
}

/// Starts to tell `script` to an answer that was asked for under `began`; ends when told, broken, or unheard.
pub(super) fn tell(
    script: Script,
    pace: Pace,
    began: Condition,
    now: watch::Receiver<Condition>,
) -> Told {
    let (to, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut teller = Teller {
            pace,
            began,
            now,
            to: to.clone(),
        };
        tokio::select! {
            () = to.closed() => {}
            () = teller.tell(script) => {}
        }
    });
    Told {
        pieces,
        breaking: None,
    }
}

/// What a connection dies of when it is broken on purpose.
pub(super) fn reset() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(error) = self.breaking.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.pieces.poll_recv(cx)) {
            Some(Err(error)) => {
                // The connection flushes what it holds whenever the body has nothing for it. Without this pause the
                // last words before the break would be lost with their buffer.
                self.breaking = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => Poll::Ready(other.map(|piece| piece.map(Frame::data))),
        }
    }
}

struct Teller {
    pace: Pace,
    began: Condition,
    now: watch::Receiver<Condition>,
    to: mpsc::Sender<io::Result<Bytes>>,
}

impl Teller {
    async fn tell(&mut self, script: Script) {
        let total = script.words.len();
        let mut opening = script.opening;
        for (told, word) in script.words.into_iter().enumerate() {
            let first = told == 0;
            let wait = if first {
                self.pace.first_token
            } else {
                self.pace.between_words
            };
            if !self.goes_on(told, total, wait, &script.garbage).await {
                return;
            }
            self.say(std::mem::take(&mut opening) + &word).await;
        }
        if self
            .goes_on(total, total, Duration::ZERO, &script.garbage)
            .await
        {
            self.say(opening + &script.closing).await;
        }
    }

    /// Waits for the next piece's time, or carries out what is broken and says no.
    async fn goes_on(&mut self, told: usize, total: usize, wait: Duration, garbage: &str) -> bool {
        loop {
            let now = *self.now.borrow_and_update();
            let wait = match effect(self.began, now, told, total) {
                Effect::GoOn => wait,
                // The end is no word of its own.
                Effect::Slowly if told == total => wait,
                Effect::Slowly => wait.max(SLOW),
                Effect::Silence => {
                    changed(&mut self.now).await;
                    return self.cut().await;
                }
                Effect::Reset => return self.cut().await,
                Effect::Garbage => {
                    self.say(garbage.to_owned()).await;
                    return false;
                }
            };
            tokio::select! {
                () = sleep(wait) => return true,
                () = changed(&mut self.now) => {}
            }
        }
    }

    async fn cut(&self) -> bool {
        self.send(Err(reset())).await;
        false
    }

    async fn say(&self, text: String) {
        if !text.is_empty() {
            self.send(Ok(Bytes::from(text))).await;
        }
    }

    async fn send(&self, piece: io::Result<Bytes>) {
        // Nobody listens any more: `tell` notices by itself.
        let _ = self.to.send(piece).await;
    }
}

/// Waits for another condition; for ever where none can come, since the simulator is then going away.
pub(super) async fn changed(now: &mut watch::Receiver<Condition>) {
    if now.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn what_was_told_is_flushed_before_the_break() {
        let (to, pieces) = mpsc::channel(2);
        to.try_send(Ok(Bytes::from("last words"))).unwrap();
        to.try_send(Err(reset())).unwrap();
        let mut told = Told {
            pieces,
            breaking: None,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut told).poll_frame(&mut cx);
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        assert!(poll().is_pending());
        assert!(matches!(poll(), Poll::Ready(Some(Err(_)))));
    }
}
