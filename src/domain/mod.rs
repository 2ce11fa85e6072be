//! The domain vocabulary: ids, messages, the frames of a turn, failures and status values.
//!
//! Everything here is pure: no actix, tokio or reqwest, no clock and no random source. Callers pass
//! time and random numbers as arguments.

pub mod drill;
pub mod failure;
pub mod frame;
pub mod ids;
pub mod incident;
pub mod request;
pub mod status;
pub mod time;
pub mod tokens;
pub mod turn;

pub use drill::DrillView;
pub use failure::{AttemptOutcome, BreakerImpact, Failure, FaultKind, Recovery, is_error_code};
pub use frame::{AttemptSummary, Done, Draft, Frame, PreviousFailure};
pub use ids::{ClientMsgId, ConversationId, TurnId};
pub use incident::{Incident, ServiceLifetime};
pub use request::{ChatMessage, ChatRequest, MessageRole, TokenUsage};
pub use status::{ProviderState, ProviderView, ServiceMode, StatusView};
pub use time::Timestamp;
pub use tokens::TokenEstimate;
pub use turn::{AnswerSource, Feedback, FinishReason, Followup, TurnRecord, TurnState, TurnUpdate};
