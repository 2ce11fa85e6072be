//! Failsoft.

pub mod cli;
pub mod settings;
