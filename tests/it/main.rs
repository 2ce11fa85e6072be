//! The one test crate.

mod store;
