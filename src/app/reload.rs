//! Reloads of the configuration, one at a time. A reload applies every setting that can change at
//! run time, or nothing.
//!
//! The fallible steps come first and have no effect: parsing the file, building the HTTP clients,
//! reading the reply rules. After them nothing can fail: providers are started and reconfigured,
//! the new configuration is published, and removed providers are retired.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::provider_registry::ProviderRegistry;
use super::providers::RestoredState;
use super::restart_keys::{StartupFacts, keep_restart_only_keys};
use super::{cluster, demo};
use crate::actor_exit::AddrWatch;
use crate::config::{ConfigErrors, DegradationSettings, LoadedConfig, Settings};
use crate::degradation::{DegradationActor, ReloadFallback};
use crate::domain::Timestamp;
use crate::ops::audit::{AuditEntry, AuditLog, AuditOutcome, PeerKind};
use crate::ops::reload::{
    ConfigProblem, ProviderChanges, ReloadError, ReloadHandle, ReloadRequest, ReloadResult,
};
use crate::router::runtime_config::RuntimeConfig;
use crate::session::service::ChatService;
use crate::simulator::Simulator;
use crate::store::{RetentionTerms, Store};
use crate::turn::followups::RetryPacing;
use crate::web::ConnectionLimiter;

/// The time limit for reading the configuration with the files and secrets that it names.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The time to wait for the reply rules, slightly longer than their own time limit.
const RULES_TIMEOUT: Duration = Duration::from_secs(6);

pub type ConfigLoader = Arc<dyn Fn() -> Result<LoadedConfig, ConfigErrors> + Send + Sync>;

pub(super) struct ReloadWorker {
    pub(super) loader: ConfigLoader,
    pub(super) registry: ProviderRegistry,
    pub(super) config: watch::Sender<Arc<RuntimeConfig>>,
    pub(super) chat_service: Arc<ChatService>,
    pub(super) connections: Arc<ConnectionLimiter>,
    pub(super) degradation: AddrWatch<DegradationActor>,
    pub(super) simulators: Arc<[Simulator]>,
    pub(super) store: Arc<dyn Store>,
    pub(super) terms: watch::Sender<RetentionTerms>,
}

impl ReloadWorker {
    /// Carries out reload requests until all senders are gone. New provider actors run on the
    /// calling thread.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<ReloadRequest>) {
        while let Some(reply) = asked.recv().await {
            let result = self.reload().await;
            log_result(&result);
            // The requester may have given up.
            let _ = reply.send(result);
        }
    }

    async fn reload(&mut self) -> Result<ReloadResult, ReloadError> {
        let load = Arc::clone(&self.loader);
        let loading = tokio::task::spawn_blocking(move || load());
        let Ok(Ok(loaded)) = tokio::time::timeout(READ_TIMEOUT, loading).await else {
            let what = "the configuration could not be read in time; try again";
            return Err(ReloadError::Failed(what));
        };
        let LoadedConfig {
            mut settings,
            warnings,
            ..
        } = loaded?;
        let before = Arc::clone(&self.config.borrow().settings);
        let started = StartupFacts {
            is_demo: !self.simulators.is_empty(),
            max_connections: self.connections.hard_limit(),
        };
        let needs_restart = keep_restart_only_keys(&mut settings, &before, started);
        let providers = demo::effective_providers(&settings, &self.simulators);
        let plan = self.registry.plan(&providers).map_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "cannot create the HTTP client of a provider"
            );
            ReloadError::Failed("a provider's HTTP client cannot be created; see the log")
        })?;
        let restored = RestoredState::load(&*self.store).await;
        self.reload_reply_rules(settings.degradation.clone())
            .await?;
        // From here on nothing can fail.
        let (changes, removed) = self.registry.apply(plan, &restored).await;
        let settings = Arc::new(settings);
        let providers = self.registry.providers();
        let turns = &self.chat_service.turns;
        turns
            .observer
            .metrics
            .set_providers(providers.iter().map(|provider| &provider.name));
        let next = self
            .config
            .borrow()
            .updated(Arc::clone(&settings), providers);
        self.config.send_replace(Arc::new(next));
        // Only now does no new turn see the removed providers.
        self.registry.remove(removed).await;
        let limits = &settings.limits;
        self.chat_service.rate_limiter.set_per_minute(
            nonzero(limits.messages_per_minute),
            nonzero(limits.messages_per_minute_per_ip),
        );
        self.connections
            .set_limits(limits.connections, limits.connections_per_ip);
        self.terms.send_replace(cluster::retention_terms(&settings));
        let followups = &turns.followup_queue;
        followups.configure(settings.degradation.outbox, followup_pacing(&settings));
        // Changing the cache policy may wait for the store, so it runs in the background.
        let turns = Arc::clone(turns);
        actix::spawn(async move {
            let prompt = Arc::clone(&settings.chat.system_prompt);
            turns
                .answer_cache
                .set_policy(settings.cache.clone(), prompt)
                .await
        });
        Ok(ReloadResult {
            providers: changes,
            needs_restart,
            warnings: warnings.iter().map(ConfigProblem::from).collect(),
        })
    }

    async fn reload_reply_rules(&self, settings: DegradationSettings) -> Result<(), ReloadError> {
        let timed_out = ReloadError::Failed("the reply rules were not read in time; try again");
        let Some(actor) = self.degradation.borrow().clone() else {
            return Err(timed_out);
        };
        match tokio::time::timeout(RULES_TIMEOUT, actor.send(ReloadFallback(settings))).await {
            Ok(Ok(read)) => Ok(read?),
            Ok(Err(_)) | Err(_) => Err(timed_out),
        }
    }
}

fn log_result(result: &Result<ReloadResult, ReloadError>) {
    match result {
        Ok(reload) => {
            let ProviderChanges {
                added,
                changed,
                removed,
            } = &reload.providers;
            let needs_restart = &reload.needs_restart;
            tracing::info!(
                ?added,
                ?changed,
                ?removed,
                ?needs_restart,
                "configuration reloaded"
            );
            for problem in &reload.warnings {
                tracing::warn!(line = problem.line, key = problem.key, "{}", problem.what);
            }
        }
        Err(ReloadError::InvalidConfig(problems)) => {
            for problem in problems {
                tracing::warn!(
                    file = problem.file,
                    line = problem.line,
                    key = problem.key,
                    "not reloaded: {}",
                    problem.what
                );
            }
        }
        Err(ReloadError::Failed(why)) => tracing::warn!(why, "not reloaded"),
    }
}

pub(super) fn nonzero(messages: u32) -> NonZeroU32 {
    NonZeroU32::new(messages).unwrap_or(NonZeroU32::MIN)
}

/// Follow-ups are spaced like retries, and after a failure like the probes of a breaker.
pub(super) fn followup_pacing(settings: &Settings) -> RetryPacing {
    let retry = &settings.retry.call;
    let breaker = &settings.breaker;
    RetryPacing {
        min_interval: retry.base,
        max_interval: retry.max,
        base_backoff: breaker.open_for,
        max_backoff: breaker.open_max,
    }
}

#[derive(Clone)]
pub struct SignalReloader {
    pub(super) reloads: ReloadHandle,
    pub(super) audit: Arc<AuditLog>,
}

impl SignalReloader {
    /// Loads the configuration again. Errors are logged and change nothing.
    pub async fn reload(&self) {
        let outcome = match self.reloads.reload().await {
            Ok(_) => AuditOutcome::Done,
            Err(ReloadError::InvalidConfig(_)) => AuditOutcome::Invalid,
            Err(ReloadError::Failed(_)) => AuditOutcome::Failed,
        };
        let at = Timestamp::from_system_time(std::time::SystemTime::now());
        self.audit.record(AuditEntry {
            at,
            action: "reload",
            subject: None,
            outcome,
            peer: PeerKind::Signal,
        });
    }
}
