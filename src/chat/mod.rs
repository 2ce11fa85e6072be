//! The domain vocabulary: ids, messages, the frames of a turn, failures and status values.
//!
//! Everything here is pure: no actix, tokio or reqwest, no clock and no random source. Callers pass
//! time and random numbers as arguments.

pub mod ask;
pub mod drill;
pub mod fault;
pub mod frame;
pub mod ids;
pub mod incident;
pub mod load;
pub mod status;
pub mod time;
pub mod turn;

pub use ask::{ChatMessage, ChatRequest, MessageRole, TokenUsage};
pub use drill::DrillView;
pub use fault::{AttemptOutcome, BreakerImpact, Failure, FaultKind, Recovery, is_error_code};
pub use frame::{AttemptSummary, Done, Draft, Frame, PreviousFailure};
pub use ids::{ClientMsgId, ConversationId, TurnId};
pub use incident::{Incident, ServiceLifetime};
pub use load::TokenEstimate;
pub use status::{ProviderState, ProviderView, ServiceMode, StatusView};
pub use time::Timestamp;
pub use turn::{AnswerSource, Feedback, FinishReason, Followup, TurnRecord, TurnState, TurnUpdate};
