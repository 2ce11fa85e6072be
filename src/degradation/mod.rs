//! What is said when no provider can answer: less than an AI's answer, labelled as such, and never nothing.
//!
//! In reading order: [`cache`] (what is decided about saved answers) and [`shelf`] (where they are); [`ladder`] (who may answer, best first),
//! [`replies`] (template answers), [`request`] (what a message asks for), [`knowledge`] (passages of the operator's documents), [`summary`] (key
//! sentences), [`words`] (what these two go by), `case` (one case for what is compared), [`rules`] (reading the replies file), [`actor`] (publishes the ladder), `watching` and
//! `selfcheck` (what it does by the clock), [`health`] (what is wrong with all that). Turns walk a published ladder on their own thread: no
//! mailbox stands between a visitor and an answer, and no reload can take the answer away.

pub mod actor;
pub mod cache;
mod case;
pub mod health;
pub mod knowledge;
pub mod ladder;
pub mod replies;
pub mod request;
pub mod rules;
mod selfcheck;
pub mod shelf;
pub mod summary;
mod watching;
pub mod words;

pub use actor::{Checks, DegradationActor, Published, Reload};
pub use health::Health;
pub use ladder::{Degraded, Ladder};
pub use replies::Replies;
pub use shelf::Shelf;
