//! One WebSocket session: its wire types, its event loop, and the actor that owns the socket.

pub mod actor;
mod commands;
mod events;
pub mod frame_guard;
mod handshake;
pub mod messages;
mod outgoing;
pub mod protocol;
pub mod rate_limit;
pub mod run;
pub mod service;
pub mod visitor_token;

#[cfg(test)]
mod tests;
