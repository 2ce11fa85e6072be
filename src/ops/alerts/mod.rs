//! Who keeps the service running is told of changes: a provider goes down or comes back, the mode changes, a budget is spent, the store fails, a
//! figure leaves its usual range.
//!
//! `watch` looks at what everyone may see of the state, `seen` (pure) makes findings of it, `rules` (pure) decides what is told when, `alert` says
//! it, `claims` which of several instances does, and each sink has its `line` (pure), a bounded queue from which `sink` sends. No turn waits for any of it, and nothing here is asked by a
//! turn.
//!
//! Promises: of one cause one alert in `alerts.min_interval`; what was told to be bad is told to be over; nothing is told to be over that this
//! sink was not told of; what changed too often to be told is summed up once the interval is over. A sink that fails costs alerts, and the status
//! says so.

pub mod alert;
pub mod cause;
pub mod claims;
pub mod line;
pub mod post;
pub mod rules;
pub mod seen;
pub mod sign;
pub mod sink;
pub mod target;
mod together;
pub mod watch;

pub use alert::Alert;
pub use cause::{Cause, Figure, Finding};
