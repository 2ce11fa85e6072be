//! Connects a turn to the store: it writes the question, checkpoints of the text, the end,
//! and reads the history for the model.
//!
//! A store that fails or is slow costs durability and history, never an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::conversations::LiveConversation;
use super::deps::TurnDeps;
use super::log::{LogWriter, TurnLog};
use super::prompt::{self, PromptLimits};
use super::single_flight::FlightGuard;
use crate::answer_cache::RefreshJob;
use crate::domain::{ChatRequest, TurnRecord, TurnState};

/// Frames are held back for at most this time until the store confirms the question.
const QUESTION_WRITE_TIMEOUT: Duration = Duration::from_millis(250);

/// Limits reading the history, which delays the answer, and writing the end, which delays `done`.
const STORE_TIMEOUT: Duration = Duration::from_millis(250);

/// Including the time the store takes to flush, a crash loses at most half a second of text.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(350);

/// The place a turn is stored in, and the source of its messages.
pub enum Persistence {
    /// In its conversation, whose history is sent to the model.
    Conversation(Arc<LiveConversation>),
    /// Not stored. The caller supplies all messages.
    Ephemeral(ChatRequest),
    /// Not stored, and nobody reads it. Its answer replaces a cached one.
    CacheRefresh(ChatRequest, RefreshJob, FlightGuard),
}

pub struct PreparedRequest {
    pub request: ChatRequest,
    /// The provider of the conversation's last complete AI answer.
    pub last_provider: Option<Arc<str>>,
    /// `true` if it is certain that no earlier turn exists.
    pub is_first_message: bool,
    /// `true` if it is certain that the request has no history.
    pub is_standalone: bool,
}

impl Persistence {
    /// Writes the question to the store, then releases the frames.
    ///
    /// If the store is unhealthy, the frames are released early. A confirmation within the usual
    /// limit still marks the store healthy again.
    pub async fn persist_question(&self, deps: &TurnDeps, log: &TurnLog) {
        let Persistence::Conversation(conversation) = self else {
            return LogWriter::release(log, false);
        };
        let store = Arc::clone(&deps.store);
        let id = conversation.id();
        let record = log.record();
        let mut write = Box::pin(async move { store.write_turn(id, record).await });
        let limit = deps.store_timeout(QUESTION_WRITE_TIMEOUT);
        let result = tokio::time::timeout(limit, &mut write).await;
        let durable = matches!(result, Ok(Ok(())));
        deps.store_healthy
            .send_if_modified(|known| std::mem::replace(known, durable) != durable);
        LogWriter::release(log, durable && deps.store.is_durable());
        if result.is_err() && limit < QUESTION_WRITE_TIMEOUT {
            let store_healthy = deps.store_healthy.clone();
            let time_left = QUESTION_WRITE_TIMEOUT.saturating_sub(limit);
            actix::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(time_left, write).await {
                    store_healthy.send_replace(true);
                }
            });
        }
    }

    /// Saves the text so far every `CHECKPOINT_INTERVAL`, if it changed. Never returns.
    pub async fn checkpoint_loop(&self, deps: &TurnDeps, log: &TurnLog) -> Infallible {
        let Persistence::Conversation(conversation) = self else {
            return std::future::pending().await;
        };
        let mut saved = log.progress();
        loop {
            tokio::time::sleep(CHECKPOINT_INTERVAL).await;
            let now = log.progress();
            if now != saved {
                saved = now;
                deps.store.checkpoint(conversation.id(), log.record());
            }
        }
    }

    /// Writes the end of the turn. `needs_followup` queues it for a follow-up, except for turns of
    /// an HTTP call, which nobody could deliver one to.
    pub async fn persist_end(&self, deps: &TurnDeps, record: &TurnRecord, needs_followup: bool) {
        let Persistence::Conversation(conversation) = self else {
            return;
        };
        let id = conversation.id();
        if needs_followup && !record.client_msg_id.is_http_call() {
            deps.followup_queue
                .enqueue(&*deps.store, deps.clock.now(), id, record.turn);
        }
        let write = deps.store.write_turn(id, record.clone());
        let result = tokio::time::timeout(deps.store_timeout(STORE_TIMEOUT), write).await;
        if !matches!(result, Ok(Ok(()))) {
            deps.store_healthy
                .send_if_modified(|durable| std::mem::replace(durable, false));
        }
    }

    /// The request to send to the model. Without the history if the store does not answer in time.
    pub async fn build_request(&self, deps: &TurnDeps, log: &TurnLog) -> PreparedRequest {
        match self {
            Persistence::Conversation(conversation) => {
                prepare_request(deps, conversation, &log.record()).await
            }
            Persistence::Ephemeral(request) | Persistence::CacheRefresh(request, ..) => {
                PreparedRequest {
                    request: request.clone(),
                    last_provider: None,
                    is_first_message: false,
                    is_standalone: false,
                }
            }
        }
    }
}

pub(super) async fn prepare_request(
    deps: &TurnDeps,
    conversation: &LiveConversation,
    record: &TurnRecord,
) -> PreparedRequest {
    let table = deps.config();
    let chat = &table.settings.chat;
    // Read more turns than needed: some of them are left out of the history.
    let limit = chat.history_turns.saturating_mul(2).max(1);
    let timeout = deps.store_timeout(STORE_TIMEOUT);
    let past = conversation
        .history(&*deps.store, Some(record.turn), limit, timeout)
        .await;
    let is_known = past.stored.is_some();
    if !is_known {
        tracing::warn!(turn = %record.turn, "history not read in time, sending the question alone");
    }
    let stored = past.stored.unwrap_or_default();
    let is_first_message = is_known && stored.is_empty() && past.logs.is_empty();
    let history = overlay_recent_turns(stored, &past.logs, limit);
    let limits = PromptLimits {
        history_turns: chat.history_turns,
        max_tokens: chat.max_tokens,
        retry_of: record.retry_of,
    };
    let request = prompt::build_request(
        Arc::clone(&chat.system_prompt),
        &history,
        &record.question,
        limits,
    );
    let is_standalone = is_known && request.messages.len() == 1;
    PreparedRequest {
        request,
        last_provider: prompt::last_provider(&history),
        is_first_message,
        is_standalone,
    }
}

/// Adds the last `limit` finished turns in memory to the stored history, which may lack them or
/// have them as still running.
fn overlay_recent_turns(
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
            None => history.extend(log.finished_record(prompt::is_context)),
        }
    }
    // A turn that the store missed may be older than one that it has.
    history.sort_by_key(|record| record.turn);
    history
}
