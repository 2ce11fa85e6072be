//! The chat service: what sessions and the chat API share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::frames::{ErrorCode, Refusal};
use super::limits::Rates;
use crate::chat::{ConversationId, StatusView, TurnId, TurnRecord, TurnState};
use crate::settings::Settings;
use crate::store::StoreError;
use crate::turn::desk::Desk;
use crate::turn::past::{self, Past};
use crate::turn::rooms::Room;

pub struct Lobby {
    pub desk: Arc<Desk>,
    pub status: watch::Receiver<Arc<StatusView>>,
    pub rates: Rates,
}

/// The maximum number of turns in a `history` frame.
pub const HISTORY_TURNS: usize = 100;

/// The time that a session waits for the store before it continues without an answer.
pub const STORE_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIn {
    /// The conversation belongs to another visitor, or its stored owner is unreadable.
    Theirs,
    /// The store does not answer, and no live session knows the owner.
    Unknown,
}

impl Lobby {
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.desk.published.borrow().settings)
    }

    /// Opens a conversation whose id was generated just now, without asking the store for its
    /// owner.
    pub fn begin(&self, id: ConversationId) -> Arc<Room> {
        match self.desk.sharing {
            // Another instance may start turns as soon as the client knows the id, so the
            // registry must not assume that it sees every turn.
            Some(_) => self.desk.rooms.enter(id),
            None => self.desk.rooms.begin(id),
        }
    }

    /// Opens a conversation by id, whether or not it exists. Anyone may open an anonymous
    /// conversation; a conversation with an owner is for that visitor only.
    ///
    /// If the store does not answer, the owner known from a live session decides. If there is none,
    /// access is denied. Without `widget.identity_secret` no conversation has an owner, so a store
    /// that is down does not stop the chat.
    pub async fn enter(
        &self,
        id: ConversationId,
        subject: Option<&str>,
    ) -> Result<Arc<Room>, NotIn> {
        let conversation = self.desk.rooms.enter(id);
        let stored = tokio::time::timeout(STORE_LIMIT, self.desk.store.conversation(id)).await;
        match stored {
            Ok(Ok(Some(record))) => conversation.belongs_to(record.subject.as_deref()),
            // There is a record, so there may be an owner.
            Ok(Err(StoreError::Damaged(_))) => return Err(NotIn::Theirs),
            // New, or its record is not written yet; then the live conversation knows the owner.
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => {
                if conversation.owner().is_none()
                    && self.settings().widget.identity_secret.is_some()
                {
                    return Err(NotIn::Unknown);
                }
            }
        }
        match conversation.owner() {
            Some(Some(owner)) if subject != Some(&*owner) => Err(NotIn::Theirs),
            _ => {
                self.desk.look(&conversation).await;
                Ok(conversation)
            }
        }
    }

    /// Returns the visitor's most recently started conversation.
    ///
    /// `None` if there is none, or if the store does not answer: the chat then starts a new one.
    pub async fn newest_of(&self, subject: &str) -> Option<ConversationId> {
        let read = self.desk.store.newest_of(subject.to_owned());
        tokio::time::timeout(STORE_LIMIT, read).await.ok()?.ok()?
    }

    /// Returns the last turns of a conversation, oldest first, or those before `before`.
    ///
    /// Turns with a live log are returned in their current state.
    pub async fn history(&self, conversation: &Room, before: Option<TurnId>) -> Vec<TurnRecord> {
        let Past { stored, logs } = past::read(
            &*self.desk.store,
            conversation,
            before,
            HISTORY_TURNS,
            STORE_LIMIT,
        )
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
        turns.drain(..turns.len().saturating_sub(HISTORY_TURNS));
        for turn in &mut turns {
            // Running without a log: its end was not stored, or the process that ran it died.
            if turn.state == TurnState::Running && conversation.log(turn.turn).is_none() {
                *turn = turn.clone().interrupted();
            }
        }
        if let Some(last) = turns.last() {
            conversation.seen(last.turn);
        }
        turns
    }

    /// Passes the newest stored turn id to the conversation, so that the next turn gets a later id.
    pub async fn catch_up(&self, conversation: &Room) {
        if conversation.all_here().is_some() {
            return;
        }
        let read = self.desk.store.turns(conversation.id(), None, 1);
        if let Ok(Ok(turns)) = tokio::time::timeout(STORE_LIMIT, read).await {
            turns.iter().for_each(|turn| conversation.seen(turn.turn));
        }
    }

    /// Returns a finished or running turn of the conversation.
    ///
    /// Fails with `not_found` if there is no such turn, and with `internal` if the store does not
    /// answer.
    pub async fn turn(&self, conversation: &Room, turn: TurnId) -> Result<TurnRecord, Refusal> {
        if let Some(log) = conversation.log(turn) {
            return Ok(log.record());
        }
        let read = self.desk.store.turn(conversation.id(), turn);
        match tokio::time::timeout(STORE_LIMIT, read).await {
            Ok(Ok(Some(record))) => Ok(record),
            Ok(Ok(None)) => Err(Refusal::new(
                ErrorCode::NotFound,
                "this conversation has no such turn",
            )),
            Ok(Err(_)) | Err(_) => {
                let message = "the store does not answer at the moment; try again";
                Err(Refusal::new(ErrorCode::Internal, message).retry_after(5))
            }
        }
    }
}
