//! Turns an incoming message into a turn, or rejects it with a reason.

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

pub enum Accepted {
    Opened(Arc<TurnLog>),
    /// An earlier delivery of the message started this turn, and its log still exists.
    Known(Arc<TurnLog>),
    /// An earlier delivery of the message started this turn, and its log is gone.
    Stored(Box<TurnRecord>),
}

#[derive(Clone, Debug)]
pub struct Caller {
    /// The address that rate limits count by.
    pub address: IpAddr,
    /// The visitor named by a token. A conversation that they start belongs to them.
    pub subject: Option<Arc<str>>,
}

/// Starts the turn of a message, exactly once per `client_msg_id`.
pub async fn send(
    service: &Arc<Lobby>,
    conversation: &Arc<Room>,
    sender: &Caller,
    message: Question,
    options: Wishes,
) -> Result<Accepted, Refusal> {
    let id = message.client_msg_id.clone();
    let reject = |code, text: &str| Refusal::new(code, text).about(&id);
    if message.text.trim().is_empty() {
        return Err(reject(ErrorCode::BadRequest, "the message is empty"));
    }
    let max = service.settings().chat.max_message_chars;
    if message.text.chars().count() > max {
        let text =
            format!("the message is longer than {max} characters; shorten it and send it again");
        return Err(reject(ErrorCode::MessageTooLong, &text));
    }
    let same_text = |log: Arc<TurnLog>| {
        if log.asks(&message.text) {
            Ok(Accepted::Known(log))
        } else {
            Err(other_text(&id))
        }
    };
    // A duplicate with a live log is free: it is checked before the rate limit, which is checked
    // before the store is read.
    let mut logs = conversation.logs().into_iter();
    if let Some(log) = logs.find(|log| *log.client_msg_id() == id) {
        return same_text(log);
    }
    service
        .rates
        .take(conversation.id(), sender.address)
        .map_err(|wait| {
            let text = "too many messages; wait a little and send it again";
            reject(ErrorCode::RateLimited, text).retry_after(seconds(wait))
        })?;
    if let Some(record) = stored(service, conversation, &id).await {
        if record.question != message.text {
            return Err(other_text(&id));
        }
        if record.state == TurnState::Running && conversation.log(record.turn).is_none() {
            service.desk.look(conversation).await;
        }
        // Another session may have started this turn during the read. Its log is newer than the
        // record.
        return Ok(match conversation.log(record.turn) {
            Some(log) => Accepted::Known(log),
            None => Accepted::Stored(Box::new(record)),
        });
    }
    // Held until the turn exists: two sessions must not start turns of one conversation at once.
    let _opening = conversation.opening().await;
    let busy = || {
        let text =
            "this conversation is still being answered; send the message when that has ended";
        reject(ErrorCode::Busy, text).retry_after(1)
    };
    let claim = match service.desk.claim(conversation, &message).await {
        Opening::Here(claim) => claim,
        Opening::Elsewhere(Some(log)) if *log.client_msg_id() == id => return same_text(log),
        Opening::Elsewhere(_) => return Err(busy()),
    };
    begin(service, conversation, sender.subject.as_deref());
    // Answers to a known visitor are never shared through the cache.
    let options = Wishes {
        anonymous: sender.subject.is_none(),
        ..options
    };
    match service
        .desk
        .open_claimed(conversation, message, options, claim)
    {
        Ok(log) => Ok(Accepted::Opened(log)),
        Err(Refused::Room(NotOpened::Duplicate(log))) => Ok(Accepted::Known(log)),
        Err(Refused::Room(NotOpened::OtherText)) => Err(other_text(&id)),
        Err(Refused::Room(NotOpened::Busy)) => Err(busy()),
        Err(Refused::Full) => {
            let text = "the service is full at the moment; send it again in a few seconds";
            Err(reject(ErrorCode::Busy, text).retry_after(5))
        }
        Err(Refused::Draining) => {
            let text = "the service is restarting; reconnect and send it again";
            Err(reject(ErrorCode::ShuttingDown, text).retry_after(2))
        }
    }
}

/// Starts a new turn with the question of a finished one.
pub async fn retry(
    service: &Arc<Lobby>,
    conversation: &Arc<Room>,
    sender: &Caller,
    turn: TurnId,
    client_msg_id: ClientMsgId,
    orphan_grace: Duration,
) -> Result<Accepted, Refusal> {
    let record = service
        .turn(conversation, turn)
        .await
        .map_err(|error| error.about(&client_msg_id))?;
    if record.state == TurnState::Running && conversation.log(turn).is_some() {
        let text = "that answer is still being written; stop it first";
        return Err(Refusal::new(ErrorCode::Busy, text)
            .about(&client_msg_id)
            .retry_after(1));
    }
    let id = client_msg_id.clone();
    let message = Question {
        client_msg_id,
        text: record.question,
        retry_of: Some(turn),
    };
    let options = Wishes {
        patience: orphan_grace,
        ..service.desk.usual()
    };
    let accepted = send(service, conversation, sender, message, options).await?;
    // A duplicate id may belong to another turn with the same text.
    let retry_of = match &accepted {
        Accepted::Opened(log) | Accepted::Known(log) => log.record().retry_of,
        Accepted::Stored(record) => record.retry_of,
    };
    if retry_of != Some(turn) {
        let text = "this client_msg_id was used for another message; a retry needs a new one";
        return Err(Refusal::new(ErrorCode::BadRequest, text).about(&id));
    }
    Ok(accepted)
}

/// Resolves the options of a visitor's message. They are ignored unless `chat.visitor_options` is
/// set.
pub fn wishes(
    service: &Lobby,
    options: Option<Options>,
    id: &ClientMsgId,
) -> Result<Wishes, Refusal> {
    let options = options.filter(|_| service.settings().chat.visitor_options);
    named(service, options, id)
}

/// Resolves the options of a message. Fails with `bad_request` for an unknown provider name.
pub fn named(
    service: &Lobby,
    options: Option<Options>,
    id: &ClientMsgId,
) -> Result<Wishes, Refusal> {
    let Some(options) = options else {
        return Ok(service.desk.usual());
    };
    let first = match options.provider {
        None => None,
        Some(name) => match service.desk.table().backend(&name) {
            Some(provider) => Some(Arc::clone(&provider.name)),
            None => {
                let text = "no provider has that name";
                return Err(Refusal::new(ErrorCode::BadRequest, text).about(id));
            }
        },
    };
    // `failover: false` has no meaning without a provider to stay with.
    let only_first = first.is_some() && options.failover == Some(false);
    let defaults = service.desk.usual();
    Ok(Wishes {
        first,
        only_first,
        mid_stream: options.mid_stream.unwrap_or(defaults.mid_stream),
        cache: options.cache.unwrap_or(defaults.cache),
        ..defaults
    })
}

fn other_text(id: &ClientMsgId) -> Refusal {
    let text = "this client_msg_id was used for another text; a new message needs a new one";
    Refusal::new(ErrorCode::BadRequest, text).about(id)
}

pub fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Looks up the stored turn of a message whose log is gone.
///
/// `None` also if the store does not answer: answering a message twice is better than never.
async fn stored(service: &Lobby, conversation: &Room, id: &ClientMsgId) -> Option<TurnRecord> {
    if conversation.all_here().is_some() {
        return None;
    }
    let read = service.desk.store.turn_of(conversation.id(), id.clone());
    tokio::time::timeout(service.desk.patience(STORE_LIMIT), read)
        .await
        .ok()?
        .ok()?
}

/// Writes the record of a new conversation, without waiting for it.
///
/// If the write fails, an anonymous conversation only loses its date. A signed-in visitor's one can
/// then be opened by its id, but not as their latest conversation.
fn begin(service: &Lobby, conversation: &Room, subject: Option<&str>) {
    if !conversation.first_message() {
        return;
    }
    conversation.belongs_to(subject);
    let record = ConversationRecord {
        began: service.desk.clock.wall(),
        subject: subject.map(str::to_owned),
    };
    let store = Arc::clone(&service.desk.store);
    let id = conversation.id();
    actix::spawn(async move {
        if store.begin(id, record).await.is_err() {
            tracing::warn!("failed to save the conversation record");
        }
    });
}
