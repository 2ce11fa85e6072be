//! Builds the service from the bottom up: the store, the providers, the turns, what observes them,
//! and the server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::Actor as _;
use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::provider_registry::ProviderRegistry;
use super::providers::RestoredState;
use super::reload::{self, ConfigLoader, ReloadWorker, SignalReloader};
use super::{App, cluster, demo, listener, otlp, random_u64, random_unit};
use crate::actor_exit::AddrWatch;
use crate::cluster::Cluster;
use crate::config::Settings;
use crate::degradation::{AnswerCache, DegradationActor, FallbackWatch, SelfCheckConfig};
use crate::domain::Timestamp;
use crate::ops::alerts::claims::AlertClaims;
use crate::ops::alerts::watcher::{AlertDeps, Alerts};
use crate::ops::answer_stats::AnswerStats;
use crate::ops::audit::AuditLog;
use crate::ops::drills::{self, DrillDeps, DrillService};
use crate::ops::reload::ReloadHandle;
use crate::ops::status::{StatusDeps, StatusPublisher};
use crate::ops::supervisor::{Supervisor, SupervisorHandle};
use crate::provider::clock::Clock;
use crate::provider::{http, stall_clock};
use crate::router::actor::{RouterActor, RouterParts};
use crate::router::runtime_config::{ConfigWatch, RuntimeConfig};
use crate::session::rate_limit::RateLimiter;
use crate::session::service::ChatService;
use crate::store::redis::client::RedisClient;
use crate::store::redis::turn_streams::TurnStreams;
use crate::store::{self, OpenedStore, StoreError};
use crate::turn::cache_warmer::run_warmer;
use crate::turn::conversations::ConversationRegistry;
use crate::turn::deps::{ShutdownPhase, TurnDeps};
use crate::turn::followups::{self, FollowupQueue};
use crate::turn::metrics::TurnMetrics;
use crate::turn::observer::TurnObserver;
use crate::turn::replication::{self, TurnReplication};
use crate::turn::retention::run_retention;
use crate::turn::service::TurnService;
use crate::web::{self, AppState, ConnectionLimiter};

const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

pub(super) async fn build(
    settings: Settings,
    loader: ConfigLoader,
    self_check: Duration,
) -> anyhow::Result<App> {
    http::install_tls();
    stall_clock::monitor_current_thread();
    let listener = listener::bind_listener(&settings.server.listen)?;
    let address = listener.local_addr();
    let address = address.context("cannot read the address of the listening socket")?;
    let instance: Arc<str> = format!("{:08x}", random_u64() >> 32).into();
    let redis = cluster::connect_redis(&settings, &instance).await?;
    let (terms, terms_rx) = watch::channel(cluster::retention_terms(&settings));
    let opened = cluster::with_replication(open_store(&settings).await?, redis.as_ref(), terms_rx);
    let simulators = demo::start_simulators(&settings)?;
    let supervisor = Supervisor::default();
    let builder = AppBuilder {
        settings: Arc::new(settings),
        instance,
        clock: Clock::start(),
        redis,
        opened,
        supervisor: supervisor.handle(),
    };
    let is_stable = supervisor.is_stable();
    actix::spawn(supervisor.run());
    let settings = &builder.settings;
    let store = &builder.opened.store;

    // The actors and the status start from the saved state.
    let restored = RestoredState::load(&**store).await;
    let mut registry = builder.provider_registry();
    let plan = registry.plan(&demo::effective_providers(settings, &simulators))?;
    registry.apply(plan, &restored).await;
    let runtime = RuntimeConfig::new(Arc::clone(settings), registry.providers());
    let (config_tx, config) = watch::channel(Arc::new(runtime));

    let router = builder.start_router(config.clone()).await;
    let fallback = FallbackWatch::new(&settings.degradation.fallback);
    let prompt = Arc::clone(&settings.chat.system_prompt);
    let answer_cache = AnswerCache::new(Arc::clone(store), settings.cache.clone(), prompt);
    answer_cache.load().await;
    let answer_cache = Arc::new(answer_cache);
    let checks = SelfCheckConfig {
        answer_cache: Some(Arc::clone(&answer_cache)),
        interval: self_check,
    };
    let degradation = builder
        .start_degradation(config.clone(), &fallback, checks)
        .await;

    let publisher = StatusPublisher::new(
        StatusDeps {
            config: config.clone(),
            store: Arc::clone(store),
            clock: builder.clock,
            random_u64,
        },
        restored.history,
    );
    let status = publisher.subscribe();
    let status_history = publisher.subscribe_history();
    actix::spawn(publisher.run());

    let (phase, phase_rx) = watch::channel(ShutdownPhase::Running);
    let limits = &settings.limits;
    let chat_service = Arc::new(ChatService {
        turns: builder.turn_service(config, router, &fallback, answer_cache, phase_rx)?,
        status,
        rate_limiter: RateLimiter::per_minute(
            reload::nonzero(limits.messages_per_minute),
            reload::nonzero(limits.messages_per_minute_per_ip),
        ),
    });
    let turns = &chat_service.turns;
    let answer_stats = AnswerStats::start(Arc::clone(turns));
    let alerts = Alerts::start(AlertDeps {
        config: turns.config_watch.clone(),
        status: chat_service.status.clone(),
        history: status_history.clone(),
        warnings: answer_stats.warnings.clone(),
        store: Arc::clone(store),
        startup_problems: builder.opened.problems.clone(),
        claims: builder
            .redis
            .clone()
            .map(|redis| AlertClaims::new(redis, Arc::clone(&builder.instance))),
        clock: builder.clock,
        random_u64,
        random_unit,
    });
    let drills = start_drills(&chat_service);
    builder.spawn_background_tasks(&chat_service);

    let audit: Arc<AuditLog> = Arc::default();
    let (reloads, reload_requests) = ReloadHandle::new();
    let limits = &settings.limits;
    let connections = ConnectionLimiter::new(limits.connections, limits.connections_per_ip);
    let connections = Arc::new(connections);
    let state = AppState {
        instance_id: Arc::clone(&builder.instance),
        chat: Arc::clone(&chat_service),
        connections: Arc::clone(&connections),
        is_stable,
        startup_problems: builder.opened.problems.clone().into(),
        fallback_health: fallback.clone(),
        status_history,
        alerts,
        hourly_history: answer_stats.history.clone(),
        drills,
        audit_log: Arc::clone(&audit),
        reloads: reloads.clone(),
        started_at: std::time::Instant::now(),
        started_at_s: chat_service.turns.clock.wall().0 / 1000,
    };
    let server = web::serve(listener, state)?;
    let reload_worker = ReloadWorker {
        loader,
        registry,
        config: config_tx,
        chat_service: Arc::clone(&chat_service),
        connections: Arc::clone(&connections),
        degradation: degradation.clone(),
        simulators: Arc::clone(&simulators),
        store: Arc::clone(store),
        terms,
    };
    actix::spawn(reload_worker.run(reload_requests));
    Ok(App {
        port: address.port(),
        display_host: listener::display_host(&settings.server.listen),
        handle: server.handle(),
        server,
        chat_service,
        connections,
        answer_stats,
        degradation,
        reloader: SignalReloader { reloads, audit },
        phase,
        _simulators: simulators,
    })
}

/// What all parts of the service are built from.
struct AppBuilder {
    settings: Arc<Settings>,
    instance: Arc<str>,
    clock: Clock,
    redis: Option<RedisClient>,
    opened: OpenedStore,
    supervisor: SupervisorHandle,
}

impl AppBuilder {
    fn cluster(&self) -> Option<Cluster> {
        Some(Cluster {
            redis: self.redis.clone()?,
            instance_id: Arc::clone(&self.instance),
            clock: self.clock,
            random_u64,
            random_unit,
        })
    }

    fn provider_registry(&self) -> ProviderRegistry {
        let store = Arc::clone(&self.opened.store);
        ProviderRegistry::new(store, self.clock, self.supervisor.clone(), self.cluster())
    }

    async fn start_router(&self, config: ConfigWatch) -> AddrWatch<RouterActor> {
        let parts = RouterParts {
            config,
            clock: self.clock,
            random_unit,
        };
        let (address, router) = watch::channel(None);
        let build = move |guard| {
            address.send_replace(Some(RouterActor::new(parts.clone(), guard).start()));
        };
        self.supervisor.supervise("router".into(), build).await;
        router
    }

    async fn start_degradation(
        &self,
        config: ConfigWatch,
        fallback: &FallbackWatch,
        checks: SelfCheckConfig,
    ) -> AddrWatch<DegradationActor> {
        let (address, degradation) = watch::channel(None);
        let fallback = fallback.clone();
        let build = move |guard| {
            let settings = config.borrow().settings.degradation.clone();
            let actor = DegradationActor::new(settings, fallback.clone(), guard)
                .with_self_check(checks.clone());
            address.send_replace(Some(actor.start()));
        };
        self.supervisor.supervise("degradation".into(), build).await;
        degradation
    }

    fn turn_service(
        &self,
        config_watch: ConfigWatch,
        router: AddrWatch<RouterActor>,
        fallback: &FallbackWatch,
        answer_cache: Arc<AnswerCache>,
        phase: watch::Receiver<ShutdownPhase>,
    ) -> anyhow::Result<Arc<TurnService>> {
        let settings = &self.settings;
        let providers = Arc::clone(&config_watch.borrow().providers);
        let metrics = TurnMetrics::new(providers.iter().map(|provider| &provider.name))
            .context("cannot create the metrics")?;
        let replication = self.redis.clone().map(|redis| {
            let streams = TurnStreams::new(redis, Arc::clone(&self.instance));
            Arc::new(TurnReplication::new(streams))
        });
        let pacing = reload::followup_pacing(settings);
        Ok(Arc::new(TurnService::new(TurnDeps {
            conversations: Arc::new(ConversationRegistry::default()),
            store: Arc::clone(&self.opened.store),
            router,
            config_watch,
            router_queue: Arc::default(),
            fallback_chain: fallback.chain(),
            answer_cache,
            warm_now: Notify::new(),
            single_flight: Arc::default(),
            turn_limit: Arc::default(),
            followup_queue: FollowupQueue::new(settings.degradation.outbox, pacing, random_unit),
            replication,
            phase,
            store_healthy: watch::Sender::new(true),
            observer: TurnObserver::new(metrics),
            tracer: otlp::init_tracer(settings, &self.instance),
            clock: self.clock,
            random_u64,
        })))
    }

    fn spawn_background_tasks(&self, chat_service: &Arc<ChatService>) {
        let turns = &chat_service.turns;
        actix::spawn(run_warmer(Arc::clone(turns)));
        actix::spawn(run_retention(Arc::clone(turns)));
        actix::spawn(followups::worker::run(Arc::clone(turns)));
        actix::spawn(replication::worker::run(Arc::clone(turns)));
        if let Some(cluster) = self.cluster() {
            cluster.start(chat_service);
        }
        let chat_service = Arc::clone(chat_service);
        actix::spawn(async move {
            loop {
                tokio::time::sleep(CLEANUP_INTERVAL).await;
                chat_service.rate_limiter.sweep();
            }
        });
    }
}

fn start_drills(chat_service: &ChatService) -> Arc<DrillService> {
    let turns = &chat_service.turns;
    let drills = DrillService::new(DrillDeps {
        service: Arc::clone(turns),
        status: chat_service.status.clone(),
        runtime: Handle::current(),
    });
    let scheduled = Arc::clone(&drills);
    let clock = turns.clock;
    actix::spawn(async move {
        scheduled.load().await;
        drills::run_schedule(scheduled, move || clock.wall()).await;
    });
    drills
}

async fn open_store(settings: &Settings) -> anyhow::Result<OpenedStore> {
    let folder = settings.server.data_dir.clone();
    let now = Timestamp::from_system_time(SystemTime::now());
    let opened = tokio::task::spawn_blocking(move || store::open(&folder, now)).await;
    let opened = opened.context("the task that opens the store failed")?;
    if let Err(StoreError::Locked) = opened {
        anyhow::bail!(
            "the data folder {} is in use by another failsoft; stop that one, or set another server.data_dir",
            settings.server.data_dir.display()
        );
    }
    opened.context("cannot open the store")
}
