//! What an operator does to a running service: reloads, orders, and what of it is taken down.

mod cache;
mod conversations;
mod gate;
mod keys;
mod reload;
mod service;
