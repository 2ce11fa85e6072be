//! The service as its operator runs it: the binary as a process, signals, files and real sockets. Nothing of the inside is seen here.

mod all_dead;
mod bad_files;
mod configuration;
mod crowd;
mod disk;
mod drills;
mod fleet;
mod held;
pub mod http;
mod kills;
mod logs;
mod memory;
mod names;
mod packaging;
pub mod provider;
mod reload;
mod rungs;
pub mod service;
mod soak;
mod standstill;
mod starts;
mod status;
mod stops;
mod stops_crowd;
mod streamed;
mod trusted;
pub mod visitor;
mod weight;

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
