//! The service as it is built, over real sockets: providers on one side, pages and programs on the other.

mod asked_to_wait;
mod bad_input;
mod breakers;
mod broken_store;
mod cache;
mod checks;
mod choosing;
mod connects;
mod demo;
mod doors;
mod down_a_minute;
mod drain;
mod faults_after;
mod faults_before;
mod history;
mod knowledge;
mod metrics;
mod operator;
mod outage;
mod panics;
mod resume;
mod slow_reader;
mod stop;
mod surfaces;
mod trips;
mod turns;
