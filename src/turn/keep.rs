//! A turn and the store: the question before its answer is seen, the text so far, the end before its `done`; and the history that the model sees.
//!
//! A store that fails or is slow costs durability and history, never an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::flights::Flight;
use super::log::{LogWriter, TurnLog};
use super::past::{self, Past};
use super::prompt::{self, Shape};
use super::rooms::Room;
use crate::chat::{Ask, TurnRecord, TurnState};
use crate::degradation::shelf::Renewal;

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
    /// Nowhere, and nobody reads it: its answer takes the place of a saved one.
    Aside(Ask, Renewal, Flight),
}

/// What is asked of the model, and what is known of the conversation before it.
pub struct Asked {
    /// The question with its history.
    pub ask: Ask,
    /// Who served the conversation last.
    pub served_by: Option<Arc<str>>,
    /// Whether it is known to be the conversation's first message.
    pub first: bool,
    /// Whether it is known that the model sees nothing of the conversation but the question.
    pub alone: bool,
}

impl Asked {
    fn alien(ask: &Ask) -> Self {
        Self {
            ask: ask.clone(),
            served_by: None,
            first: false,
            alone: false,
        }
    }
}

impl Keeping {
    /// Writes the question to the store, then lets the frames be seen. A store that is in doubt is listened to further, behind them: what it
    /// confirms within the usual limit lifts the doubt.
    pub async fn confirm(&self, desk: &Desk, log: &TurnLog) {
        let Keeping::In(room) = self else {
            return LogWriter::confirm(log, false);
        };
        let (store, id, record) = (Arc::clone(&desk.store), room.id(), log.record());
        let mut written = Box::pin(async move { store.write_turn(id, record).await });
        let limit = desk.patience(DURABLE_LIMIT);
        let answer = tokio::time::timeout(limit, &mut written).await;
        let durable = matches!(answer, Ok(Ok(())));
        desk.durable
            .send_if_modified(|known| std::mem::replace(known, durable) != durable);
        LogWriter::confirm(log, durable && desk.store.lasting());
        if answer.is_err() && limit < DURABLE_LIMIT {
            let (well, rest) = (desk.durable.clone(), DURABLE_LIMIT.saturating_sub(limit));
            actix::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(rest, written).await {
                    well.send_replace(true);
                }
            });
        }
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
        if !matches!(
            tokio::time::timeout(desk.patience(STORE_LIMIT), written).await,
            Ok(Ok(()))
        ) {
            desk.durable
                .send_if_modified(|durable| std::mem::replace(durable, false));
        }
    }

    /// What the model is asked. A store that does not answer in time costs the history, not the answer.
    pub async fn ask(&self, desk: &Desk, log: &TurnLog) -> Asked {
        let room = match self {
            Keeping::In(room) => room,
            Keeping::Nowhere(ask) | Keeping::Aside(ask, ..) => return Asked::alien(ask),
        };
        asked(desk, room, &log.record()).await
    }
}

/// What the model is asked for this turn of the room's conversation, as [`Keeping::ask`] says.
pub(super) async fn asked(desk: &Desk, room: &Room, record: &TurnRecord) -> Asked {
    let table = desk.table();
    let chat = &table.settings.chat;
    // Turns that are left out of the history still take a place in what is read, so some more are read.
    let limit = chat.history_turns.saturating_mul(2).max(1);
    let patience = desk.patience(STORE_LIMIT);
    let Past { stored, logs } =
        past::read(&*desk.store, room, Some(record.turn), limit, patience).await;
    let known = stored.is_some();
    if !known {
        tracing::warn!(turn = %record.turn, "history not read in time; the model sees the question alone");
    }
    let stored = stored.unwrap_or_default();
    let first = known && stored.is_empty() && logs.is_empty();
    let history = with_ended(stored, &logs, limit);
    let shape = Shape {
        history_turns: chat.history_turns,
        max_tokens: chat.max_tokens,
        retry_of: record.retry_of,
    };
    let ask = prompt::ask(
        Arc::clone(&chat.system_prompt),
        &history,
        &record.question,
        shape,
    );
    let alone = known && ask.messages.len() == 1;
    Asked {
        ask,
        served_by: prompt::served_by(&history),
        first,
        alone,
    }
}

/// The history with turns that ended just now, the last `limit` of them, as they ended: the store may not have that yet.
fn with_ended(
    mut history: Vec<TurnRecord>,
    logs: &[Arc<TurnLog>],
    limit: usize,
) -> Vec<TurnRecord> {
    for log in logs.iter().rev().take(limit) {
        match history
            .iter_mut()
            .rev()
            .find(|known| known.turn == log.turn())
        {
            // What the store has of an ended turn is all there is of it.
            Some(known) if known.state != TurnState::Running => {}
            Some(known) => *known = log.record(),
            None => history.extend(log.ended_as(prompt::tells)),
        }
    }
    // The store may have missed one and have a later one.
    history.sort_by_key(|known| known.turn);
    history
}
