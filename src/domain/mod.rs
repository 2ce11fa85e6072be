//! The domain vocabulary: ids, messages, the frames of a turn, failures and status values.
//!
//! Everything here is pure: no actix, tokio or reqwest, no clock and no random source. Callers pass
//! time and random numbers as arguments.

pub mod failure;
pub mod frame;
pub mod ids;
pub mod request;
pub mod status;
pub mod time;
pub mod tokens;
pub mod turn;

pub use failure::{AttemptOutcome, BreakerImpact, Failure, FaultKind, Recovery, is_error_code};
pub use frame::{AnswerSource, AttemptSummary, Done, Draft, FinishReason, Frame, PreviousFailure};
pub use ids::{ClientMsgId, ConversationId, TurnId};
pub use request::{ChatMessage, ChatRequest, MessageRole, TokenUsage};
pub use status::{
    DrillView, Incident, ProviderState, ProviderView, ServiceLifetime, ServiceMode, StatusView,
};
pub use time::Timestamp;
pub use tokens::TokenEstimate;
pub use turn::{Feedback, Followup, TurnRecord, TurnState, TurnUpdate};
