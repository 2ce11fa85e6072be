//! One WebSocket: its wire types, what it does with them, and the actor that is its thin shell.

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
