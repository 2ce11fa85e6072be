//! What an operator does to a running service: reloads, orders, and what of it is taken down.

mod gate;
mod reload;
mod service;
