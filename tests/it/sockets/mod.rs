//! The service as it is built, over real sockets: providers on one side, pages and programs on the other.

mod bad_input;
mod breakers;
mod broken_store;
mod checks;
mod choosing;
mod demo;
mod doors;
mod drain;
mod faults_after;
mod faults_before;
mod history;
mod operator;
mod outage;
mod panics;
mod resume;
mod slow_reader;
mod stop;
mod surfaces;
mod turns;
