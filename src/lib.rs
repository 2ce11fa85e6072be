//! Failsoft: a chat service that keeps answering while the AI providers behind it fail.
//!
//! Actors decide, tasks stream, logs remember. In reading order:
//!
//! - [`chat`]: the domain vocabulary. Pure.
//! - [`settings`], [`telemetry`], [`supervised`]: configuration, logs and traces, actor supervision.
//! - [`provider`]: one backend: its wire format, client and breaker, and the actor that owns them.
//! - [`router`]: the selection of providers.
//! - [`turn`]: one turn with its attempts, and the log that its followers read.
//! - [`degradation`]: answers without a provider, and the answer cache.
//! - [`session`]: one WebSocket.
//! - [`store`]: persistence.
//! - [`fleet`]: coordination of several instances over Redis.
//! - [`ops`]: status, alerts, drills and supervision.
//! - [`simulator`]: the simulated providers of demo mode.
//! - [`web`]: the HTTP server.
//! - [`app`], [`cli`]: the assembly of the service, and the command line.

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
