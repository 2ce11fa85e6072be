//! The answers given when no provider can answer. There is always one, and it is labelled as such.
//!
//! In reading order: [`fallback_chain`] (the steps), [`replies`] (template replies), [`intent`]
//! (what a message asks for), [`knowledge`] (passages of the operator's documents), [`summary`] (key
//! sentences), [`text`] (content words), [`load`] (reads the replies file), [`published`] (the chain
//! and its problems), [`actor`] (reads and publishes them), `self_check`.
//!
//! Turns read the published chain on their own thread. No mailbox delays a fallback answer, and no
//! failed reload takes it away.

pub mod actor;
pub mod fallback_chain;
pub mod intent;
pub mod knowledge;
pub mod load;
pub mod published;
pub mod replies;
mod self_check;
pub mod summary;
pub mod text;

pub use crate::answer_cache::AnswerCache;
pub use actor::{DegradationActor, ReloadFallback, SelfCheckConfig};
pub use fallback_chain::{FallbackAnswer, FallbackChain};
pub use published::FallbackWatch;
pub use replies::Replies;
