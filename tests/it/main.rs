//! The one test crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod browser;
mod door;
mod harness;
mod instances;
mod operator;
mod process;
mod sockets;
mod store;
mod tidy;
