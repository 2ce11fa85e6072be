//! The one test crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admin;
mod binary;
mod browser;
mod cluster;
mod conventions;
mod harness;
mod openai_api;
mod service;
mod store;
