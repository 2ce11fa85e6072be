//! What every session needs: where turns are opened, what the service's state is, what visitors may do.

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

/// Shared by all sessions.
pub struct Lobby {
    /// Where turns are opened.
    pub desk: Arc<Desk>,
    /// The service's state.
    pub status: watch::Receiver<Arc<StatusView>>,
    /// How many messages a conversation and an address may send.
    pub rates: Rates,
}

/// How many turns a `history` frame has at most.
pub const HISTORY_TURNS: usize = 100;

/// How long a session waits for the store, before it does without.
pub const STORE_LIMIT: Duration = Duration::from_secs(1);

/// Why a conversation is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIn {
    /// It belongs to another visitor, or to one whose name cannot be read.
    Theirs,
    /// Whose it is cannot be told now: the store does not say.
    Unknown,
}

impl Lobby {
    /// The settings at this moment.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.desk.published.borrow().settings)
    }

    /// Enters a conversation that was made just now: nobody else knows of it, and no store has to be asked whose it is.
    pub fn begin(&self, id: ConversationId) -> Arc<Room> {
        match self.desk.sharing {
            // Once its id is told, another instance may open turns of it.
            Some(_) => self.desk.rooms.enter(id),
            None => self.desk.rooms.begin(id),
        }
    }

    /// Enters a conversation, known or not: everyone may enter anonymous ones, and a visitor with a token those of their own.
    ///
    /// Where the store does not say whose it is, the room may know it from who was there before. Where that does not either, nobody is let in on a
    /// guess, unless visitors have no tokens here, and no conversation an owner: a store that is down must not stop a chat.
    ///
    /// # Errors
    /// See [`NotIn`].
    pub async fn enter(
        &self,
        id: ConversationId,
        subject: Option<&str>,
    ) -> Result<Arc<Room>, NotIn> {
        let room = self.desk.rooms.enter(id);
        let known = tokio::time::timeout(STORE_LIMIT, self.desk.store.conversation(id)).await;
        match known {
            Ok(Ok(Some(record))) => room.belongs_to(record.subject.as_deref()),
            // Its owner is written down, and cannot be read.
            Ok(Err(StoreError::Damaged(_))) => return Err(NotIn::Theirs),
            // Nobody's yet, unless that is not written so far.
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => {
                if room.owner().is_none() && self.settings().widget.identity_secret.is_some() {
                    return Err(NotIn::Unknown);
                }
            }
        }
        match room.owner() {
            Some(Some(owner)) if subject != Some(&*owner) => Err(NotIn::Theirs),
            _ => {
                self.desk.look(&room).await;
                Ok(room)
            }
        }
    }

    /// The visitor's conversation that was begun last, where the store knows one.
    pub async fn newest_of(&self, subject: &str) -> Option<ConversationId> {
        let read = self.desk.store.newest_of(subject.to_owned());
        // A store that does not answer must not stop a chat: then it is a new one.
        tokio::time::timeout(STORE_LIMIT, read).await.ok()?.ok()?
    }

    /// The last turns of a conversation, those before `before` if given; what runs, or just ended, as it is now.
    pub async fn history(&self, room: &Room, before: Option<TurnId>) -> Vec<TurnRecord> {
        let Past { stored, logs } =
            past::read(&*self.desk.store, room, before, HISTORY_TURNS, STORE_LIMIT).await;
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
        // The store may have missed one and have a later one.
        turns.sort_by_key(|turn| turn.turn);
        // Logs may be many, as those of a quick program; the older ones come by their own page.
        turns.drain(..turns.len().saturating_sub(HISTORY_TURNS));
        for turn in &mut turns {
            // No log, yet running: the store missed its end, or another process of old died under it.
            if turn.state == TurnState::Running && room.log(turn.turn).is_none() {
                *turn = turn.clone().interrupted();
            }
        }
        if let Some(last) = turns.last() {
            room.seen(last.turn);
        }
        turns
    }

    /// Tells the room of the conversation's newest turn, so that the next one's id is later.
    pub async fn catch_up(&self, room: &Room) {
        if room.all_here().is_some() {
            return;
        }
        let read = self.desk.store.turns(room.id(), None, 1);
        if let Ok(Ok(turns)) = tokio::time::timeout(STORE_LIMIT, read).await {
            turns.iter().for_each(|turn| room.seen(turn.turn));
        }
    }

    /// One ended or running turn of the conversation.
    ///
    /// # Errors
    /// There is no such turn, or the store does not say.
    pub async fn turn(&self, room: &Room, turn: TurnId) -> Result<TurnRecord, Refusal> {
        if let Some(log) = room.log(turn) {
            return Ok(log.record());
        }
        let read = self.desk.store.turn(room.id(), turn);
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
