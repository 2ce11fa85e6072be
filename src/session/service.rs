//! The chat service: what sessions and the chat API share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::protocol::{ClientError, ErrorCode};
use super::rate_limit::RateLimiter;
use crate::config::Settings;
use crate::domain::{ConversationId, StatusView, TurnId, TurnRecord, TurnState};
use crate::store::StoreError;
use crate::turn::conversations::{History, LiveConversation};
use crate::turn::service::TurnService;

pub struct ChatService {
    pub turns: Arc<TurnService>,
    pub status: watch::Receiver<Arc<StatusView>>,
    pub rate_limiter: RateLimiter,
}

/// The maximum number of turns in a `history` frame.
pub const MAX_HISTORY_TURNS: usize = 100;

/// The time that a session waits for the store before it continues without an answer.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(1);

impl ChatService {
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.turns.config_watch.borrow().settings)
    }

    /// Opens a conversation whose id was generated just now, without asking the store for its
    /// owner.
    pub fn create_conversation(&self, id: ConversationId) -> Arc<LiveConversation> {
        match self.turns.replication {
            // Another instance may start turns as soon as the client knows the id, so the
            // registry must not assume that it sees every turn.
            Some(_) => self.turns.conversations.get_or_create(id),
            None => self.turns.conversations.create(id),
        }
    }

    /// Opens a conversation by id, whether or not it exists. Anyone may open an anonymous
    /// conversation; a conversation with an owner is for that visitor only. Fails with
    /// `unauthorized` for another visitor's conversation, and with `internal` if the owner is
    /// unknown.
    ///
    /// If the store does not answer, the owner known from a live session decides. If there is none,
    /// access is denied. Without `widget.identity_secret` no conversation has an owner, so a store
    /// that is down does not stop the chat.
    pub async fn open_conversation(
        &self,
        id: ConversationId,
        subject: Option<&str>,
    ) -> Result<Arc<LiveConversation>, ClientError> {
        let conversation = self.turns.conversations.get_or_create(id);
        let stored = tokio::time::timeout(STORE_TIMEOUT, self.turns.store.conversation(id)).await;
        match stored {
            Ok(Ok(Some(record))) => conversation.set_owner(record.subject.as_deref()),
            // There is a record, so there may be an owner.
            Ok(Err(StoreError::Damaged(_))) => return Err(not_owner()),
            // New, or its record is not written yet; then the live conversation knows the owner.
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => {
                if conversation.owner().is_none()
                    && self.settings().widget.identity_secret.is_some()
                {
                    let message = "the owner of this conversation cannot be checked right now; try again, or start a new one";
                    return Err(ClientError::new(ErrorCode::Internal, message).retry_after(2));
                }
            }
        }
        match conversation.owner() {
            Some(Some(owner)) if subject != Some(&*owner) => Err(not_owner()),
            _ => {
                self.turns.follow_remote_turn(&conversation).await;
                Ok(conversation)
            }
        }
    }

    /// Returns the visitor's most recently started conversation.
    ///
    /// `None` if there is none, or if the store does not answer: the chat then starts a new one.
    pub async fn latest_conversation(&self, subject: &str) -> Option<ConversationId> {
        let read = self.turns.store.latest_conversation(subject.to_owned());
        tokio::time::timeout(STORE_TIMEOUT, read).await.ok()?.ok()?
    }

    /// Returns the last turns of a conversation, oldest first, or those before `before`.
    ///
    /// Turns with a live log are returned in their current state.
    pub async fn history(
        &self,
        conversation: &LiveConversation,
        before: Option<TurnId>,
    ) -> Vec<TurnRecord> {
        let store = &*self.turns.store;
        let History { stored, logs } = conversation
            .history(store, before, MAX_HISTORY_TURNS, STORE_TIMEOUT)
            .await;
        if stored.is_none() {
            tracing::warn!("history not read in time");
        }
        let mut turns = stored.unwrap_or_default();
        for log in logs {
            let record = log.record();
            match turns.iter_mut().find(|turn| turn.turn == record.turn) {
                Some(turn) => *turn = record,
                None => turns.push(record),
            }
        }
        // A turn that is only in a log may be older than one from the store.
        turns.sort_by_key(|turn| turn.turn);
        // A fast program can have many live logs. The next `history` request gets the older turns.
        turns.drain(..turns.len().saturating_sub(MAX_HISTORY_TURNS));
        for turn in &mut turns {
            // Running without a log: its end was not stored, or the process that ran it died.
            if turn.state == TurnState::Running && conversation.log(turn.turn).is_none() {
                *turn = turn.clone().into_interrupted();
            }
        }
        if let Some(last) = turns.last() {
            conversation.observe_turn_id(last.turn);
        }
        turns
    }

    /// Passes the newest stored turn id to the conversation, so that the next turn gets a later id.
    pub async fn sync_last_turn(&self, conversation: &LiveConversation) {
        if conversation.complete_logs().is_some() {
            return;
        }
        let read = self.turns.store.turns(conversation.id(), None, 1);
        if let Ok(Ok(turns)) = tokio::time::timeout(STORE_TIMEOUT, read).await {
            for turn in turns {
                conversation.observe_turn_id(turn.turn);
            }
        }
    }

    /// Returns a finished or running turn of the conversation.
    ///
    /// Fails with `not_found` if there is no such turn, and with `internal` if the store does not
    /// answer.
    pub async fn find_turn(
        &self,
        conversation: &LiveConversation,
        turn: TurnId,
    ) -> Result<TurnRecord, ClientError> {
        if let Some(log) = conversation.log(turn) {
            return Ok(log.record());
        }
        let read = self.turns.store.turn(conversation.id(), turn);
        match tokio::time::timeout(STORE_TIMEOUT, read).await {
            Ok(Ok(Some(record))) => Ok(record),
            Ok(Ok(None)) => {
                let message = "this conversation has no such turn";
                Err(ClientError::new(ErrorCode::NotFound, message))
            }
            Ok(Err(_)) | Err(_) => {
                let message = "the store does not answer at the moment; try again";
                Err(ClientError::new(ErrorCode::Internal, message).retry_after(5))
            }
        }
    }
}

fn not_owner() -> ClientError {
    let message = "this conversation belongs to a signed-in visitor; start a new one";
    ClientError::new(ErrorCode::Unauthorized, message)
}

/// Generates a conversation id from the operating system's random source.
///
/// Knowing the id is what gives access to an anonymous conversation. Without a random source no id
/// is safe, so the result is `None`.
pub fn random_conversation_id() -> Option<ConversationId> {
    let mut bytes = [0; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "no random bytes for a conversation id");
        return None;
    }
    Some(ConversationId::from_random(bytes))
}
