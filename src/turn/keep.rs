//! A turn and the store: the question before its answer is seen, the text so far, the end before its `done`; and the history that the model sees.
//!
//! A store that fails or is slow costs durability and history, never an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::log::{LogWriter, TurnLog};
use super::prompt::{self, Shape};
use super::rooms::Room;
use crate::chat::{Ask, TurnId, TurnRecord};

/// How long frames wait for the disk to confirm the question.
const DURABLE_LIMIT: Duration = Duration::from_millis(250);

/// How long reading the history, or writing the end, may hold an answer up.
const STORE_LIMIT: Duration = Duration::from_millis(250);

/// How often the text so far is saved. With the time that the store takes to have it on disk, a crash costs at most half a second of it.
const CHECKPOINT: Duration = Duration::from_millis(350);

/// Where a turn is kept, and where its question comes from.
pub enum Keeping {
    /// In its conversation, whose history the model sees.
    In(Arc<Room>),
    /// Nowhere: the caller says all that the model sees.
    Nowhere(Ask),
}

impl Keeping {
    /// Writes the question to the store, then lets the frames be seen.
    pub async fn confirm(&self, desk: &Desk, log: &TurnLog) {
        let Keeping::In(room) = self else {
            return LogWriter::confirm(log, false);
        };
        let written = desk.store.write_turn(room.id(), log.record());
        let durable = matches!(tokio::time::timeout(DURABLE_LIMIT, written).await, Ok(Ok(())));
        desk.durable.send_if_modified(|known| std::mem::replace(known, durable) != durable);
        LogWriter::confirm(log, durable && desk.store.lasting());
    }

    /// Saves the text so far now and then, for ever.
    pub async fn checkpoints(&self, desk: &Desk, log: &TurnLog) -> Infallible {
        let Keeping::In(room) = self else {
            return std::future::pending().await;
        };
        let mut saved = log.progress();
        loop {
            tokio::time::sleep(CHECKPOINT).await;
            let now = log.progress();
            if now != saved {
                saved = now;
                desk.store.checkpoint(room.id(), log.record());
            }
        }
    }

    /// Writes the end. `owed`: a late answer is to follow.
    pub async fn end(&self, desk: &Desk, record: &TurnRecord, owed: bool) {
        let Keeping::In(room) = self else { return };
        if owed && !record.client_msg_id.is_of_call() {
            desk.outbox.enter(desk, room.id(), record.turn);
        }
        let written = desk.store.write_turn(room.id(), record.clone());
        if !matches!(tokio::time::timeout(STORE_LIMIT, written).await, Ok(Ok(()))) {
            desk.durable.send_if_modified(|durable| std::mem::replace(durable, false));
        }
    }

    /// What the model is asked, the question with its history, and who served the conversation last. A store that does not answer in time costs
    /// the history, not the answer.
    pub async fn ask(&self, desk: &Desk, log: &TurnLog) -> (Ask, Option<Arc<str>>) {
        let room = match self {
            Keeping::In(room) => room,
            Keeping::Nowhere(ask) => return (ask.clone(), None),
        };
        asked(desk, room, &log.record()).await
    }
}

/// What the model is asked for this turn of the room's conversation, as [`Keeping::ask`] says.
pub(super) async fn asked(desk: &Desk, room: &Room, record: &TurnRecord) -> (Ask, Option<Arc<str>>) {
    let manners = &desk.manners;
    // Turns that are left out of the history still take a place in what is read, so some more are read.
    let limit = manners.history_turns.saturating_mul(2);
    let read = desk.store.turns(room.id(), Some(record.turn), limit);
    let history = match tokio::time::timeout(STORE_LIMIT, read).await {
        Ok(Ok(history)) => history,
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(turn = %record.turn, "history not read in time; the model sees the question alone");
            Vec::new()
        }
    };
    let history = with_ended(history, room, record.turn);
    let shape = Shape {
        history_turns: manners.history_turns,
        max_tokens: manners.max_tokens,
        retry_of: record.retry_of,
    };
    let ask = prompt::ask(Arc::clone(&manners.system_prompt), &history, &record.question, shape);
    (ask, prompt::served_by(&history))
}

/// The history with turns that ended just now, as they ended: the store may not have that yet.
fn with_ended(mut history: Vec<TurnRecord>, room: &Room, before: TurnId) -> Vec<TurnRecord> {
    for log in room.logs().into_iter().filter(|log| log.ended() && log.turn() < before) {
        let record = log.record();
        match history.iter_mut().find(|known| known.turn == record.turn) {
            Some(known) => *known = record,
            None => history.push(record),
        }
    }
    // The store may have missed one and have a later one.
    history.sort_by_key(|known| known.turn);
    history
}
