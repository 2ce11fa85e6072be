//! Failsoft: a chat service that keeps answering while the AI providers behind it fail.
//!
//! Actors decide, tasks stream, logs remember.

pub mod app;
pub mod chat;
pub mod cli;
pub mod degradation;
pub mod ops;
pub mod provider;
pub mod router;
pub mod session;
pub mod settings;
pub mod simulator;
pub mod store;
pub mod supervised;
pub mod telemetry;
pub mod turn;
pub mod web;
