//! What is said when no provider can answer: less than an AI's answer, labelled as such, and never nothing.
//!
//! In reading order: [`ladder`] (who may answer, best first), [`replies`] (template answers),
//! [`rules`] (reading that file), [`actor`] (publishes the ladder); [`cache`] (what is decided about saved answers) and [`shelf`] (where they are). Turns walk a published ladder on their own thread:
//! no mailbox stands between a visitor and an answer, and no reload can take the answer away.

pub mod actor;
pub mod cache;
pub mod ladder;
pub mod replies;
pub mod rules;
pub mod shelf;

pub use actor::{DegradationActor, Published, Reload};
pub use ladder::{Degraded, Ladder};
pub use replies::Replies;
pub use shelf::Shelf;
