//! Builds and runs the service: `App::build_with_loader(settings, loader)`, then `port()`, then
//! `run_until_stopped()`.

mod builder;
mod cluster;
mod demo;
mod listener;
mod otlp;
mod provider_registry;
mod providers;
mod reload;
mod restart_keys;
mod shutdown;
#[cfg(any(test, feature = "test-hooks"))]
mod test_hooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use anyhow::Context as _;
use tokio::sync::watch;

use crate::actor_exit::AddrWatch;
use crate::config::Settings;
use crate::degradation::{DegradationActor, SelfCheckConfig};
use crate::ops::answer_stats::AnswerStats;
use crate::session::service::ChatService;
use crate::simulator::Simulator;
use crate::turn::deps::ShutdownPhase;
use crate::web::ConnectionLimiter;

pub use reload::{ConfigLoader, SignalReloader};

pub struct App {
    port: u16,
    display_host: String,
    server: Server,
    handle: ServerHandle,
    chat_service: Arc<ChatService>,
    connections: Arc<ConnectionLimiter>,
    answer_stats: AnswerStats,
    degradation: AddrWatch<DegradationActor>,
    reloader: SignalReloader,
    phase: watch::Sender<ShutdownPhase>,
    _simulators: Arc<[Simulator]>,
}

impl App {
    /// Binds the port, opens the store and starts the actors and the server. `loader` loads the
    /// configuration again for a reload. Must run on a thread with an actix system.
    ///
    /// # Errors
    /// A message for the operator if the service cannot start: the port is taken, another process
    /// uses the store, or a provider's address is invalid.
    pub async fn build_with_loader(
        settings: Settings,
        loader: ConfigLoader,
    ) -> anyhow::Result<Self> {
        Self::build_with_self_check(settings, loader, SelfCheckConfig::DEFAULT_INTERVAL).await
    }

    /// Like [`App::build_with_loader`], with the interval of the self-check of the fallback.
    ///
    /// # Errors
    /// Like [`App::build_with_loader`].
    pub async fn build_with_self_check(
        settings: Settings,
        loader: ConfigLoader,
        self_check: Duration,
    ) -> anyhow::Result<Self> {
        builder::build(settings, loader, self_check).await
    }

    /// The actual port, even if the configuration asked for port 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn ready_line(&self) -> String {
        format!(
            "failsoft listening on http://{}:{}",
            self.display_host, self.port
        )
    }

    /// The shared state of all sessions. For tests.
    pub fn chat_service(&self) -> Arc<ChatService> {
        Arc::clone(&self.chat_service)
    }

    pub fn degradation(&self) -> AddrWatch<DegradationActor> {
        self.degradation.clone()
    }

    /// Serves until `stop` completes, then shuts down gracefully: readiness turns false, new turns
    /// are rejected, and running turns may finish within `server.drain`.
    ///
    /// # Errors
    /// The server failed or ended by itself.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut server = actix::spawn(self.server);
        tokio::select! {
            result = &mut server => {
                result.context("the server task failed")?.context("the server failed")?;
                anyhow::bail!("the server ended by itself");
            }
            () = stop => {}
        }
        tracing::info!("shutting down: rejecting new turns, waiting for running ones");
        let limit = self.chat_service.settings().server.drain;
        shutdown::graceful_shutdown(&self.chat_service, &self.connections, &self.phase, limit)
            .await;
        self.answer_stats.shutdown().await;
        otlp::shutdown_tracer(self.chat_service.turns.tracer.clone()).await;
        self.handle.stop(true).await;
        server
            .await
            .context("the server task failed")?
            .context("the server failed")
    }

    pub fn reloader(&self) -> SignalReloader {
        self.reloader.clone()
    }
}

/// A random number from the operating system.
///
/// Without a system source the numbers are only distinct. They name turns and spread load, so they
/// need not be unpredictable.
pub fn random_u64() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    getrandom::u64().unwrap_or_else(|_| COUNT.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
}

/// A random number from 0 (included) to 1 (excluded).
pub fn random_unit() -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "an f64 represents 53 bits exactly"
    )]
    let bits = (random_u64() >> 11) as f64;
    bits / (1_u64 << 53) as f64
}
