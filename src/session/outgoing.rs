//! What a session sends to its socket.

use bytestring::ByteString;
use tokio::sync::mpsc;

use super::protocol::{ClientError, ServerFrame};

/// A message of the session task to its socket.
#[derive(Debug)]
pub enum Outgoing {
    Frames(Vec<ByteString>),
    /// Closes the socket with a close code of RFC 6455 and a reason.
    Close(u16, &'static str),
}

/// The socket is gone or was told to close, so the session ends.
pub struct Disconnected;

/// The reason for not carrying out a client's frame.
pub(super) enum SessionError {
    /// Reported to the client; the session continues.
    Rejected(ClientError),
    Disconnected,
}

impl From<ClientError> for SessionError {
    fn from(error: ClientError) -> Self {
        Self::Rejected(error)
    }
}

impl From<Disconnected> for SessionError {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}

pub(super) struct FrameSender(pub(super) mpsc::Sender<Outgoing>);

impl FrameSender {
    pub(super) async fn send(&self, frame: &ServerFrame<'_>) -> Result<(), Disconnected> {
        self.send_encoded(vec![frame.encode()]).await
    }

    pub(super) async fn send_error(&self, error: &ClientError) -> Result<(), Disconnected> {
        self.send_encoded(vec![error.into()]).await
    }

    pub(super) async fn send_encoded(&self, frames: Vec<ByteString>) -> Result<(), Disconnected> {
        let sent = self.0.send(Outgoing::Frames(frames)).await;
        sent.map_err(|_| Disconnected)
    }

    pub(super) async fn close(&self, code: u16, reason: &'static str) -> Disconnected {
        // If the socket is gone already, there is nothing to close.
        let _ = self.0.send(Outgoing::Close(code, reason)).await;
        Disconnected
    }
}
