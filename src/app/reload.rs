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

use super::provider_registry::{ProviderRegistry, ReconcileChanges};
use super::{cluster, demo};
use crate::actor_exit::AddrWatch;
use crate::config::{
    ConfigErrors, DegradationSettings, LimitSettings, LoadedConfig, ServerSettings, Settings,
    StoreSettings, TelemetrySettings,
};
use crate::degradation::{DegradationActor, ReloadFallback as ReadRules};
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

/// Facts about the start that a reload cannot change.
#[derive(Clone, Copy, Debug)]
struct StartupFacts {
    is_demo: bool,
    max_connections: usize,
}

impl ReloadWorker {
    /// Carries out reload requests until all senders are gone. New provider actors run on the
    /// calling thread.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<ReloadRequest>) {
        while let Some(reply) = asked.recv().await {
            let result = self.reload().await;
            match &result {
                Ok(ReloadResult {
                    providers:
                        ProviderChanges {
                            added,
                            changed,
                            removed,
                        },
                    needs_restart,
                    warnings,
                }) => {
                    tracing::info!(
                        ?added,
                        ?changed,
                        ?removed,
                        ?needs_restart,
                        "configuration reloaded"
                    );
                    for ConfigProblem {
                        line, key, what, ..
                    } in warnings
                    {
                        tracing::warn!(line, key, "{what}");
                    }
                }
                Err(ReloadError::InvalidConfig(problems)) => {
                    for ConfigProblem {
                        file,
                        line,
                        key,
                        what,
                    } in problems
                    {
                        tracing::warn!(file, line, key, "not reloaded: {what}");
                    }
                }
                Err(ReloadError::Failed(why)) => tracing::warn!(why, "not reloaded"),
            }
            // The requester may have given up.
            let _ = reply.send(result);
        }
    }

    async fn reload(&mut self) -> Result<ReloadResult, ReloadError> {
        let load = Arc::clone(&self.loader);
        let loading = tokio::task::spawn_blocking(move || load());
        let LoadedConfig {
            mut settings,
            warnings,
            ..
        } = match tokio::time::timeout(READ_TIMEOUT, loading).await {
            Ok(Ok(loaded)) => loaded?,
            Ok(Err(_)) | Err(_) => {
                return Err(ReloadError::Failed(
                    "the configuration could not be read in time; try again",
                ));
            }
        };
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
        let remembered = super::load_state(&*self.store).await;
        self.reload_reply_rules(settings.degradation.clone())
            .await?;
        // From here on nothing can fail.
        let (changes, leaving) = self.registry.apply(plan, &remembered).await;
        let settings = Arc::new(settings);
        let backends = self.registry.providers();
        let turn_service = &self.chat_service.turns;
        turn_service
            .observer
            .metrics
            .set_providers(backends.iter().map(|backend| &backend.name));
        let next = self
            .config
            .borrow()
            .updated(Arc::clone(&settings), backends);
        self.config.send_replace(Arc::new(next));
        // Only now does no new turn see the removed providers.
        self.registry.remove(leaving).await;
        self.chat_service.rate_limiter.set_per_minute(
            nonzero(settings.limits.messages_per_minute),
            nonzero(settings.limits.messages_per_minute_per_ip),
        );
        self.connections.set_limits(
            settings.limits.connections,
            settings.limits.connections_per_ip,
        );
        self.terms.send_replace(cluster::retention_terms(&settings));
        turn_service
            .followup_queue
            .configure(settings.degradation.outbox, followup_pacing(&settings));
        let turn_service = Arc::clone(turn_service);
        let prompt = Arc::clone(&settings.chat.system_prompt);
        // Changing the cache policy may wait for the store, so it runs in the background.
        actix::spawn(async move {
            turn_service
                .answer_cache
                .set_policy(settings.cache.clone(), prompt)
                .await
        });
        let ReconcileChanges {
            added,
            changed,
            removed,
        } = changes;
        Ok(ReloadResult {
            providers: ProviderChanges {
                added,
                changed,
                removed,
            },
            needs_restart,
            warnings: warnings.iter().map(ConfigProblem::from).collect(),
        })
    }

    async fn reload_reply_rules(&self, settings: DegradationSettings) -> Result<(), ReloadError> {
        let timed_out = ReloadError::Failed("the reply rules were not read in time; try again");
        let Some(actor) = self.degradation.borrow().clone() else {
            return Err(timed_out);
        };
        match tokio::time::timeout(RULES_TIMEOUT, actor.send(ReadRules(settings))).await {
            Ok(Ok(read)) => Ok(read?),
            Ok(Err(_)) | Err(_) => Err(timed_out),
        }
    }
}

/// Reverts the keys that need a restart and returns their names.
///
/// Each section with such keys is destructured completely, so that a new key must be classified
/// here. The other keys are read from the published configuration or applied by the reload.
fn keep_restart_only_keys(
    settings: &mut Settings,
    before: &Settings,
    started: StartupFacts,
) -> Vec<&'static str> {
    let mut held = Vec::new();
    let ServerSettings {
        listen,
        workers,
        data_dir,
        public_url: _,
        allowed_origins: _,
        trusted_proxies: _,
        admin_token: _,
        api_keys: _,
        drain: _,
    } = &mut settings.server;
    keep_if_changed("server.listen", listen, &before.server.listen, &mut held);
    keep_if_changed("server.workers", workers, &before.server.workers, &mut held);
    keep_if_changed(
        "server.data_dir",
        data_dir,
        &before.server.data_dir,
        &mut held,
    );
    let StoreSettings { backend, redis_url } = &mut settings.store;
    keep_if_changed("store.backend", backend, &before.store.backend, &mut held);
    if redis_url.expose() != before.store.redis_url.expose() {
        redis_url.clone_from(&before.store.redis_url);
        held.push("store.redis_url");
    }
    let TelemetrySettings { otlp_endpoint } = &mut settings.telemetry;
    keep_if_changed(
        "telemetry.otlp_endpoint",
        otlp_endpoint,
        &before.telemetry.otlp_endpoint,
        &mut held,
    );
    let LimitSettings {
        connections,
        connections_per_ip: _,
        turns: _,
        messages_per_minute: _,
        messages_per_minute_per_ip: _,
        frame_bytes: _,
        idle: _,
    } = &mut settings.limits;
    // A smaller limit can be applied at run time, a larger one only up to the limit at the start.
    if *connections > started.max_connections {
        *connections = started.max_connections;
        held.push("limits.connections");
    }
    // Simulated providers exist only if the service was started in demo mode. Otherwise, a
    // configuration without providers keeps the current ones.
    if settings.demo && !started.is_demo {
        settings.demo = false;
        settings.providers = before.providers.clone();
        settings.chat.visitor_options = before.chat.visitor_options;
        settings.timeouts.call.stall = before.timeouts.call.stall;
        held.push("providers");
    }
    held
}

fn keep_if_changed<T: PartialEq + Clone>(
    name: &'static str,
    new: &mut T,
    before: &T,
    held: &mut Vec<&'static str>,
) {
    if new != before {
        new.clone_from(before);
        held.push(name);
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

pub struct SignalReloader {
    pub(super) reloads: ReloadHandle,
    pub(super) audit: Arc<AuditLog>,
}

impl SignalReloader {
    /// Loads the configuration again. Errors are logged and change nothing.
    pub async fn reload(&self) {
        let result = self.reloads.reload().await;
        let outcome = match result {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dialect, Secret, StoreBackend};

    const STARTED: StartupFacts = StartupFacts {
        is_demo: false,
        max_connections: 20_000,
    };

    #[test]
    fn keys_that_need_a_restart_are_reverted_and_named() {
        let before = Settings::default();
        let mut settings = before.clone();
        assert!(keep_restart_only_keys(&mut settings, &before, STARTED).is_empty());
        settings.server.listen = "127.0.0.1:1".into();
        settings.server.workers = 3;
        settings.server.data_dir = "elsewhere".into();
        settings.store.backend = StoreBackend::Redis;
        settings.store.redis_url = Secret::new("redis://elsewhere");
        settings.telemetry.otlp_endpoint = Some("http://elsewhere:4318".into());
        settings.limits.connections = 20_001;
        settings.limits.turns = 7;
        settings.chat.title = "New".into();
        settings.server.admin_token = Some(Secret::new("new"));
        let held = keep_restart_only_keys(&mut settings, &before, STARTED);
        let expected = [
            "server.listen",
            "server.workers",
            "server.data_dir",
            "store.backend",
            "store.redis_url",
            "telemetry.otlp_endpoint",
            "limits.connections",
        ];
        assert_eq!(held, expected);
        assert_eq!(
            (&settings.server.listen, settings.limits.turns),
            (&before.server.listen, 7)
        );
        assert_eq!(settings.limits.connections, 20_000);
        assert_eq!(
            (
                settings.chat.title.as_str(),
                settings.server.admin_token.is_some()
            ),
            ("New", true)
        );
    }

    #[test]
    fn connection_limit_changes_up_to_the_limit_at_the_start() {
        let mut before = Settings::default();
        for (old, new, is_held) in [(20_000, 7, false), (7, 20_000, false), (7, 20_001, true)] {
            before.limits.connections = old;
            let mut settings = before.clone();
            settings.limits.connections = new;
            let held = keep_restart_only_keys(&mut settings, &before, STARTED);
            assert_eq!(
                (!held.is_empty(), settings.limits.connections),
                (is_held, new.min(20_000))
            );
        }
    }

    #[test]
    fn demo_mode_needs_simulators_from_the_start() {
        let mut before = Settings::default();
        before
            .providers
            .push(before.new_provider("a", Dialect::Ollama));
        let mut settings = Settings::demo();
        assert_eq!(
            keep_restart_only_keys(&mut settings, &before, STARTED),
            ["providers"]
        );
        assert_eq!(
            (
                settings.demo,
                settings.providers.len(),
                settings.chat.visitor_options
            ),
            (false, 1, false)
        );
        let mut settings = Settings::demo();
        assert!(
            keep_restart_only_keys(
                &mut settings,
                &before,
                StartupFacts {
                    is_demo: true,
                    ..STARTED
                }
            )
            .is_empty()
                && settings.demo
        );
    }
}
