//! A turn as it is stored and as the history shows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ask::Usage;
use super::frame::{Done, Draft, Tried};
use super::ids::{ClientMsgId, TurnId};
use super::time::At;

/// Where an answer came from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A provider, live.
    Ai,
    /// A fresh saved answer.
    Cache,
    /// An old saved answer, given because no provider could answer.
    StaleCache,
    /// A reply of the template file.
    Template,
    /// A passage of the knowledge folder, or a summary by extraction.
    Extractive,
    /// The fixed text.
    Fallback,
}

impl Source {
    /// Every source, best first.
    pub const ALL: [Source; 6] = [
        Source::Ai,
        Source::Cache,
        Source::StaleCache,
        Source::Template,
        Source::Extractive,
        Source::Fallback,
    ];

    /// Its name, as the protocol says it.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Ai => "ai",
            Source::Cache => "cache",
            Source::StaleCache => "stale_cache",
            Source::Template => "template",
            Source::Extractive => "extractive",
            Source::Fallback => "fallback",
        }
    }

    /// Whether this is less than an answer of today's AI.
    pub const fn degraded(self) -> bool {
        !matches!(self, Source::Ai | Source::Cache)
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It is whole.
    Stop,
    /// The token limit was reached.
    Length,
    /// The provider refused.
    ContentFilter,
    /// The user stopped it.
    Stopped,
    /// The service went down under it, or nobody followed.
    Interrupted,
}

impl Finish {
    /// Its name, as the protocol says it.
    pub const fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ContentFilter => "content_filter",
            Finish::Stopped => "stopped",
            Finish::Interrupted => "interrupted",
        }
    }
}

/// Where a turn stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Ended with a `done`.
    Done,
    /// Being answered.
    Running,
    /// Cut off; it can be retried.
    Interrupted,
}

/// A visitor's thumb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feedback {
    /// Helpful.
    Up,
    /// Not helpful.
    Down,
}

/// The late AI answer to a turn that got a degraded one or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Followup {
    /// The answer, whole.
    pub text: String,
    /// Who gave it.
    pub provider: Arc<str>,
    /// With which model.
    pub model: Arc<str>,
    /// When.
    pub at: At,
}

/// What may still change of a turn that has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Amendment {
    /// The visitor's thumb; the last one counts.
    Feedback(Feedback),
    /// The late answer; the first one counts.
    Followup(Followup),
}

/// One turn, as stored and as a `history` frame shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// Its id; the order of ids is the order of turns.
    pub turn: TurnId,
    /// What its client called the message.
    pub client_msg_id: ClientMsgId,
    /// When it was asked.
    pub at: At,
    /// What was asked.
    pub question: String,
    /// The answer so far; whole when `state` is `done` and `finish` is `stop`.
    pub text: String,
    /// Where it stands.
    pub state: TurnState,
    /// Where the answer came from; none while it runs.
    pub source: Option<Source>,
    /// Whether the answer is less than an AI's of today.
    pub degraded: bool,
    /// Who answered.
    pub provider: Option<Arc<str>>,
    /// With which model.
    pub model: Option<Arc<str>>,
    /// Why it ended; none while it runs.
    pub finish: Option<Finish>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Text that was shown and voided.
    pub drafts: Vec<Draft>,
    /// The age of a saved answer, in seconds.
    pub age_s: Option<u64>,
    /// The visitor's thumb.
    pub feedback: Option<Feedback>,
    /// The late answer.
    pub followup: Option<Followup>,
    /// The turn that this one answers again.
    pub retry_of: Option<TurnId>,
    /// Each attempt, as `done` reported it.
    #[serde(default)]
    pub tried: Vec<Tried>,
    /// Tokens, over all attempts.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What they cost, where prices are known.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// From the question to the first shown text.
    #[serde(default)]
    pub first_token_ms: Option<u64>,
    /// From the question to the end.
    #[serde(default)]
    pub total_ms: u64,
}

impl TurnRecord {
    /// A turn that was just asked.
    pub fn asked(
        turn: TurnId,
        client_msg_id: ClientMsgId,
        at: At,
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

    /// The `done` frame of this turn, numbered `seq`; a turn without an end counts as interrupted.
    pub fn done(&self, seq: u64) -> Done {
        Done {
            turn: self.turn,
            seq,
            source: self.source.unwrap_or(Source::Ai),
            degraded: self.degraded,
            provider: self.provider.clone(),
            model: self.model.clone(),
            attempts: self.attempts,
            tried: self.tried.clone(),
            finish: self.finish.unwrap_or(Finish::Interrupted),
            text: self.text.clone(),
            age_s: self.age_s,
            usage: self.usage,
            cost_usd: self.cost_usd,
            first_token_ms: self.first_token_ms,
            total_ms: self.total_ms,
            drafts: self.drafts.clone(),
        }
    }

    /// Makes a change to an ended turn.
    pub fn amend(&mut self, change: Amendment) {
        match change {
            Amendment::Feedback(value) => self.feedback = Some(value),
            Amendment::Followup(late) => drop(self.followup.get_or_insert(late)),
        }
    }

    /// What is left of a turn whose service went down under it: interrupted, with the text as last saved.
    pub fn interrupted(mut self) -> Self {
        self.state = TurnState::Interrupted;
        self.finish = Some(Finish::Interrupted);
        self
    }
}
