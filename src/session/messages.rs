//! Turns an incoming message into a turn, or rejects it with a reason.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{ClientError, ErrorCode, MessageOptions};
use super::service::{ChatService, STORE_TIMEOUT};
use crate::domain::{ClientMsgId, TurnId, TurnRecord, TurnState};
use crate::store::ConversationRecord;
use crate::turn::conversations::{LiveConversation, NewMessage, TurnConflict};
use crate::turn::deps::TurnOptions;
use crate::turn::log::TurnLog;
use crate::turn::replication::ClaimOutcome;
use crate::turn::service::OpenTurnError;

pub enum AcceptedMessage {
    Started(Arc<TurnLog>),
    /// An earlier delivery of the message started this turn, and its log still exists.
    Duplicate(Arc<TurnLog>),
    /// An earlier delivery of the message started this turn, and its log is gone.
    AlreadyStored(Box<TurnRecord>),
}

#[derive(Clone, Debug)]
pub struct MessageSender {
    /// The address that rate limits count by.
    pub address: IpAddr,
    /// The visitor named by a token. A conversation that they start belongs to them.
    pub subject: Option<Arc<str>>,
}

/// Starts the turn of a message, exactly once per `client_msg_id`.
pub async fn submit_message(
    service: &Arc<ChatService>,
    conversation: &Arc<LiveConversation>,
    sender: &MessageSender,
    message: NewMessage,
    options: TurnOptions,
) -> Result<AcceptedMessage, ClientError> {
    let id = message.client_msg_id.clone();
    let reject = |code, text: &str| reject(&id, code, text);
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
        if log.has_question(&message.text) {
            Ok(AcceptedMessage::Duplicate(log))
        } else {
            Err(conflicting_text(&id))
        }
    };
    // A duplicate with a live log is free: it is checked before the rate limit, which is checked
    // before the store is read.
    let mut logs = conversation.logs().into_iter();
    if let Some(log) = logs.find(|log| *log.client_msg_id() == id) {
        return same_text(log);
    }
    service
        .rate_limiter
        .check_message(conversation.id(), sender.address)
        .map_err(|wait| {
            let text = "too many messages; wait a little and send it again";
            reject(ErrorCode::RateLimited, text).retry_after(ceil_seconds(wait))
        })?;
    if let Some(record) = find_stored_turn(service, conversation, &id).await {
        if record.question != message.text {
            return Err(conflicting_text(&id));
        }
        if record.state == TurnState::Running && conversation.log(record.turn).is_none() {
            service.turns.follow_remote_turn(conversation).await;
        }
        // Another session may have started this turn during the read. Its log is newer than the
        // record.
        return Ok(match conversation.log(record.turn) {
            Some(log) => AcceptedMessage::Duplicate(log),
            None => AcceptedMessage::AlreadyStored(Box::new(record)),
        });
    }
    // Held until the turn exists: two sessions must not start turns of one conversation at once.
    let _opening = conversation.lock_opening().await;
    let busy = || {
        let text =
            "this conversation is still being answered; send the message when that has ended";
        reject(ErrorCode::Busy, text).retry_after(1)
    };
    let claim = match service.turns.claim_turn(conversation, &message).await {
        ClaimOutcome::Local(claim) => claim,
        ClaimOutcome::Remote(Some(log)) if *log.client_msg_id() == id => return same_text(log),
        ClaimOutcome::Remote(_) => return Err(busy()),
    };
    record_conversation(service, conversation, sender.subject.as_deref());
    // Answers to a known visitor are never shared through the cache.
    let options = TurnOptions {
        is_anonymous: sender.subject.is_none(),
        ..options
    };
    match service
        .turns
        .start_claimed_turn(conversation, message, options, claim)
    {
        Ok(log) => Ok(AcceptedMessage::Started(log)),
        Err(OpenTurnError::Conflict(TurnConflict::Duplicate(log))) => {
            Ok(AcceptedMessage::Duplicate(log))
        }
        Err(OpenTurnError::Conflict(TurnConflict::ConflictingText)) => Err(conflicting_text(&id)),
        Err(OpenTurnError::Conflict(TurnConflict::Busy)) => Err(busy()),
        Err(OpenTurnError::AtCapacity) => {
            let text = "the service is full at the moment; send it again in a few seconds";
            Err(reject(ErrorCode::Busy, text).retry_after(5))
        }
        Err(OpenTurnError::Draining) => {
            let text = "the service is restarting; reconnect and send it again";
            Err(reject(ErrorCode::ShuttingDown, text).retry_after(2))
        }
    }
}

/// Starts a new turn with the question of a finished one.
pub async fn retry_turn(
    service: &Arc<ChatService>,
    conversation: &Arc<LiveConversation>,
    sender: &MessageSender,
    turn: TurnId,
    client_msg_id: ClientMsgId,
    orphan_grace: Duration,
) -> Result<AcceptedMessage, ClientError> {
    let record = service
        .find_turn(conversation, turn)
        .await
        .map_err(|error| error.with_message_id(&client_msg_id))?;
    if record.state == TurnState::Running && conversation.log(turn).is_some() {
        let text = "that answer is still being written; stop it first";
        return Err(reject(&client_msg_id, ErrorCode::Busy, text).retry_after(1));
    }
    let id = client_msg_id.clone();
    let message = NewMessage {
        client_msg_id,
        text: record.question,
        retry_of: Some(turn),
    };
    let options = TurnOptions {
        orphan_grace,
        ..service.turns.default_options()
    };
    let accepted = submit_message(service, conversation, sender, message, options).await?;
    // A duplicate id may belong to another turn with the same text.
    let retry_of = match &accepted {
        AcceptedMessage::Started(log) | AcceptedMessage::Duplicate(log) => log.record().retry_of,
        AcceptedMessage::AlreadyStored(record) => record.retry_of,
    };
    if retry_of != Some(turn) {
        let text = "this client_msg_id was used for another message; a retry needs a new one";
        return Err(reject(&id, ErrorCode::BadRequest, text));
    }
    Ok(accepted)
}

/// Resolves the options of a visitor's message. They are ignored unless `chat.visitor_options` is
/// set.
pub fn visitor_options(
    service: &ChatService,
    options: Option<MessageOptions>,
    id: &ClientMsgId,
) -> Result<TurnOptions, ClientError> {
    let options = options.filter(|_| service.settings().chat.visitor_options);
    resolve_options(service, options, id)
}

/// Resolves the options of a message. Fails with `bad_request` for an unknown provider name.
pub fn resolve_options(
    service: &ChatService,
    options: Option<MessageOptions>,
    id: &ClientMsgId,
) -> Result<TurnOptions, ClientError> {
    let Some(options) = options else {
        return Ok(service.turns.default_options());
    };
    let table = service.turns.config();
    let unknown = || reject(id, ErrorCode::BadRequest, "no provider has that name");
    let find = |name: String| table.provider(&name).ok_or_else(unknown);
    let preferred = options.provider.map(find).transpose()?;
    let defaults = service.turns.default_options();
    Ok(TurnOptions {
        // `failover: false` has no meaning without a provider to stay with.
        no_failover: preferred.is_some() && options.failover == Some(false),
        preferred_provider: preferred.map(|provider| Arc::clone(&provider.name)),
        mid_stream: options.mid_stream.unwrap_or(defaults.mid_stream),
        cache_mode: options.cache.unwrap_or(defaults.cache_mode),
        ..defaults
    })
}

fn conflicting_text(id: &ClientMsgId) -> ClientError {
    let text = "this client_msg_id was used for another text; a new message needs a new one";
    reject(id, ErrorCode::BadRequest, text)
}

fn reject(id: &ClientMsgId, code: ErrorCode, text: &str) -> ClientError {
    ClientError::new(code, text).with_message_id(id)
}

pub fn ceil_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Looks up the stored turn of a message whose log is gone.
///
/// `None` also if the store does not answer: answering a message twice is better than never.
async fn find_stored_turn(
    service: &ChatService,
    conversation: &LiveConversation,
    id: &ClientMsgId,
) -> Option<TurnRecord> {
    if conversation.complete_logs().is_some() {
        return None;
    }
    let turns = &service.turns;
    let read = turns.store.turn_by_message(conversation.id(), id.clone());
    let timeout = turns.store_timeout(STORE_TIMEOUT);
    tokio::time::timeout(timeout, read).await.ok()?.ok()?
}

/// Writes the record of a new conversation, without waiting for it.
///
/// If the write fails, an anonymous conversation only loses its date. A signed-in visitor's one can
/// then be opened by its id, but not as their latest conversation.
fn record_conversation(
    service: &ChatService,
    conversation: &LiveConversation,
    subject: Option<&str>,
) {
    if !conversation.mark_started() {
        return;
    }
    conversation.set_owner(subject);
    let record = ConversationRecord {
        started_at: service.turns.clock.wall(),
        subject: subject.map(str::to_owned),
    };
    let store = Arc::clone(&service.turns.store);
    let id = conversation.id();
    actix::spawn(async move {
        if store.create_conversation(id, record).await.is_err() {
            tracing::warn!("failed to save the conversation record");
        }
    });
}
