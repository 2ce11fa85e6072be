//! A session's first frame: which conversation it is about.

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

/// How long the first frame may take.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// An opened conversation, and where its client stands.
pub(super) struct Hello {
    pub room: Arc<Room>,
    pub resume: Option<Resume>,
    /// The visitor, where a token told.
    pub subject: Option<Arc<str>>,
}

/// Waits for a hello that opens a conversation; a malformed one may be mended within the limit. What is not let in is told why, and the
/// close says it in short.
pub(super) async fn hello(
    lobby: &Lobby,
    from: &mut mpsc::Receiver<ByteString>,
    to: &mpsc::Sender<Out>,
) -> Result<Result<Hello, &'static str>, Gone> {
    let until = Instant::now() + HELLO_LIMIT;
    loop {
        let Ok(text) = tokio::time::timeout_at(until, from.recv()).await else {
            return Ok(Err("hello expected"));
        };
        let refusal = match decode(&text.ok_or(Gone)?) {
            Ok(ClientFrame::Hello {
                conversation,
                resume,
                token,
            }) => {
                let subject = match identify(lobby, token.as_deref()) {
                    Ok(subject) => subject,
                    Err(bad) => {
                        // Never downgraded: who is not who they say they are is nobody here.
                        let refusal = Refusal::new(ErrorCode::Unauthorized, bad.to_string());
                        to.send(Out::Frames(vec![(&refusal).into()]))
                            .await
                            .map_err(|_| Gone)?;
                        return Ok(Err("bad token"));
                    }
                };
                let known = match (conversation, &subject) {
                    (Some(id), _) => Some(id),
                    (None, Some(subject)) => lobby.newest_of(subject).await,
                    (None, None) => None,
                };
                let entered = match known {
                    Some(id) => lobby.enter(id, subject.as_deref()).await,
                    None => Ok(lobby.begin(new_conversation()?)),
                };
                match entered {
                    Ok(room) => {
                        return Ok(Ok(Hello {
                            room,
                            resume,
                            subject,
                        }));
                    }
                    Err(NotIn::Theirs) => Refusal::new(
                        ErrorCode::Unauthorized,
                        "this conversation belongs to a signed-in visitor; begin a new one",
                    ),
                    Err(NotIn::Unknown) => not_known(),
                }
            }
            Ok(_) => return Ok(Err("hello expected")),
            Err(refusal) => refusal,
        };
        to.send(Out::Frames(vec![(&refusal).into()]))
            .await
            .map_err(|_| Gone)?;
    }
}

/// The refusal for who asks for a conversation while the store does not say whose it is.
pub fn not_known() -> Refusal {
    let message =
        "whose conversation this is cannot be told at the moment; try again, or begin a new one";
    Refusal::new(ErrorCode::Internal, message).retry_after(2)
}

/// The visitor of a token; none without one.
fn identify(lobby: &Lobby, token: Option<&str>) -> Result<Option<Arc<str>>, BadToken> {
    let Some(token) = token else {
        return Ok(None);
    };
    let settings = lobby.settings();
    let secret = settings
        .widget
        .identity_secret
        .as_ref()
        .ok_or(BadToken::NotTaken)?;
    let subject = Identity::new(secret.clone()).subject(token, lobby.desk.clock.wall())?;
    Ok(Some(subject.into()))
}

/// A fresh conversation id from the system's randomness; without that, no conversation can be kept apart from others.
pub fn new_conversation() -> Result<ConversationId, Gone> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "no randomness for a conversation id");
        Gone
    })?;
    Ok(ConversationId::from_random(bytes))
}
