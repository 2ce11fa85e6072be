//! Failsoft: a chat service that keeps answering while the AI providers behind it fail.
//!
//! Actors decide, tasks stream, logs remember. In reading order:
//!
//! - [`chat`]: the vocabulary that everyone speaks. Pure.
//! - [`settings`], [`telemetry`], [`supervised`]: configuration, logs, and what every actor carries.
//! - [`provider`]: one backend: its wire format, transport, breaker, and the actor that owns them.
//! - [`router`]: who is asked next.
//! - [`turn`]: one turn from attempt to attempt, the seam between two, and the log that its followers read.
//! - [`degradation`]: what is said when no provider can answer.
//! - [`session`]: one WebSocket.
//! - [`store`]: what outlives the process.
//! - [`fleet`]: what several instances do together over one Redis.
//! - [`ops`]: rebuilding of actors, the service's mode.
//! - [`simulator`]: the demo's providers.
//! - [`web`]: what is served over HTTP.
//! - [`app`], [`cli`]: putting it together, and the command line.

pub mod app;
pub mod chat;
pub mod cli;
pub mod degradation;
pub mod fleet;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
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
