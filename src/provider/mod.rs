//! One provider: its wire format, HTTP client, breaker and health, and the actor that owns them.

pub mod actor;
pub mod backoff;
pub mod breaker;
pub mod client;
pub mod clock;
pub mod concurrency_limit;
pub mod cost;
pub mod dialect;
pub mod dns;
pub mod event;
pub mod fault_injection;
pub mod handle;
pub mod health;
pub mod http;
pub mod latency;
pub mod sliding_window;
pub mod sse_guard;
pub mod sse_transport;
pub mod stall_clock;
pub mod status;
pub mod stream_event;
pub mod transport;
pub mod worker_clients;

#[cfg(test)]
pub mod paused_system;
#[cfg(test)]
pub mod scripted_client;
#[cfg(test)]
pub mod test_bench;
