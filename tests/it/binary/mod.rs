//! The service as its operator runs it: the binary as a process, signals, files and real sockets. Nothing of the inside is seen here.

mod blocked_thread;
mod cli_status;
mod cluster;
mod configuration;
mod crash_recovery;
mod drills;
mod everything_down;
mod fallback_self_check;
pub mod http;
mod invalid_files;
mod logs;
mod many_connections;
mod memory;
mod memory_limits;
mod packaging;
pub mod provider;
mod reload;
pub mod service;
mod shutdown;
mod shutdown_under_load;
mod slow_dns;
mod soak;
mod starts;
mod startup_disk;
mod stopped_thread;
mod stream_reader;
mod tls_providers;
pub mod ws_client;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// How long anything may take that is waited for: only a hang takes longer, however busy the machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(LIMIT, happens).await;
    happened.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// Held by tests that fill the machine or look at a clock, so that they do not disturb each other.
pub async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
