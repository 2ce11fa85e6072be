//! One turn: the task that drives it from attempt to attempt, and the log that its followers read.

pub mod anchor;
pub mod attempt;
pub mod call;
pub mod counts;
pub mod desk;
pub mod doze;
pub mod flights;
pub mod forget;
pub mod hedge;
pub mod keep;
pub mod log;
pub mod outbox;
pub mod past;
pub mod progress;
pub mod prompt;
pub mod quality;
pub mod recall;
pub mod retention;
pub mod rooms;
pub mod run;
pub mod seam;
pub mod sharing;
pub mod tally;
pub mod warm;
pub mod witness;

#[cfg(test)]
pub mod reader;
#[cfg(test)]
pub mod stage;
#[cfg(test)]
mod tests;
