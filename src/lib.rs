//! Failsoft.

pub mod settings;
