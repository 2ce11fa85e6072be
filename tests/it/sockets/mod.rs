//! The service as it is built, over real sockets: providers on one side, pages and programs on the other.

mod resume;
mod turns;
