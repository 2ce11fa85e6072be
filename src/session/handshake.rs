//! The handshake: a session's first frame names its conversation.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outgoing::{Disconnected, FrameSender, SessionError};
use super::protocol::{ClientError, ClientFrame, ErrorCode, ResumePoint, decode};
use super::service::{ChatService, random_conversation_id};
use super::visitor_token::{TokenError, VisitorTokens};
use crate::turn::conversations::LiveConversation;

/// The time limit for the whole handshake, including repeated attempts.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Handshake {
    pub conversation: Arc<LiveConversation>,
    pub resume: Option<ResumePoint>,
    /// The visitor named by a token.
    pub subject: Option<Arc<str>>,
}

/// Waits for a `hello` that opens a conversation, and closes the socket if another frame or none
/// comes.
///
/// A client whose `hello` is malformed or asks for a conversation that it may not open gets an
/// error frame and may try again.
pub(super) async fn await_handshake(
    service: &ChatService,
    client_frames: &mut mpsc::Receiver<ByteString>,
    outgoing: &FrameSender,
) -> Result<Handshake, Disconnected> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    loop {
        let Ok(text) = tokio::time::timeout_at(deadline, client_frames.recv()).await else {
            return Err(outgoing.close(1008, "hello expected").await);
        };
        match open(service, &text.ok_or(Disconnected)?, outgoing).await {
            Ok(handshake) => return Ok(handshake),
            Err(SessionError::Rejected(error)) => outgoing.send_error(&error).await?,
            Err(SessionError::Disconnected) => return Err(Disconnected),
        }
    }
}

async fn open(
    service: &ChatService,
    text: &str,
    outgoing: &FrameSender,
) -> Result<Handshake, SessionError> {
    let ClientFrame::Hello {
        conversation: requested,
        resume,
        token,
    } = decode(text)?
    else {
        return Err(outgoing.close(1008, "hello expected").await.into());
    };
    let subject = match verify_visitor(service, token.as_deref()) {
        Ok(subject) => subject,
        Err(error) => {
            // A client with a bad token is never served as an anonymous one.
            let error = ClientError::new(ErrorCode::Unauthorized, error.to_string());
            outgoing.send_error(&error).await?;
            return Err(outgoing.close(1008, "bad token").await.into());
        }
    };
    let existing = match (requested, &subject) {
        (Some(id), _) => Some(id),
        (None, Some(subject)) => service.latest_conversation(subject).await,
        (None, None) => None,
    };
    let conversation = match existing {
        Some(id) => service.open_conversation(id, subject.as_deref()).await?,
        None => service.create_conversation(random_conversation_id().ok_or(Disconnected)?),
    };
    Ok(Handshake {
        conversation,
        resume,
        subject,
    })
}

fn verify_visitor(
    service: &ChatService,
    token: Option<&str>,
) -> Result<Option<Arc<str>>, TokenError> {
    let Some(token) = token else {
        return Ok(None);
    };
    let settings = service.settings();
    let secret = settings
        .widget
        .identity_secret
        .as_ref()
        .ok_or(TokenError::Disabled)?;
    let subject = VisitorTokens::new(secret.clone()).verify(token, service.turns.clock.wall())?;
    Ok(Some(subject.into()))
}
