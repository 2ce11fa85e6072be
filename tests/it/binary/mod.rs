//! The service from the operator's side: the binary as a process, with signals, files and sockets.

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
mod soak_traffic;
mod starts;
mod startup_disk;
mod stopped_thread;
mod stream_reader;
mod suspended_process;
mod tls_providers;
pub mod ws_client;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// The limit of every wait. Only a hang takes longer, however busy the machine is.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Waits for something that must happen; panics after [`WAIT_LIMIT`].
pub async fn wait_for<T>(what: &str, event: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(WAIT_LIMIT, event).await;
    result.unwrap_or_else(|_| panic!("not within {WAIT_LIMIT:?}: {what}"))
}

/// A lock for tests that load the machine or measure time, so that they do not disturb each other.
pub async fn exclusive() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::const_new(());
    LOCK.lock().await
}
