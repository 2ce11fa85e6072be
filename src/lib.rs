//! Failsoft: a chat service that keeps answering while the AI providers behind it fail.
//!
//! Actors decide, tasks stream, logs remember. In reading order:
//!
//! - [`domain`]: the vocabulary: ids, requests, frames, failures, status. Pure.
//! - [`config`], [`telemetry`], [`actor_exit`]: configuration, logs and spans, and how actors report
//!   their exit.
//! - [`provider`]: one backend: its dialect, HTTP client, circuit breaker, and the actor that owns them.
//! - [`router`]: the order of providers and the retry policy.
//! - [`turn`]: one turn from attempt to attempt, the merge of their texts, and the log that sessions
//!   follow.
//! - [`answer_cache`]: saved answers, and who may receive them.
//! - [`degradation`]: answers without a provider.
//! - [`session`]: one WebSocket.
//! - [`store`]: everything that outlives the process.
//! - [`cluster`]: what several instances share over one Redis.
//! - [`ops`]: status, incidents, alerts, drills, supervision of actors.
//! - [`simulator`]: the demo's providers.
//! - [`web`]: pages, WebSocket, HTTP APIs.
//! - [`app`], [`cli`]: assembly of the service, and the command line.

pub mod actor_exit;
pub mod answer_cache;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod degradation;
pub mod domain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ops;
pub mod provider;
pub mod router;
pub mod session;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod turn;
pub mod web;
