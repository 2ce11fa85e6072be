//! Builds and runs the service: `App::build(settings)`, then `port()`, then `run_until_stopped()`.

mod providers;
mod random;

mod cluster;
mod demo;
mod provider_registry;
mod reload;
mod shutdown;
mod status_watch;

use std::net::{TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use actix_web::dev::ServerHandle;
use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, watch};

use crate::actor_exit::AddrWatch;
use crate::cluster::Cluster;
use crate::config::{LoadedConfig, ProviderSource, Settings};
use crate::degradation::{AnswerCache, DegradationActor, FallbackWatch, SelfCheckConfig};
use crate::domain::Timestamp;
use crate::ops::answer_stats::AnswerStats;
use crate::ops::audit::AuditLog;
use crate::ops::reload::ReloadHandle;
use crate::ops::status::{RestoredHistory, StatusDeps, StatusPublisher};
use crate::ops::supervisor::{Supervisor, SupervisorHandle};
use crate::provider::clock::Clock;
use crate::provider::http;
use crate::provider::stall_clock;
use crate::router::actor::{RouterActor, RouterParts};
use crate::router::runtime_config::{ConfigWatch as PublishedTable, RuntimeConfig};
use crate::session::rate_limit::RateLimiter;
use crate::session::service::ChatService;
use crate::simulator::Simulator;
use crate::store::OpenedStore;
use crate::store::redis::client::RedisClient;
use crate::store::redis::turn_streams::TurnStreams;
use crate::store::{self, Store, StoreError};
use crate::turn::cache_warmer::run_warmer;
use crate::turn::conversations::ConversationRegistry;
use crate::turn::deps::{ShutdownPhase, TurnDeps};
use crate::turn::followups::{self, FollowupQueue};
use crate::turn::metrics::TurnMetrics;
use crate::turn::observer::TurnObserver;
use crate::turn::replication::{self as turn_sharing, TurnReplication};
use crate::turn::retention::run_retention;
use crate::turn::service::TurnService;
use crate::web::{self, AppState, ConnectionLimiter};

use provider_registry::ProviderRegistry;
use providers::RestoredState;
use reload::ReloadWorker;
pub use reload::{ConfigLoader, SignalReloader};
use status_watch::Observers;

const LOAD_STATE_TIMEOUT: Duration = Duration::from_secs(2);

/// The accept queue. Large, because many clients reconnect at once after a restart. The kernel may
/// limit it further.
const ACCEPT_BACKLOG: i32 = 4096;

const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

pub struct App {
    port: u16,
    display_host: String,
    server: actix_web::dev::Server,
    handle: ServerHandle,
    chat_service: Arc<ChatService>,
    connections: Arc<ConnectionLimiter>,
    stats_collector: AnswerStats,
    degradation: AddrWatch<DegradationActor>,
    reload_handle: ReloadHandle,
    audit: Arc<AuditLog>,
    phase: watch::Sender<ShutdownPhase>,
    _simulators: Arc<[Simulator]>,
}

impl App {
    /// Binds the port, opens the store and starts the actors and the server. Must run on a thread
    /// with an actix system.
    ///
    /// # Errors
    /// A message for the operator if the service cannot start: the port is taken, another process
    /// uses the store, or a provider's address is invalid.
    pub async fn build(settings: Settings) -> anyhow::Result<Self> {
        let reload_settings = settings.clone();
        let load = move || {
            Ok(LoadedConfig {
                settings: reload_settings.clone(),
                warnings: Vec::new(),
                source: ProviderSource::File,
                file: None,
            })
        };
        Self::build_with_loader(settings, Arc::new(load)).await
    }

    /// Like [`App::build`], with a function that loads the configuration again for a reload.
    ///
    /// # Errors
    /// Like [`App::build`].
    pub async fn build_with_loader(settings: Settings, read: ConfigLoader) -> anyhow::Result<Self> {
        Self::build_with_self_check(settings, read, SelfCheckConfig::DEFAULT_INTERVAL).await
    }

    /// Like [`App::build_with_loader`], with the interval of the self-check of the fallback.
    ///
    /// # Errors
    /// Like [`App::build`].
    pub async fn build_with_self_check(
        settings: Settings,
        read: ConfigLoader,
        self_check: Duration,
    ) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        http::install_tls();
        stall_clock::monitor_current_thread();
        let listener = bind_listener(&settings.server.listen)?;
        let address = listener
            .local_addr()
            .context("cannot read the address of the listening socket")?;
        let instance: Arc<str> = format!("{:08x}", random::random_u64() >> 32).into();
        let link = cluster::connect_redis(&settings, &instance).await?;
        let opened = open_store(&settings).await?;
        let (terms, terms_rx) = watch::channel(cluster::retention_terms(&settings));
        let opened = cluster::with_replication(opened, link.as_ref(), terms_rx);
        let clock = Clock::start();
        let supervisor = Supervisor::default();

        let simulators = demo::start_simulators(&settings)?;
        let provider_settings = demo::effective_providers(&settings, &simulators);
        // The actors and the status start from the saved state.
        let restored = load_state(&*opened.store).await;
        let steady = supervisor.is_stable();
        let supervisor_handle = supervisor.handle();
        actix::spawn(supervisor.run());
        let cluster = link
            .as_ref()
            .map(|link| new_cluster(link, &instance, clock));
        let mut registry = ProviderRegistry::new(
            Arc::clone(&opened.store),
            clock,
            supervisor_handle.clone(),
            cluster.clone(),
        );
        let plan = registry.plan(&provider_settings)?;
        registry.apply(plan, &restored).await;
        let providers = registry.providers();
        let metrics = TurnMetrics::new(providers.iter().map(|provider| &provider.name))
            .context("cannot create the metrics")?;
        let (config_tx, config) = watch::channel(Arc::new(RuntimeConfig::new(
            Arc::clone(&settings),
            providers,
        )));
        let router = start_router(config.clone(), clock, &supervisor_handle).await;
        let fallback = FallbackWatch::new(&settings.degradation.fallback);
        let answer_cache = Arc::new(load_answer_cache(&settings, &opened.store).await);
        let checks = SelfCheckConfig {
            answer_cache: Some(Arc::clone(&answer_cache)),
            interval: self_check,
        };
        let degradation =
            start_degradation(config.clone(), &fallback, checks, &supervisor_handle).await;

        let status_deps = StatusDeps {
            config: config.clone(),
            store: Arc::clone(&opened.store),
            clock,
            random_u64: random::random_u64,
        };
        let board = StatusPublisher::new(status_deps, restored.history);
        let status = board.subscribe();
        let reports = board.subscribe_history();
        actix::spawn(board.run());

        let (phase, phase_rx) = watch::channel(ShutdownPhase::Running);
        let turn_deps = TurnDeps {
            conversations: Arc::new(ConversationRegistry::default()),
            store: Arc::clone(&opened.store),
            router,
            config_watch: config,
            router_queue: Arc::default(),
            fallback_chain: fallback.chain(),
            answer_cache,
            warm_now: Notify::new(),
            single_flight: Arc::default(),
            turn_limit: Arc::default(),
            followup_queue: FollowupQueue::new(
                settings.degradation.outbox,
                reload::followup_pacing(&settings),
                random::random_unit,
            ),
            replication: link.map(|link| {
                Arc::new(TurnReplication::new(TurnStreams::new(
                    link,
                    Arc::clone(&instance),
                )))
            }),
            phase: phase_rx,
            store_healthy: watch::Sender::new(true),
            observer: TurnObserver::new(metrics),
            tracer: crate::telemetry::otlp::init_tracer(&settings, &instance),
            clock,
            random_u64: random::random_u64,
        };
        let chat_service = Arc::new(ChatService {
            turns: Arc::new(TurnService::new(turn_deps)),
            status,
            rate_limiter: rate_limiter(&settings),
        });
        let Observers {
            stats_collector: answered,
            alerts,
            drills,
        } = Observers::start(
            &chat_service,
            reports.clone(),
            opened.problems.clone(),
            cluster.as_ref(),
        );
        actix::spawn(run_warmer(Arc::clone(&chat_service.turns)));
        actix::spawn(run_retention(Arc::clone(&chat_service.turns)));
        actix::spawn(followups::worker::run(Arc::clone(&chat_service.turns)));
        actix::spawn(turn_sharing::worker::run(Arc::clone(&chat_service.turns)));
        if let Some(cluster) = cluster {
            cluster.start(&chat_service);
        }
        let sweeper = Arc::clone(&chat_service);
        actix::spawn(async move {
            loop {
                tokio::time::sleep(CLEANUP_INTERVAL).await;
                sweeper.rate_limiter.sweep();
            }
        });
        let audit: Arc<AuditLog> = Arc::default();
        let (reloads, reload_requests) = ReloadHandle::new();
        let limits = &settings.limits;
        let connections = ConnectionLimiter::new(limits.connections, limits.connections_per_ip);
        let connections = Arc::new(connections);
        let state = AppState {
            instance_id: instance,
            chat: Arc::clone(&chat_service),
            connections: Arc::clone(&connections),
            is_stable: steady,
            startup_problems: opened.problems.into(),
            fallback_health: fallback.clone(),
            status_history: reports,
            alerts,
            hourly_history: answered.history.clone(),
            drills,
            audit_log: Arc::clone(&audit),
            reloads: reloads.clone(),
            started_at: std::time::Instant::now(),
            started_at_s: chat_service.turns.clock.wall().0 / 1000,
        };
        let server = web::serve(listener, state)?;
        let reload_worker = ReloadWorker {
            loader: read,
            registry,
            config: config_tx,
            chat_service: Arc::clone(&chat_service),
            connections: Arc::clone(&connections),
            degradation: degradation.clone(),
            simulators: Arc::clone(&simulators),
            store: opened.store,
            terms,
        };
        actix::spawn(reload_worker.run(reload_requests));
        Ok(Self {
            port: address.port(),
            display_host: display_host(&settings.server.listen),
            handle: server.handle(),
            server,
            chat_service,
            connections,
            stats_collector: answered,
            degradation,
            reload_handle: reloads,
            audit,
            phase,
            _simulators: simulators,
        })
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
        self.stats_collector.shutdown().await;
        crate::telemetry::otlp::shutdown_tracer(self.chat_service.turns.tracer.clone()).await;
        self.handle.stop(true).await;
        server
            .await
            .context("the server task failed")?
            .context("the server failed")
    }

    pub fn reloader(&self) -> SignalReloader {
        SignalReloader {
            reloads: self.reload_handle.clone(),
            audit: Arc::clone(&self.audit),
        }
    }
}

fn bind_listener(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = listen_on_first(listen).map_err(|error| {
        let is_in_use = error.kind() == std::io::ErrorKind::AddrInUse;
        let hint = if is_in_use {
            "; is another process there?"
        } else {
            ":"
        };
        anyhow::Error::new(error).context(format!(
            "cannot listen on {listen}{hint} choose another address with --listen"
        ))
    })?;
    listener
        .set_nonblocking(true)
        .context("cannot switch the socket to non-blocking mode")?;
    Ok(listener)
}

/// Listens on the first address of the host name that can be bound.
fn listen_on_first(listen: &str) -> std::io::Result<TcpListener> {
    let mut last_error = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in listen.to_socket_addrs()? {
        let bound = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .and_then(|socket| {
            // Lets a restarted service bind its port immediately.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(ACCEPT_BACKLOG)?;
            Ok(socket.into())
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn display_host(listen: &str) -> String {
    listen
        .rsplit_once(':')
        .map_or(listen, |(host, _)| host)
        .to_owned()
}

async fn open_store(settings: &Settings) -> anyhow::Result<OpenedStore> {
    let folder = settings.server.data_dir.clone();
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let opened = tokio::task::spawn_blocking(move || store::open(&folder, now)).await;
    match opened.context("the task that opens the store failed")? {
        Ok(opened) => Ok(opened),
        Err(StoreError::Locked) => anyhow::bail!(
            "the data folder {} is in use by another failsoft; stop that one, or set another server.data_dir",
            settings.server.data_dir.display()
        ),
        Err(error) => Err(error).context("cannot open the store"),
    }
}

fn new_cluster(link: &RedisClient, instance: &Arc<str>, clock: Clock) -> Cluster {
    let link = link.clone();
    let instance = Arc::clone(instance);
    Cluster {
        redis: link,
        instance_id: instance,
        clock,
        random_u64: random::random_u64,
        random_unit: random::random_unit,
    }
}

async fn load_state(store: &dyn Store) -> RestoredState {
    let reads = async {
        futures_util::try_join!(
            store.breakers(),
            store.daily_spend(),
            store.incidents(),
            store.service_lifetime()
        )
    };
    match tokio::time::timeout(LOAD_STATE_TIMEOUT, reads).await {
        Ok(Ok((breakers, spent, incidents, life))) => RestoredState {
            breakers,
            daily_spend: spent,
            history: RestoredHistory {
                incidents,
                lifetime: life,
            },
        },
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("saved breakers, daily spend and incidents not loaded");
            RestoredState::default()
        }
    }
}

async fn start_router(
    table: PublishedTable,
    clock: Clock,
    care: &SupervisorHandle,
) -> AddrWatch<RouterActor> {
    let seed = RouterParts {
        config: table,
        clock,
        random_unit: random::random_unit,
    };
    let (address, router) = watch::channel(None);
    let build = move |guard| {
        drop(address.send_replace(Some(RouterActor::new(seed.clone(), guard).start())))
    };
    care.supervise("router".into(), build).await;
    router
}

async fn start_degradation(
    table: PublishedTable,
    published: &FallbackWatch,
    checks: SelfCheckConfig,
    care: &SupervisorHandle,
) -> AddrWatch<DegradationActor> {
    let (address, degradation) = watch::channel(None);
    let published = published.clone();
    let build = move |guard| {
        let rules = table.borrow().settings.degradation.clone();
        let actor =
            DegradationActor::new(rules, published.clone(), guard).with_self_check(checks.clone());
        address.send_replace(Some(actor.start()));
    };
    care.supervise("degradation".into(), build).await;
    degradation
}

async fn load_answer_cache(settings: &Settings, store: &Arc<dyn Store>) -> AnswerCache {
    let prompt = Arc::clone(&settings.chat.system_prompt);
    let cache = AnswerCache::new(Arc::clone(store), settings.cache.clone(), prompt);
    cache.load().await;
    cache
}

fn rate_limiter(settings: &Settings) -> RateLimiter {
    let limits = &settings.limits;
    let per_address = limits.messages_per_minute_per_ip;
    RateLimiter::per_minute(
        reload::nonzero(limits.messages_per_minute),
        reload::nonzero(per_address),
    )
}
