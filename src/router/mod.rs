//! Selection of the next provider, the delay before a retry, and the budget for extra calls.

pub mod actor;
pub mod backoff;
pub mod budget;
pub mod departed;
pub mod plan;
pub mod rank;
pub mod table;
