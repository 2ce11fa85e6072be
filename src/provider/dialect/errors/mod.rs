//! Error answers of providers: what they say, what that means, and how long to wait.

pub(crate) mod body;
pub(crate) mod classify;
pub(crate) mod redact;
pub(crate) mod retry_after;
