//! Alerts for operators: a provider goes down or comes back, the mode changes, a budget is spent,
//! the store fails, or a metric leaves its usual range.
//!
//! `watcher` polls the public state, `conditions` (pure) derives conditions, `rules` (pure) decides
//! what to send and when, `payload` renders it, `claims` picks the instance that sends it, and each
//! sink has a bounded queue (`queue`, pure) that `sink` delivers from. Turns neither wait for
//! alerts nor depend on them.
//!
//! Guarantees: at most one alert per subject and severity within `alerts.min_interval`; every alert
//! is followed by its recovery; a sink gets no recovery of an alert that it did not get; changes
//! too frequent to be sent are summed up once the interval is over. A failing sink loses alerts,
//! and the status page says so.

pub mod claims;
pub mod conditions;
mod dedup;
pub mod payload;
pub mod queue;
pub mod rules;
pub mod sink;
pub mod ssrf_guard;
pub mod watcher;
pub mod webhook;

pub use payload::Alert;
pub use rules::{AlertCondition, AlertSubject, AnomalyMetric};
