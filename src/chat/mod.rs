//! The vocabulary that every other folder speaks: ids, messages, the frames of a turn, the fault table, the status values.
//!
//! Pure: nothing in here knows actix, tokio, reqwest, a clock or a random source. Time and chance are arguments.

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
