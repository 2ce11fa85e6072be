//! A turn as stored and as shown in the history.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::frame::{AnswerSource, AttemptSummary, Done, Draft, FinishReason};
use super::ids::{ClientMsgId, TurnId};
use super::request::TokenUsage;
use super::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    Done,
    Running,
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feedback {
    Up,
    Down,
}

/// An AI answer that replaces a degraded or missing one later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Followup {
    pub text: String,
    pub provider: Arc<str>,
    pub model: Arc<str>,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TurnUpdate {
    Feedback(Feedback),
    /// Ignored if the turn already has a follow-up.
    Followup(Followup),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// Later turns have greater ids.
    pub turn: TurnId,
    pub client_msg_id: ClientMsgId,
    pub at: Timestamp,
    pub question: String,
    /// The answer so far. Complete if `state` is `done` and `finish` is `stop`.
    pub text: String,
    pub state: TurnState,
    /// `None` while the turn runs.
    pub source: Option<AnswerSource>,
    /// `true` if the answer is not a current answer of an AI.
    pub degraded: bool,
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    /// `None` while the turn runs.
    pub finish: Option<FinishReason>,
    pub attempts: u32,
    pub drafts: Vec<Draft>,
    pub age_s: Option<u64>,
    pub feedback: Option<Feedback>,
    pub followup: Option<Followup>,
    /// The turn whose question is asked again.
    pub retry_of: Option<TurnId>,
    #[serde(default)]
    pub tried: Vec<AttemptSummary>,
    /// The sum over all attempts.
    #[serde(default)]
    pub usage: Option<TokenUsage>,
    /// `None` if the prices are unknown.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// From the question to the first visible text.
    #[serde(default)]
    pub first_token_ms: Option<u64>,
    /// From the question to the end.
    #[serde(default)]
    pub total_ms: u64,
}

impl TurnRecord {
    pub fn new(
        turn: TurnId,
        client_msg_id: ClientMsgId,
        at: Timestamp,
        question: String,
        retry_of: Option<TurnId>,
    ) -> Self {
        Self {
            turn,
            client_msg_id,
            at,
            question,
            text: String::new(),
            state: TurnState::Running,
            source: None,
            degraded: false,
            provider: None,
            model: None,
            finish: None,
            attempts: 0,
            drafts: Vec::new(),
            age_s: None,
            feedback: None,
            followup: None,
            retry_of,
            tried: Vec::new(),
            usage: None,
            cost_usd: None,
            first_token_ms: None,
            total_ms: 0,
        }
    }

    /// The `done` frame with number `seq`. A turn without an end counts as interrupted.
    pub fn done_frame(&self, seq: u64) -> Done {
        Done {
            turn: self.turn,
            seq,
            source: self.source.unwrap_or(AnswerSource::Ai),
            degraded: self.degraded,
            provider: self.provider.clone(),
            model: self.model.clone(),
            attempts: self.attempts,
            tried: self.tried.clone(),
            finish: self.finish.unwrap_or(FinishReason::Interrupted),
            text: self.text.clone(),
            age_s: self.age_s,
            usage: self.usage,
            cost_usd: self.cost_usd,
            first_token_ms: self.first_token_ms,
            total_ms: self.total_ms,
            drafts: self.drafts.clone(),
        }
    }

    pub fn apply(&mut self, change: TurnUpdate) {
        match change {
            TurnUpdate::Feedback(value) => self.feedback = Some(value),
            TurnUpdate::Followup(followup) => drop(self.followup.get_or_insert(followup)),
        }
    }

    /// The record of a turn that the service could not finish: interrupted, with the last saved
    /// text.
    pub fn into_interrupted(mut self) -> Self {
        self.state = TurnState::Interrupted;
        self.finish = Some(FinishReason::Interrupted);
        self
    }
}
