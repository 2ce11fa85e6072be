//! Connects a turn to the store: it writes the question, checkpoints of the text, the end,
//! and reads the history for the model.
//!
//! A store that fails or is slow costs durability and history, never an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::flights::Flight;
use super::log::{LogWriter, TurnLog};
use super::past;
use super::prompt::{self, Shape};
use super::rooms::Room;
use crate::chat::{Ask, TurnRecord, TurnState};
use crate::degradation::shelf::Renewal;

/// Frames are held back for at most this time until the store confirms the question.
const DURABLE_LIMIT: Duration = Duration::from_millis(250);

/// Limits reading the history, which delays the answer, and writing the end, which delays `done`.
const STORE_LIMIT: Duration = Duration::from_millis(250);

/// Including the time the store takes to flush, a crash loses at most half a second of text.
const CHECKPOINT: Duration = Duration::from_millis(350);

/// The place a turn is stored in, and the source of its messages.
pub enum Keeping {
    /// In its conversation, whose history is sent to the model.
    In(Arc<Room>),
    /// Not stored. The caller supplies all messages.
    Nowhere(Ask),
    /// Not stored, and nobody reads it. Its answer replaces a cached one.
    Aside(Ask, Renewal, Flight),
}

pub struct Asked {
    pub ask: Ask,
    /// The provider of the conversation's last complete AI answer.
    pub served_by: Option<Arc<str>>,
    /// `true` if it is certain that no earlier turn exists.
    pub first: bool,
    /// `true` if it is certain that the request has no history.
    pub alone: bool,
}

impl Asked {
    fn alien(request: &Ask) -> Self {
        Self {
            ask: request.clone(),
            served_by: None,
            first: false,
            alone: false,
        }
    }
}

impl Keeping {
    /// Writes the question to the store, then releases the frames.
    ///
    /// If the store is unhealthy, the frames are released early. A confirmation within the usual
    /// limit still marks the store healthy again.
    pub async fn confirm(&self, service: &Desk, log: &TurnLog) {
        let Keeping::In(conversation) = self else {
            return LogWriter::confirm(log, false);
        };
        let store = Arc::clone(&service.store);
        let id = conversation.id();
        let record = log.record();
        let mut write = Box::pin(async move { store.write_turn(id, record).await });
        let limit = service.patience(DURABLE_LIMIT);
        let result = tokio::time::timeout(limit, &mut write).await;
        let durable = matches!(result, Ok(Ok(())));
        service
            .durable
            .send_if_modified(|known| std::mem::replace(known, durable) != durable);
        LogWriter::confirm(log, durable && service.store.lasting());
        if result.is_err() && limit < DURABLE_LIMIT {
            let store_healthy = service.durable.clone();
            let time_left = DURABLE_LIMIT.saturating_sub(limit);
            actix::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(time_left, write).await {
                    store_healthy.send_replace(true);
                }
            });
        }
    }

    /// Saves the text so far every `CHECKPOINT_INTERVAL`, if it changed. Never returns.
    pub async fn checkpoints(&self, service: &Desk, log: &TurnLog) -> Infallible {
        let Keeping::In(conversation) = self else {
            return std::future::pending().await;
        };
        let mut saved = log.progress();
        loop {
            tokio::time::sleep(CHECKPOINT).await;
            let now = log.progress();
            if now != saved {
                saved = now;
                service.store.checkpoint(conversation.id(), log.record());
            }
        }
    }

    /// Writes the end of the turn. `needs_followup` queues it for a follow-up, except for turns of
    /// an HTTP call, which nobody could deliver one to.
    pub async fn end(&self, service: &Desk, record: &TurnRecord, needs_followup: bool) {
        let Keeping::In(conversation) = self else {
            return;
        };
        let id = conversation.id();
        if needs_followup && !record.client_msg_id.is_of_call() {
            service.outbox.enter(service, id, record.turn);
        }
        let write = service.store.write_turn(id, record.clone());
        let result = tokio::time::timeout(service.patience(STORE_LIMIT), write).await;
        if !matches!(result, Ok(Ok(()))) {
            service
                .durable
                .send_if_modified(|durable| std::mem::replace(durable, false));
        }
    }

    /// The request to send to the model. Without the history if the store does not answer in time.
    pub async fn ask(&self, service: &Desk, log: &TurnLog) -> Asked {
        match self {
            Keeping::In(conversation) => asked(service, conversation, &log.record()).await,
            Keeping::Nowhere(request) | Keeping::Aside(request, ..) => Asked::alien(request),
        }
    }
}

pub(super) async fn asked(service: &Desk, conversation: &Room, record: &TurnRecord) -> Asked {
    let table = service.table();
    let chat = &table.settings.chat;
    // Read more turns than needed: some of them are left out of the history.
    let limit = chat.history_turns.saturating_mul(2).max(1);
    let timeout = service.patience(STORE_LIMIT);
    let past = past::read(
        &*service.store,
        conversation,
        Some(record.turn),
        limit,
        timeout,
    )
    .await;
    let is_known = past.stored.is_some();
    if !is_known {
        tracing::warn!(turn = %record.turn, "history not read in time, sending the question alone");
    }
    let stored = past.stored.unwrap_or_default();
    let is_first_message = is_known && stored.is_empty() && past.logs.is_empty();
    let history = with_ended(stored, &past.logs, limit);
    let limits = Shape {
        history_turns: chat.history_turns,
        max_tokens: chat.max_tokens,
        retry_of: record.retry_of,
    };
    let request = prompt::ask(
        Arc::clone(&chat.system_prompt),
        &history,
        &record.question,
        limits,
    );
    let is_standalone = is_known && request.messages.len() == 1;
    Asked {
        ask: request,
        served_by: prompt::served_by(&history),
        first: is_first_message,
        alone: is_standalone,
    }
}

/// Adds the last `limit` finished turns in memory to the stored history, which may lack them or
/// have them as still running.
fn with_ended(
    mut history: Vec<TurnRecord>,
    logs: &[Arc<TurnLog>],
    limit: usize,
) -> Vec<TurnRecord> {
    for log in logs.iter().rev().take(limit) {
        match history
            .iter_mut()
            .rev()
            .find(|stored| stored.turn == log.turn())
        {
            // The store's record of a finished turn is complete.
            Some(stored) if stored.state != TurnState::Running => {}
            Some(stored) => *stored = log.record(),
            None => history.extend(log.ended_as(prompt::tells)),
        }
    }
    // A turn that the store missed may be older than one that it has.
    history.sort_by_key(|record| record.turn);
    history
}
