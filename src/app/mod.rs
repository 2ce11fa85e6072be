//! Builds and runs the service: `App::build(settings)`, then `port()`, then `run_until_stopped()`.

mod backends;
mod chance;
mod collector;
mod drain;
mod reload;
mod roster;
mod sharing;
mod simulated;
mod watching;

use std::net::{TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use actix_web::dev::ServerHandle;
use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, watch};

use crate::chat::At;
use crate::degradation::{Checks, DegradationActor, Published, Shelf};
use crate::fleet::Fleet;
use crate::ops::audit::Audit;
use crate::ops::reload::Reloads;
use crate::ops::served::Answered;
use crate::ops::status::{Means, Past, StatusBoard};
use crate::ops::supervisor::{Care, Supervisor};
use crate::provider::backend::{Clock, Whereabouts};
use crate::provider::standstill;
use crate::provider::transport;
use crate::router::actor::{RouterActor, Seed};
use crate::router::table::{Published as PublishedTable, Table};
use crate::session::limits::Rates;
use crate::session::lobby::Lobby;
use crate::settings::{Loaded, Settings, Source};
use crate::simulator::Simulator;
use crate::store::Opened;
use crate::store::link::Link;
use crate::store::turns::SharedTurns;
use crate::store::{self, Store, StoreError};
use crate::turn::counts::Counts;
use crate::turn::desk::{Desk, Phase};
use crate::turn::outbox::{self, Outbox};
use crate::turn::retention::retain;
use crate::turn::rooms::Rooms;
use crate::turn::sharing::{self as turn_sharing, Sharing};
use crate::turn::tally::Tally;
use crate::turn::warm::warm;
use crate::web::{self, Connections, Parts, State};

use backends::Remembered;
use reload::Changing;
pub use reload::{Read, Reloader};
use roster::Roster;
use watching::Watching;

const REMEMBER_LIMIT: Duration = Duration::from_secs(2);

/// The accept queue. Large, because many clients reconnect at once after a restart. The kernel may
/// limit it further.
const BACKLOG: i32 = 4096;

const SWEEP: Duration = Duration::from_secs(60);

pub struct App {
    port: u16,
    host: String,
    server: actix_web::dev::Server,
    handle: ServerHandle,
    lobby: Arc<Lobby>,
    connections: Arc<Connections>,
    answered: Answered,
    degradation: Whereabouts<DegradationActor>,
    reloads: Reloads,
    audit: Arc<Audit>,
    phase: watch::Sender<Phase>,
    _simulators: Arc<[Arc<Simulator>]>,
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
            Ok(Loaded {
                settings: reload_settings.clone(),
                warnings: Vec::new(),
                source: Source::File,
                file: None,
            })
        };
        Self::build_from(settings, Arc::new(load)).await
    }

    /// Like [`App::build`], with a function that loads the configuration again for a reload.
    ///
    /// # Errors
    /// Like [`App::build`].
    pub async fn build_from(settings: Settings, read: Read) -> anyhow::Result<Self> {
        Self::build_with(settings, read, Checks::EVERY).await
    }

    /// Like [`App::build_with_loader`], with the interval of the self-check of the fallback.
    ///
    /// # Errors
    /// Like [`App::build`].
    pub async fn build_with(
        settings: Settings,
        read: Read,
        self_check: Duration,
    ) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        transport::install_tls();
        standstill::watch();
        let listener = bind(&settings.server.listen)?;
        let address = listener
            .local_addr()
            .context("cannot read the address of the listening socket")?;
        let instance: Arc<str> = format!("{:08x}", chance::random() >> 32).into();
        let link = sharing::link(&settings, &instance).await?;
        let opened = open_store(&settings).await?;
        let (terms, terms_rx) = watch::channel(sharing::terms(&settings));
        let opened = sharing::shared(opened, link.as_ref(), terms_rx);
        let clock = Clock::start();
        let supervisor = Supervisor::default();

        let simulators = simulated::start(&settings)?;
        let provider_settings = simulated::providers(&settings, &simulators);
        // The actors and the status start from the saved state.
        let restored = remembered(&*opened.store).await;
        let steady = supervisor.steady();
        let supervisor_handle = supervisor.care();
        actix::spawn(supervisor.run());
        let cluster = link.as_ref().map(|link| fleet(link, &instance, clock));
        let mut registry = Roster::new(
            Arc::clone(&opened.store),
            clock,
            supervisor_handle.clone(),
            cluster.clone(),
        );
        let plan = registry.plan(&provider_settings)?;
        registry.carry_out(plan, &restored).await;
        let providers = registry.backends();
        let metrics = Tally::new(providers.iter().map(|provider| &provider.name))
            .context("cannot create the metrics")?;
        let (config_tx, config) =
            watch::channel(Arc::new(Table::first(Arc::clone(&settings), providers)));
        let router = start_router(config.clone(), clock, &supervisor_handle).await;
        let fallback = Published::new(&settings.degradation.fallback);
        let answer_cache = Arc::new(shelf(&settings, &opened.store).await);
        let checks = Checks {
            shelf: Some(Arc::clone(&answer_cache)),
            every: self_check,
        };
        let degradation =
            start_degradation(config.clone(), &fallback, checks, &supervisor_handle).await;

        let status_deps = Means {
            published: config.clone(),
            store: Arc::clone(&opened.store),
            clock,
            random: chance::random,
        };
        let board = StatusBoard::new(status_deps, restored.past);
        let status = board.watch();
        let reports = board.reports();
        actix::spawn(board.run());

        let (phase, phase_rx) = watch::channel(Phase::Open);
        let turn_service = Desk {
            rooms: Arc::new(Rooms::default()),
            store: Arc::clone(&opened.store),
            router,
            published: config,
            asking: Arc::default(),
            ladder: fallback.ladder(),
            shelf: answer_cache,
            warming: Notify::new(),
            flights: Arc::default(),
            places: Arc::default(),
            outbox: Outbox::new(
                settings.degradation.outbox,
                reload::pace(&settings),
                chance::fraction,
            ),
            sharing: link
                .map(|link| Arc::new(Sharing::new(SharedTurns::new(link, Arc::clone(&instance))))),
            phase: phase_rx,
            durable: watch::Sender::new(true),
            counts: Counts::default(),
            tally: metrics,
            spans: collector::spans(&settings, &instance),
            clock,
            random: chance::random,
        };
        let chat_service = Arc::new(Lobby {
            desk: Arc::new(turn_service),
            status,
            rates: rates(&settings),
        });
        let Watching {
            answered,
            alerts,
            drills,
        } = Watching::begin(
            &chat_service,
            reports.clone(),
            opened.problems.clone(),
            cluster.as_ref(),
        );
        actix::spawn(warm(Arc::clone(&chat_service.desk)));
        actix::spawn(retain(Arc::clone(&chat_service.desk)));
        actix::spawn(outbox::run(Arc::clone(&chat_service.desk)));
        actix::spawn(turn_sharing::run(Arc::clone(&chat_service.desk)));
        if let Some(cluster) = cluster {
            cluster.start(&chat_service);
        }
        let sweeper = Arc::clone(&chat_service);
        actix::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweeper.rates.sweep();
            }
        });
        let audit: Arc<Audit> = Arc::default();
        let (reloads, reload_requests) = Reloads::new();
        let parts = Parts {
            instance,
            lobby: Arc::clone(&chat_service),
            simulators: Arc::clone(&simulators),
            steady,
            problems: opened.problems,
            degradation: fallback.health(),
            reports,
            alerts,
            history: answered.history.clone(),
            drills,
            audit: Arc::clone(&audit),
            reloads: reloads.clone(),
        };
        let state = State::new(parts);
        let connections = state.connections();
        let server = web::serve(listener, state)?;
        let reload_worker = Changing {
            read,
            roster: registry,
            table: config_tx,
            lobby: Arc::clone(&chat_service),
            connections: Arc::clone(&connections),
            degradation: degradation.clone(),
            simulators: Arc::clone(&simulators),
            store: opened.store,
            terms,
        };
        actix::spawn(reload_worker.run(reload_requests));
        Ok(Self {
            port: address.port(),
            host: shown_host(&settings.server.listen),
            handle: server.handle(),
            server,
            lobby: chat_service,
            connections,
            answered,
            degradation,
            reloads,
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
        format!("failsoft listening on http://{}:{}", self.host, self.port)
    }

    /// The shared state of all sessions. For tests.
    pub fn lobby(&self) -> Arc<Lobby> {
        Arc::clone(&self.lobby)
    }

    pub fn degradation(&self) -> Whereabouts<DegradationActor> {
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
        let limit = self.lobby.settings().server.drain;
        drain::drain(&self.lobby, &self.connections, &self.phase, limit).await;
        self.answered.stop().await;
        collector::shut_down(self.lobby.desk.spans.clone()).await;
        self.handle.stop(true).await;
        server
            .await
            .context("the server task failed")?
            .context("the server failed")
    }

    pub fn reloader(&self) -> Reloader {
        Reloader {
            reloads: self.reloads.clone(),
            audit: Arc::clone(&self.audit),
        }
    }
}

fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = listening(listen).map_err(|error| {
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
fn listening(listen: &str) -> std::io::Result<TcpListener> {
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
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn shown_host(listen: &str) -> String {
    listen
        .rsplit_once(':')
        .map_or(listen, |(host, _)| host)
        .to_owned()
}

async fn open_store(settings: &Settings) -> anyhow::Result<Opened> {
    let folder = settings.server.data_dir.clone();
    let now = At::from_system(std::time::SystemTime::now());
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

fn fleet(link: &Link, instance: &Arc<str>, clock: Clock) -> Fleet {
    let link = link.clone();
    let instance = Arc::clone(instance);
    Fleet {
        link,
        instance,
        clock,
        random: chance::random,
        chance: chance::fraction,
    }
}

async fn remembered(store: &dyn Store) -> Remembered {
    let reads = async {
        futures_util::try_join!(
            store.breakers(),
            store.spent(),
            store.incidents(),
            store.life()
        )
    };
    match tokio::time::timeout(REMEMBER_LIMIT, reads).await {
        Ok(Ok((breakers, spent, incidents, life))) => Remembered {
            breakers,
            spent,
            past: Past { incidents, life },
        },
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("saved breakers, daily spend and incidents not loaded");
            Remembered::default()
        }
    }
}

async fn start_router(
    table: PublishedTable,
    clock: Clock,
    care: &Care,
) -> Whereabouts<RouterActor> {
    let seed = Seed {
        table,
        clock,
        chance: chance::fraction,
    };
    let (address, router) = watch::channel(None);
    let build = move |guard| {
        drop(address.send_replace(Some(RouterActor::new(seed.clone(), guard).start())))
    };
    care.adopt("router".into(), build).await;
    router
}

async fn start_degradation(
    table: PublishedTable,
    published: &Published,
    checks: Checks,
    care: &Care,
) -> Whereabouts<DegradationActor> {
    let (address, degradation) = watch::channel(None);
    let published = published.clone();
    let build = move |guard| {
        let rules = table.borrow().settings.degradation.clone();
        let actor = DegradationActor::new(rules, published.clone(), guard).checking(checks.clone());
        address.send_replace(Some(actor.start()));
    };
    care.adopt("degradation".into(), build).await;
    degradation
}

async fn shelf(settings: &Settings, store: &Arc<dyn Store>) -> Shelf {
    let prompt = Arc::clone(&settings.chat.system_prompt);
    let cache = Shelf::new(Arc::clone(store), settings.cache.clone(), prompt);
    cache.open().await;
    cache
}

fn rates(settings: &Settings) -> Rates {
    let limits = &settings.limits;
    let per_address = limits.messages_per_minute_per_ip;
    Rates::per_minute(
        reload::quota(limits.messages_per_minute),
        reload::quota(per_address),
    )
}
