//! The answers given when no provider can answer. There is always one, and it is labelled as such.
//!
//! In reading order: [`cache`] (the caching policy), [`shelf`] (the answer cache), [`ladder`] (the
//! fallback chain), [`replies`] (template replies), [`request`] (intent detection), [`knowledge`]
//! (passages of the operator's documents), [`summary`] (key sentences), [`words`] (content words),
//! `case` (case folding), [`rules`] (loads the replies file), [`actor`] (publishes the chain),
//! `watching` and `selfcheck` (its periodic jobs), [`health`] (messages for the status).
//!
//! Turns read the published chain on their own thread. No mailbox delays a fallback answer, and no
//! failed reload takes it away.

pub mod actor;

pub mod fallback_chain;
pub mod health;
pub mod intent;
pub mod knowledge;
pub mod load;
pub mod replies;
mod self_check;

mod folder_watch;
pub mod summary;
pub mod text;

pub use crate::answer_cache::AnswerCache;
pub use actor::{DegradationActor, FallbackWatch, ReloadFallback, SelfCheckConfig};
pub use fallback_chain::{FallbackAnswer, FallbackChain};
pub use health::FallbackHealth;
pub use replies::Replies;
