//! The frames of a turn on the wire: `start (attempt | token | restart)* done`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::failure::AttemptOutcome;
use super::ids::{ClientMsgId, TurnId};
use super::request::TokenUsage;
use super::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerSource {
    Ai,
    Cache,
    /// An old cached answer, served because no provider was available.
    StaleCache,
    Template,
    /// A passage from the knowledge folder, or an extractive summary.
    Extractive,
    Fallback,
}

impl AnswerSource {
    pub const ALL: [Self; 6] = [
        Self::Ai,
        Self::Cache,
        Self::StaleCache,
        Self::Template,
        Self::Extractive,
        Self::Fallback,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ai => "ai",
            Self::Cache => "cache",
            Self::StaleCache => "stale_cache",
            Self::Template => "template",
            Self::Extractive => "extractive",
            Self::Fallback => "fallback",
        }
    }

    /// `true` for everything except a live or fresh cached AI answer.
    pub const fn is_degraded(self) -> bool {
        !matches!(self, Self::Ai | Self::Cache)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    Stop,
    Length,
    ContentFilter,
    Stopped,
    /// The service shut down, or the last follower left.
    Interrupted,
}

impl FinishReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Text that was shown and then retracted by a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The last attempt that contributed to the text.
    pub attempt: u32,
    pub provider: Arc<str>,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviousFailure {
    pub provider: Arc<str>,
    pub reason: AttemptOutcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptSummary {
    /// Counted from 1.
    pub attempt: u32,
    pub provider: Arc<str>,
    pub model: Arc<str>,
    pub outcome: AttemptOutcome,
    pub ms: u64,
}

/// The end of a turn. Its `text` is authoritative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub turn: TurnId,
    pub seq: u64,
    pub source: AnswerSource,
    /// `true` if the answer is not a current answer of an AI.
    pub degraded: bool,
    /// `None` if the answer did not come from a provider.
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    pub attempts: u32,
    pub tried: Vec<AttemptSummary>,
    pub finish: FinishReason,
    /// The complete answer. It equals the text of a client that applied all frames.
    pub text: String,
    /// The age of a cached answer, in seconds.
    pub age_s: Option<u64>,
    /// The sum over all attempts.
    pub usage: Option<TokenUsage>,
    /// `None` if the prices are unknown.
    pub cost_usd: Option<f64>,
    /// From the question to the first visible text.
    pub first_token_ms: Option<u64>,
    /// From the question to this frame.
    pub total_ms: u64,
    pub drafts: Vec<Draft>,
}

/// One frame of a turn.
///
/// `seq` counts from 1 without gaps. A `snapshot` replaces the client's text and sets its last
/// `seq`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    Start {
        turn: TurnId,
        seq: u64,
        client_msg_id: ClientMsgId,
        text: String,
        at: Timestamp,
        /// The turn whose question is asked again.
        retry_of: Option<TurnId>,
    },
    /// Starts an attempt. The text so far stays.
    Attempt {
        turn: TurnId,
        seq: u64,
        /// Counted from 1.
        attempt: u32,
        provider: Arc<str>,
        model: Arc<str>,
        after: Option<PreviousFailure>,
    },
    Token {
        turn: TurnId,
        seq: u64,
        /// The attempt that produced the text; 0 if no provider did.
        attempt: u32,
        text: String,
    },
    /// Retracts all text of the turn so far.
    Restart {
        turn: TurnId,
        seq: u64,
        /// The attempt whose text follows; 0 if it comes from no provider.
        attempt: u32,
        /// The provider whose text is retracted.
        from: Arc<str>,
        /// The provider whose text follows. `None` if no provider is left.
        to: Option<Arc<str>>,
        reason: AttemptOutcome,
    },
    Done(Box<Done>),
    /// The turn so far, for a client that joins late.
    Snapshot {
        turn: TurnId,
        seq: u64,
        /// The current attempt, even if it has produced no text yet. 0 before the first attempt and
        /// for answers that come from no provider.
        attempt: u32,
        provider: Option<Arc<str>>,
        model: Option<Arc<str>>,
        text: String,
        drafts: Vec<Draft>,
        question: String,
    },
}

impl Frame {
    pub fn turn(&self) -> TurnId {
        match self {
            Frame::Start { turn, .. }
            | Frame::Attempt { turn, .. }
            | Frame::Token { turn, .. }
            | Frame::Restart { turn, .. }
            | Frame::Snapshot { turn, .. } => *turn,
            Frame::Done(done) => done.turn,
        }
    }

    pub fn seq(&self) -> u64 {
        match self {
            Frame::Start { seq, .. }
            | Frame::Attempt { seq, .. }
            | Frame::Token { seq, .. }
            | Frame::Restart { seq, .. }
            | Frame::Snapshot { seq, .. } => *seq,
            Frame::Done(done) => done.seq,
        }
    }
}
