//! The handshake: a session's first frame names its conversation.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::protocol::{ClientError, ClientFrame, ErrorCode, ResumePoint, decode};
use super::run::{Disconnected, Outgoing};
use super::service::{AccessError, ChatService};
use super::visitor_token::{TokenError, VisitorTokens};
use crate::domain::ConversationId;
use crate::turn::conversations::LiveConversation;

/// The time limit for the whole handshake, including repeated attempts.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Handshake {
    pub conversation: Arc<LiveConversation>,
    pub resume: Option<ResumePoint>,
    /// The visitor named by a token.
    pub subject: Option<Arc<str>>,
}

/// Waits for a `hello` that opens a conversation.
///
/// A client whose `hello` is malformed or asks for a conversation that it may not open gets an
/// error frame and may try again. `Err` within `Ok` is the reason for closing the socket.
pub(super) async fn await_handshake(
    service: &ChatService,
    client_frames: &mut mpsc::Receiver<ByteString>,
    outgoing: &mpsc::Sender<Outgoing>,
) -> Result<Result<Handshake, &'static str>, Disconnected> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let send_error = async |error: &ClientError| {
        let frames = Outgoing::Frames(vec![error.into()]);
        outgoing.send(frames).await.map_err(|_| Disconnected)
    };
    loop {
        let Ok(text) = tokio::time::timeout_at(deadline, client_frames.recv()).await else {
            return Ok(Err("hello expected"));
        };
        let error = match decode(&text.ok_or(Disconnected)?) {
            Ok(ClientFrame::Hello {
                conversation: requested,
                resume,
                token,
            }) => {
                let subject = match verify_visitor(service, token.as_deref()) {
                    Ok(subject) => subject,
                    Err(error) => {
                        // A client with a bad token is never served as an anonymous one.
                        send_error(&ClientError::new(
                            ErrorCode::Unauthorized,
                            error.to_string(),
                        ))
                        .await?;
                        return Ok(Err("bad token"));
                    }
                };
                let existing = match (requested, &subject) {
                    (Some(id), _) => Some(id),
                    (None, Some(subject)) => service.latest_conversation(subject).await,
                    (None, None) => None,
                };
                let opened = match existing {
                    Some(id) => service.open_conversation(id, subject.as_deref()).await,
                    None => Ok(service.create_conversation(random_conversation_id()?)),
                };
                match opened {
                    Ok(room) => {
                        return Ok(Ok(Handshake {
                            conversation: room,
                            resume,
                            subject,
                        }));
                    }
                    Err(AccessError::NotOwner) => ClientError::new(
                        ErrorCode::Unauthorized,
                        "this conversation belongs to a signed-in visitor; start a new one",
                    ),
                    Err(AccessError::OwnerUnknown) => owner_unknown_error(),
                }
            }
            Ok(_) => return Ok(Err("hello expected")),
            Err(error) => error,
        };
        send_error(&error).await?;
    }
}

/// The error for a conversation whose owner cannot be determined while the store does not answer.
pub fn owner_unknown_error() -> ClientError {
    let message =
        "the owner of this conversation cannot be checked right now; try again, or start a new one";
    ClientError::new(ErrorCode::Internal, message).retry_after(2)
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

/// Generates a conversation id from the operating system's random source.
///
/// Knowing the id is what gives access to an anonymous conversation. Without a random source no id
/// is safe, so the session ends.
pub fn random_conversation_id() -> Result<ConversationId, Disconnected> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "no random bytes for a conversation id");
        Disconnected
    })?;
    Ok(ConversationId::from_random(bytes))
}
