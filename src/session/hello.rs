//! The handshake: a session's first frame names its conversation.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::drive::{Gone, Out};
use super::frames::{ClientFrame, ErrorCode, Refusal, Resume, decode};
use super::identity::{BadToken, Identity};
use super::lobby::{Lobby, NotIn};
use crate::chat::ConversationId;
use crate::turn::rooms::Room;

/// The time limit for the whole handshake, including repeated attempts.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Hello {
    pub room: Arc<Room>,
    pub resume: Option<Resume>,
    /// The visitor named by a token.
    pub subject: Option<Arc<str>>,
}

/// Waits for a `hello` that opens a conversation.
///
/// A client whose `hello` is malformed or asks for a conversation that it may not open gets an
/// error frame and may try again. `Err` within `Ok` is the reason for closing the socket.
pub(super) async fn hello(
    service: &Lobby,
    client_frames: &mut mpsc::Receiver<ByteString>,
    outgoing: &mpsc::Sender<Out>,
) -> Result<Result<Hello, &'static str>, Gone> {
    let deadline = Instant::now() + HELLO_LIMIT;
    let send_error = async |error: &Refusal| {
        let frames = Out::Frames(vec![error.into()]);
        outgoing.send(frames).await.map_err(|_| Gone)
    };
    loop {
        let Ok(text) = tokio::time::timeout_at(deadline, client_frames.recv()).await else {
            return Ok(Err("hello expected"));
        };
        let error = match decode(&text.ok_or(Gone)?) {
            Ok(ClientFrame::Hello {
                conversation: requested,
                resume,
                token,
            }) => {
                let subject = match identify(service, token.as_deref()) {
                    Ok(subject) => subject,
                    Err(error) => {
                        // A client with a bad token is never served as an anonymous one.
                        send_error(&Refusal::new(ErrorCode::Unauthorized, error.to_string()))
                            .await?;
                        return Ok(Err("bad token"));
                    }
                };
                let existing = match (requested, &subject) {
                    (Some(id), _) => Some(id),
                    (None, Some(subject)) => service.newest_of(subject).await,
                    (None, None) => None,
                };
                let opened = match existing {
                    Some(id) => service.enter(id, subject.as_deref()).await,
                    None => Ok(service.begin(new_conversation()?)),
                };
                match opened {
                    Ok(room) => {
                        return Ok(Ok(Hello {
                            room,
                            resume,
                            subject,
                        }));
                    }
                    Err(NotIn::Theirs) => Refusal::new(
                        ErrorCode::Unauthorized,
                        "this conversation belongs to a signed-in visitor; start a new one",
                    ),
                    Err(NotIn::Unknown) => not_known(),
                }
            }
            Ok(_) => return Ok(Err("hello expected")),
            Err(error) => error,
        };
        send_error(&error).await?;
    }
}

/// The error for a conversation whose owner cannot be determined while the store does not answer.
pub fn not_known() -> Refusal {
    let message =
        "the owner of this conversation cannot be checked right now; try again, or start a new one";
    Refusal::new(ErrorCode::Internal, message).retry_after(2)
}

fn identify(service: &Lobby, token: Option<&str>) -> Result<Option<Arc<str>>, BadToken> {
    let Some(token) = token else {
        return Ok(None);
    };
    let settings = service.settings();
    let secret = settings
        .widget
        .identity_secret
        .as_ref()
        .ok_or(BadToken::NotTaken)?;
    let subject = Identity::new(secret.clone()).subject(token, service.desk.clock.wall())?;
    Ok(Some(subject.into()))
}

/// Generates a conversation id from the operating system's random source.
///
/// Knowing the id is what gives access to an anonymous conversation. Without a random source no id
/// is safe, so the session ends.
pub fn new_conversation() -> Result<ConversationId, Gone> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "no random bytes for a conversation id");
        Gone
    })?;
    Ok(ConversationId::from_random(bytes))
}
