//! Selection of the next provider, the delay before a retry, and the budget for extra calls.

pub mod actor;
pub mod ordering;
pub mod retry_budget;
pub mod retry_policy;
pub mod runtime_config;
