//! One turn: the task that drives it from attempt to attempt, and the log that its followers read.

mod active_attempt;
pub mod answer_counts;
pub mod attempt;
pub mod cache_warmer;
mod cached_answer;
pub mod conversations;
pub mod deps;
pub mod drill_impact;
pub mod followups;
mod hedge;
pub mod log;
pub mod merge;
pub mod metrics;
pub mod observer;
pub mod persistence;
pub mod poll_on_wake;
pub mod prompt;
pub mod quality;
pub mod replication;
pub mod retention;
mod runner;
mod running_turn;
mod selection;
pub mod service;
pub mod single_flight;
pub mod summary;

#[cfg(test)]
pub mod protocol_reader;
#[cfg(test)]
pub mod test_service;
#[cfg(test)]
mod tests;
