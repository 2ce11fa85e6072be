//! One WebSocket session: its wire types, its event loop, and the actor that owns the socket.

pub mod actor;
pub mod ask;
pub mod drive;
mod ears;
pub mod frames;
pub mod hello;
pub mod identity;
pub mod intake;
pub mod limits;
pub mod lobby;
mod obey;

#[cfg(test)]
mod tests;
