//! Alerts for operators: a provider goes down or comes back, the mode changes, a budget is spent,
//! the store fails, or a metric leaves its usual range.
//!
//! `watch` polls the public state, `seen` (pure) turns it into conditions, `rules` (pure) decides
//! what to send and when, `alert` renders it, `claims` picks the instance that sends it, and each
//! sink has a bounded queue (`line`, pure) that `sink` delivers from. Turns neither wait for alerts
//! nor depend on them.
//!
//! Guarantees: at most one alert per subject and severity within `alerts.min_interval`; every alert
//! is followed by its recovery; a sink gets no recovery of an alert that it did not get; changes
//! too frequent to be sent are summed up once the interval is over. A failing sink loses alerts,
//! and the status page says so.

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
pub use cause::{AlertCondition, AlertSubject, AnomalyMetric};
