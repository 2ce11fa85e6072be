//! Failsoft: a chat service that keeps answering while the AI providers behind it fail.
//!
//! Actors decide, tasks stream, logs remember.

pub mod chat;
pub mod provider;
pub mod router;
pub mod store;
