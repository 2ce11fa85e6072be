//! The frames of a turn as they go to a client: `start (attempt | token | restart)* done`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ask::Usage;
use super::fault::Outcome;
use super::ids::{ClientMsgId, TurnId};
use super::time::At;
use super::turn::{Finish, Source};

/// Text that was shown and then voided by a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The attempt that it ended with.
    pub attempt: u32,
    /// Whose it was.
    pub provider: Arc<str>,
    /// All that was shown.
    pub text: String,
}

/// Who failed before this attempt, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// The provider that failed.
    pub provider: Arc<str>,
    /// How, in the protocol's words.
    pub reason: Outcome,
}

/// One attempt as `done` reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Its number, from 1.
    pub attempt: u32,
    /// Who was asked.
    pub provider: Arc<str>,
    /// With which model.
    pub model: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// The end of a turn: the authority on what was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The turn.
    pub turn: TurnId,
    /// This frame's number.
    pub seq: u64,
    /// Where the answer came from.
    pub source: Source,
    /// Whether that is less than an AI's answer of today.
    pub degraded: bool,
    /// Who answered; none for what no provider said.
    pub provider: Option<Arc<str>>,
    /// With which model.
    pub model: Option<Arc<str>>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Each of them.
    pub tried: Vec<Tried>,
    /// Why it ended.
    pub finish: Finish,
    /// The whole answer: what a client shows that applied the frames.
    pub text: String,
    /// The age of a saved answer, in seconds.
    pub age_s: Option<u64>,
    /// Tokens, over all attempts.
    pub usage: Option<Usage>,
    /// What they cost, where prices are known.
    pub cost_usd: Option<f64>,
    /// From the question to the first shown text.
    pub first_token_ms: Option<u64>,
    /// From the question to this frame.
    pub total_ms: u64,
    /// Voided text.
    pub drafts: Vec<Draft>,
}

/// One frame of a turn.
///
/// `seq` counts from 1 without a gap; a `snapshot` replaces what a client has and sets its last `seq`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    /// Opens the turn.
    Start {
        /// The turn.
        turn: TurnId,
        /// This frame's number.
        seq: u64,
        /// What its client called the message.
        client_msg_id: ClientMsgId,
        /// The question.
        text: String,
        /// When it was asked.
        at: At,
        /// The turn that is answered again.
        retry_of: Option<TurnId>,
    },
    /// Opens an attempt; voids nothing.
    Attempt {
        /// The turn.
        turn: TurnId,
        /// This frame's number.
        seq: u64,
        /// The attempt's number, from 1.
        attempt: u32,
        /// Who is asked.
        provider: Arc<str>,
        /// With which model.
        model: Arc<str>,
        /// Who failed before.
        after: Option<After>,
    },
    /// More text.
    Token {
        /// The turn.
        turn: TurnId,
        /// This frame's number.
        seq: u64,
        /// Whose text; 0 for what no provider said.
        attempt: u32,
        /// The text to append.
        text: String,
    },
    /// Voids all text of the turn so far; what follows is the new text.
    Restart {
        /// The turn.
        turn: TurnId,
        /// This frame's number.
        seq: u64,
        /// Whose text follows; 0 for what no provider says.
        attempt: u32,
        /// Whose text is voided.
        from: Arc<str>,
        /// Whose follows; none where no provider is left.
        to: Option<Arc<str>>,
        /// Why.
        reason: Outcome,
    },
    /// Ends the turn.
    Done(Box<Done>),
    /// The turn so far, for who joins late.
    Snapshot {
        /// The turn.
        turn: TurnId,
        /// The last frame that is contained.
        seq: u64,
        /// The attempt under way, whose text may be still to come; 0 for none yet, and for what no provider says.
        attempt: u32,
        /// Who is asked by it.
        provider: Option<Arc<str>>,
        /// With which model.
        model: Option<Arc<str>>,
        /// All text that stands.
        text: String,
        /// All text that was voided.
        drafts: Vec<Draft>,
        /// What was asked.
        question: String,
    },
}

impl Frame {
    /// The turn it belongs to.
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

    /// Its number.
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
