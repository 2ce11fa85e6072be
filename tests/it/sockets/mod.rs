//! The service as it is built, over real sockets: providers on one side, pages and programs on the other.

mod bad_input;
mod breakers;
mod faults_after;
mod faults_before;
mod outage;
mod panics;
mod resume;
mod stop;
mod turns;
