//! A session's first frame: which conversation it is about.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::drive::{Gone, Out};
use super::frames::{ClientFrame, ErrorCode, Refusal, Resume, decode};
use super::lobby::Lobby;
use crate::chat::ConversationId;
use crate::turn::rooms::Room;

/// How long the first frame may take.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// An opened conversation, and where its client stands.
pub(super) struct Hello {
    pub room: Arc<Room>,
    pub resume: Option<Resume>,
}

/// Waits for a hello that opens a conversation; a malformed one may be mended within the limit.
pub(super) async fn hello(
    lobby: &Lobby,
    from: &mut mpsc::Receiver<ByteString>,
    to: &mpsc::Sender<Out>,
) -> Result<Option<Hello>, Gone> {
    let until = Instant::now() + HELLO_LIMIT;
    loop {
        let Ok(text) = tokio::time::timeout_at(until, from.recv()).await else {
            return Ok(None);
        };
        let refusal = match decode(&text.ok_or(Gone)?) {
            Ok(ClientFrame::Hello { conversation, resume, .. }) => {
                let id = match conversation {
                    Some(id) => id,
                    None => new_conversation()?,
                };
                match lobby.enter(id).await {
                    Ok(room) => return Ok(Some(Hello { room, resume })),
                    Err(_) => Refusal::new(
                        ErrorCode::Unauthorized,
                        "this conversation belongs to a signed-in visitor; begin a new one",
                    ),
                }
            }
            Ok(_) => return Ok(None),
            Err(refusal) => refusal,
        };
        to.send(Out::Frames(vec![(&refusal).into()])).await.map_err(|_| Gone)?;
    }
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
