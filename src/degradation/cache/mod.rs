//! What is decided about saved answers: which question is the same question, what may be told to whom, and how old is too old. Pure.
//!
//! In reading order: [`question`] (one form for questions that are asked alike), [`key`] (what an answer depends on, as a hash), [`age`]
//! (fresh, stale or gone), [`personal`] (what must not be told to another visitor), [`sharing`] (who may be told what), [`bounded`] (the least
//! recently used goes first), [`warming`] (when questions are answered ahead of time). The shelf beside this folder does what is decided here.

pub mod age;
pub mod bounded;
pub mod key;
pub mod personal;
pub mod question;
pub mod sharing;
pub mod warming;

use serde::Deserialize;

/// How saved answers are used for a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheUse {
    /// As configured.
    #[default]
    Use,
    /// Ask anew and save the answer.
    Refresh,
    /// Neither read nor write.
    Off,
}
