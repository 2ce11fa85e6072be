//! Streaming of an answer: its pieces, word by word, and the faults on the way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::TypingSpeed;
use super::fault::{FaultState, SLOW_WORD_DELAY, StreamAction, next_action};
use super::wire::ScriptedReply;

/// The body of a streamed answer. An error in it makes the server reset the connection.
pub(super) struct ReplyBody {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    pending_error: Option<io::Error>,
}

/// Starts to stream an answer that was requested under `began`. Ends when it is complete, broken or
/// the client is gone.
pub(super) fn stream_reply(
    script: ScriptedReply,
    pace: TypingSpeed,
    began: FaultState,
    conditions: watch::Receiver<FaultState>,
) -> ReplyBody {
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut writer = ReplyWriter {
            typing_speed: pace,
            started_under: began,
            fault_state: conditions,
            sender: sender.clone(),
        };
        tokio::select! {
            () = sender.closed() => {}
            () = writer.write_reply(script) => {}
        }
    });
    ReplyBody {
        chunks: pieces,
        pending_error: None,
    }
}

pub(super) fn connection_reset() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(error) = self.pending_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.chunks.poll_recv(cx)) {
            Some(Err(error)) => {
                // The connection flushes its buffer whenever the body is pending. Without this
                // pause the last words before the error would be lost with the buffer.
                self.pending_error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => Poll::Ready(other.map(|piece| piece.map(Frame::data))),
        }
    }
}

struct ReplyWriter {
    typing_speed: TypingSpeed,
    started_under: FaultState,
    fault_state: watch::Receiver<FaultState>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl ReplyWriter {
    async fn write_reply(&mut self, script: ScriptedReply) {
        let total = script.words.len();
        let mut opening = script.opening;
        for (sent, word) in script.words.into_iter().enumerate() {
            let is_first = sent == 0;
            let wait = if is_first {
                self.typing_speed.first_token
            } else {
                self.typing_speed.word_interval
            };
            if !self.wait_or_break(sent, total, wait, &script.garbage).await {
                return;
            }
            self.send_text(std::mem::take(&mut opening) + &word).await;
        }
        if self
            .wait_or_break(total, total, Duration::ZERO, &script.garbage)
            .await
        {
            self.send_text(opening + &script.closing).await;
        }
    }

    /// Waits until the next piece is due. If a fault breaks the answer, carries the fault out and
    /// returns `false`.
    async fn wait_or_break(
        &mut self,
        sent: usize,
        total: usize,
        wait: Duration,
        garbage: &str,
    ) -> bool {
        loop {
            let now = *self.fault_state.borrow_and_update();
            let wait = match next_action(self.started_under, now, sent, total) {
                StreamAction::Continue => wait,
                // The closing part is not a word: it needs no extra second.
                StreamAction::Delay if sent == total => wait,
                StreamAction::Delay => wait.max(SLOW_WORD_DELAY),
                StreamAction::Stall => {
                    fault_changed(&mut self.fault_state).await;
                    return self.send_reset().await;
                }
                StreamAction::Reset => return self.send_reset().await,
                StreamAction::Garbage => {
                    self.send_text(garbage.to_owned()).await;
                    return false;
                }
            };
            tokio::select! {
                () = sleep(wait) => return true,
                () = fault_changed(&mut self.fault_state) => {}
            }
        }
    }

    async fn send_reset(&self) -> bool {
        self.send_chunk(Err(connection_reset())).await;
        false
    }

    async fn send_text(&self, text: String) {
        if !text.is_empty() {
            self.send_chunk(Ok(Bytes::from(text))).await;
        }
    }

    async fn send_chunk(&self, piece: io::Result<Bytes>) {
        // If the client is gone, the task ends by itself: see `stream_reply`.
        let _ = self.sender.send(piece).await;
    }
}

/// Waits for another fault state. Never returns once the simulator is shutting down.
pub(super) async fn fault_changed(conditions: &mut watch::Receiver<FaultState>) {
    if conditions.changed().await.is_err() {
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
        sender.try_send(Err(connection_reset())).unwrap();
        let mut body = ReplyBody {
            chunks: pieces,
            pending_error: None,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        assert!(poll().is_pending());
        assert!(matches!(poll(), Poll::Ready(Some(Err(_)))));
    }
}
