//! The rules of the answer cache: which questions are equal, which answers may be shared, and how
//! long they are served. Pure.
//!
//! In reading order: [`question`] (normalization), [`key`] (the hash of what an answer depends on),
//! [`age`] (freshness), [`personal`] (detection of personal data), [`sharing`] (who may get an
//! answer), [`bounded`] (the LRU map), [`warming`] (when questions are answered ahead of time).

pub mod freshness;
pub mod key;
pub mod lru_map;
pub mod pii;
pub mod question;
pub mod sharing;
pub mod warming;

use serde::Deserialize;

/// The use of the answer cache for a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    #[default]
    Use,
    /// Do not read the cache, but save the new answer.
    Refresh,
    Off,
}
