//! Failsoft: a chat service that keeps answering while the AI providers behind it fail.
//!
//! Actors decide, tasks stream, logs remember.

pub mod chat;
pub mod degradation;
pub mod provider;
pub mod store;
