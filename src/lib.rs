//! Failsoft.
pub mod simulator;
