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

pub use ask::{Ask, Message, Role, Usage};
pub use drill::DrillView;
pub use fault::{Class, Failure, Fault, Outcome, Weight, is_code};
pub use frame::{After, Done, Draft, Frame, Tried};
pub use ids::{ClientMsgId, ConversationId, TurnId};
pub use incident::{Incident, Life};
pub use load::Load;
pub use status::{Mode, ProviderState, ProviderView, StatusView};
pub use time::At;
pub use turn::{Amendment, Feedback, Finish, Followup, Source, TurnRecord, TurnState};
