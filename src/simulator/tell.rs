//! Streaming of an answer: its pieces, word by word, and the faults on the way.

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

/// The body of a streamed answer. An error in it makes the server reset the connection.
pub(super) struct Told {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    breaking: Option<io::Error>,
}

/// Starts to stream an answer that was requested under `started_under`. Ends when it is complete,
/// broken or the client is gone.
pub(super) fn tell(
    reply: Script,
    typing_speed: Pace,
    started_under: Condition,
    fault_states: watch::Receiver<Condition>,
) -> Told {
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut writer = Teller {
            pace: typing_speed,
            began: started_under,
            now: fault_states,
            to: sender.clone(),
        };
        tokio::select! {
            () = sender.closed() => {}
            () = writer.tell(reply) => {}
        }
    });
    Told {
        pieces,
        breaking: None,
    }
}

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
                // The connection flushes its buffer whenever the body is pending. Without this
                // pause the last words before the error would be lost with the buffer.
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
    async fn tell(&mut self, reply: Script) {
        let total = reply.words.len();
        let mut opening = reply.opening;
        for (sent, word) in reply.words.into_iter().enumerate() {
            let is_first = sent == 0;
            let wait = if is_first {
                self.pace.first_token
            } else {
                self.pace.between_words
            };
            if !self.goes_on(sent, total, wait, &reply.garbage).await {
                return;
            }
            self.say(std::mem::take(&mut opening) + &word).await;
        }
        if self
            .goes_on(total, total, Duration::ZERO, &reply.garbage)
            .await
        {
            self.say(opening + &reply.closing).await;
        }
    }

    /// Waits until the next piece is due. If a fault breaks the answer, carries the fault out and
    /// returns `false`.
    async fn goes_on(&mut self, sent: usize, total: usize, wait: Duration, garbage: &str) -> bool {
        loop {
            let now = *self.now.borrow_and_update();
            let wait = match effect(self.began, now, sent, total) {
                Effect::GoOn => wait,
                // The closing part is not a word: it needs no extra second.
                Effect::Slowly if sent == total => wait,
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
        // If the client is gone, the task ends by itself: see `stream_reply`.
        let _ = self.to.send(piece).await;
    }
}

/// Waits for another fault state. Never returns once the simulator is shutting down.
pub(super) async fn changed(fault_states: &mut watch::Receiver<Condition>) {
    if fault_states.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn last_words_are_flushed_before_the_reset() {
        let (sender, pieces) = mpsc::channel(2);
        sender.try_send(Ok(Bytes::from("last words"))).unwrap();
        sender.try_send(Err(reset())).unwrap();
        let mut body = Told {
            pieces,
            breaking: None,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        assert!(poll().is_pending());
        assert!(matches!(poll(), Poll::Ready(Some(Err(_)))));
    }
}
