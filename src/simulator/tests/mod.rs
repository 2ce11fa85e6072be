//! Tests of simulators over real sockets.

mod client;
mod faults;
mod healthy;
