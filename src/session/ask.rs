//! A message becomes a turn, or is refused with a reason.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::frames::{ErrorCode, Options, Refusal};
use super::lobby::{Lobby, STORE_LIMIT};
use crate::chat::{ClientMsgId, TurnId, TurnRecord, TurnState};
use crate::store::ConversationRecord;
use crate::turn::desk::{Refused, Wishes};
use crate::turn::log::TurnLog;
use crate::turn::rooms::{NotOpened, Question, Room};
use crate::turn::sharing::Opening;

/// What became of an accepted message.
pub enum Accepted {
    /// A new turn.
    Opened(Arc<TurnLog>),
    /// It has a turn already, that runs or just ended.
    Known(Arc<TurnLog>),
    /// It has a turn already, that ended some time ago.
    Stored(Box<TurnRecord>),
}

/// Who sends messages.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The address that limits count by.
    pub address: IpAddr,
    /// The visitor, where a token told; a conversation that they begin is theirs.
    pub subject: Option<Arc<str>>,
}

/// Opens the turn of a message, once.
///
/// # Errors
/// What is wrong with it, or with the moment.
pub async fn send(
    lobby: &Arc<Lobby>,
    room: &Arc<Room>,
    caller: &Caller,
    question: Question,
    wishes: Wishes,
) -> Result<Accepted, Refusal> {
    let id = question.client_msg_id.clone();
    let refuse = |code, message: &str| Refusal::new(code, message).about(&id);
    if question.text.trim().is_empty() {
        return Err(refuse(ErrorCode::BadRequest, "the message is empty"));
    }
    let max = lobby.settings().chat.max_message_chars;
    if question.text.chars().count() > max {
        let message =
            format!("the message is longer than {max} characters; shorten it and send it again");
        return Err(refuse(ErrorCode::MessageTooLong, &message));
    }
    if let Some(log) = room
        .logs()
        .into_iter()
        .find(|log| *log.client_msg_id() == id)
    {
        return if log.asks(&question.text) {
            Ok(Accepted::Known(log))
        } else {
            Err(other_text(&id))
        };
    }
    {
        lobby
            .rates
            .take(room.id(), caller.address)
            .map_err(|wait| {
                let message = "too many messages; wait a little and send it again";
                refuse(ErrorCode::RateLimited, message).retry_after(seconds(wait))
            })?;
        if let Some(record) = stored(lobby, room, &id).await {
            if record.question != question.text {
                return Err(other_text(&id));
            }
            if record.state == TurnState::Running && room.log(record.turn).is_none() {
                lobby.desk.look(room).await;
            }
            // Another session may have opened it while the store was read: what runs is not yet on disk.
            return Ok(match room.log(record.turn) {
                Some(log) => Accepted::Known(log),
                None => Accepted::Stored(Box::new(record)),
            });
        }
    }
    let _opening = room.opening().await;
    let busy = || {
        let message =
            "another answer of this conversation is under way; send it when that has ended";
        refuse(ErrorCode::Busy, message).retry_after(1)
    };
    let claim = match lobby.desk.claim(room, &question).await {
        Opening::Here(claim) => claim,
        Opening::Elsewhere(Some(log)) if *log.client_msg_id() == id => {
            return if log.asks(&question.text) {
                Ok(Accepted::Known(log))
            } else {
                Err(other_text(&id))
            };
        }
        Opening::Elsewhere(_) => return Err(busy()),
    };
    begin(lobby, room, caller.subject.as_deref());
    // What a known visitor is told is theirs alone.
    let wishes = Wishes {
        anonymous: caller.subject.is_none(),
        ..wishes
    };
    match lobby.desk.open_claimed(room, question, wishes, claim) {
        Ok(log) => Ok(Accepted::Opened(log)),
        Err(Refused::Room(NotOpened::Duplicate(log))) => Ok(Accepted::Known(log)),
        Err(Refused::Room(NotOpened::OtherText)) => Err(other_text(&id)),
        Err(Refused::Room(NotOpened::Busy)) => Err(busy()),
        Err(Refused::Full) => {
            let message = "the service is full at this moment; send it again in a few seconds";
            Err(refuse(ErrorCode::Busy, message).retry_after(5))
        }
        Err(Refused::Draining) => {
            let message = "the service is restarting; reconnect and send it again";
            Err(refuse(ErrorCode::ShuttingDown, message).retry_after(2))
        }
    }
}

/// Opens a new turn for the message of an ended one.
///
/// # Errors
/// No such turn, or it still runs; or what [`send`] says.
pub async fn retry(
    lobby: &Arc<Lobby>,
    room: &Arc<Room>,
    caller: &Caller,
    turn: TurnId,
    client_msg_id: ClientMsgId,
    patience: Duration,
) -> Result<Accepted, Refusal> {
    let record = lobby
        .turn(room, turn)
        .await
        .map_err(|refusal| refusal.about(&client_msg_id))?;
    if record.state == TurnState::Running && room.log(turn).is_some() {
        let message = "that answer is still under way; stop it first";
        return Err(Refusal::new(ErrorCode::Busy, message)
            .about(&client_msg_id)
            .retry_after(1));
    }
    let id = client_msg_id.clone();
    let question = Question {
        client_msg_id,
        text: record.question,
        retry_of: Some(turn),
    };
    let accepted = send(
        lobby,
        room,
        caller,
        question,
        Wishes {
            patience,
            ..lobby.desk.usual()
        },
    )
    .await?;
    let retry_of = match &accepted {
        Accepted::Opened(log) | Accepted::Known(log) => log.record().retry_of,
        Accepted::Stored(record) => record.retry_of,
    };
    if retry_of != Some(turn) {
        let message = "this client_msg_id was used for another message; a retry needs a new one";
        return Err(Refusal::new(ErrorCode::BadRequest, message).about(&id));
    }
    Ok(accepted)
}

/// The wishes of a message, as far as visitors may have any.
///
/// # Errors
/// `bad_request` where a provider is named that does not exist.
pub fn wishes(
    lobby: &Lobby,
    options: Option<Options>,
    id: &ClientMsgId,
) -> Result<Wishes, Refusal> {
    named(
        lobby,
        options.filter(|_| lobby.settings().chat.visitor_options),
        id,
    )
}

/// The wishes of a message, whoever may have them.
///
/// # Errors
/// `bad_request` where a provider is named that does not exist.
pub fn named(lobby: &Lobby, options: Option<Options>, id: &ClientMsgId) -> Result<Wishes, Refusal> {
    let Some(options) = options else {
        return Ok(lobby.desk.usual());
    };
    let first = match options.provider {
        None => None,
        Some(name) => match lobby.desk.table().backend(&name) {
            Some(backend) => Some(Arc::clone(&backend.name)),
            None => {
                return Err(
                    Refusal::new(ErrorCode::BadRequest, "no provider has that name").about(id),
                );
            }
        },
    };
    let only_first = first.is_some() && options.failover == Some(false);
    let usual = lobby.desk.usual();
    let mid_stream = options.mid_stream.unwrap_or(usual.mid_stream);
    let cache = options.cache.unwrap_or(usual.cache);
    Ok(Wishes {
        first,
        only_first,
        mid_stream,
        cache,
        ..usual
    })
}

fn other_text(id: &ClientMsgId) -> Refusal {
    let message = "this client_msg_id was used for another text; a new message needs a new one";
    Refusal::new(ErrorCode::BadRequest, message).about(id)
}

/// A wait in whole seconds, rounded up.
pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The turn that this message opened some time ago, whose log is gone. A store that does not answer knows of none: better asked twice than never.
async fn stored(lobby: &Lobby, room: &Room, id: &ClientMsgId) -> Option<TurnRecord> {
    if room.all_here().is_some() {
        return None;
    }
    let read = lobby.desk.store.turn_of(room.id(), id.clone());
    tokio::time::timeout(lobby.desk.patience(STORE_LIMIT), read)
        .await
        .ok()?
        .ok()?
}

/// Writes the conversation's record beside its first turn. An anonymous one that is lost is a lost date; one of a visitor leaves a
/// conversation that only its id leads to.
fn begin(lobby: &Lobby, room: &Room, subject: Option<&str>) {
    let subject = subject.map(str::to_owned);
    let (store, id, began) = (
        Arc::clone(&lobby.desk.store),
        room.id(),
        lobby.desk.clock.wall(),
    );
    if room.first_message() {
        room.belongs_to(subject.as_deref());
        actix::spawn(async move {
            if store
                .begin(id, ConversationRecord { began, subject })
                .await
                .is_err()
            {
                tracing::warn!("a conversation's record was not written");
            }
        });
    }
}
