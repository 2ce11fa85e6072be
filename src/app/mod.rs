//! Puts the house together: `App::build(settings)`, then `port()`, then `run_until_stopped()`.

mod backends;
mod chance;
mod drain;
mod simulated;

use std::net::{TcpListener, ToSocketAddrs as _};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use actix_web::dev::ServerHandle;
use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Semaphore, watch};

use crate::chat::At;
use crate::degradation::{DegradationActor, Published, Reload, Shelf};
use crate::fleet::Fleet;
use crate::ops::alerts::watch::{Alerts, Means as Watched};
use crate::ops::status::{Means, Past, StatusBoard};
use crate::ops::supervisor::Supervisor;
use crate::provider::backend::{Clock, Whereabouts};
use crate::provider::transport;
use crate::router::actor::{RouterActor, Seed};
use crate::router::table::{Published as PublishedTable, Table};
use crate::session::limits::Rates;
use crate::session::lobby::Lobby;
use crate::settings::{DegradationSettings, Settings, StoreBackend};
use crate::simulator::Simulator;
use crate::store::Opened;
use crate::store::link::Link;
use crate::store::{self, Store, StoreError};
use crate::turn::desk::{Counts, Desk, Phase};
use crate::turn::outbox::{self, Outbox, Pace};
use crate::turn::rooms::Rooms;
use crate::turn::tally::Tally;
use crate::turn::warm::warm;
use crate::web::{self, Connections, Parts, State};

use backends::Remembered;

/// How long reading what the store remembers of the providers may hold the start up.
const REMEMBER_LIMIT: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted: many come at once when a service is back. The kernel has a bound of its own.
const BACKLOG: i32 = 4096;

/// How long the operator's reload is waited for.
const RELOAD_LIMIT: Duration = Duration::from_secs(6);

/// How often the rate limits forget who has not written for a while.
const SWEEP: Duration = Duration::from_secs(60);

/// The service, bound to its port and ready to run.
pub struct App {
    port: u16,
    host: String,
    server: actix_web::dev::Server,
    handle: ServerHandle,
    lobby: Arc<Lobby>,
    connections: Arc<Connections>,
    degradation: Whereabouts<DegradationActor>,
    rules: DegradationSettings,
    phase: watch::Sender<Phase>,
    _table: watch::Sender<Arc<Table>>,
    turns: usize,
    drain: Duration,
    _simulators: Arc<[Arc<Simulator>]>,
}

impl App {
    /// Binds the port, opens the store, starts the actors and the server. To be called on a thread with an actix system.
    ///
    /// # Errors
    /// What keeps the service from starting, in words for its operator: the port, a second process, a provider's address.
    pub async fn build(settings: Settings) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        transport::install_tls();
        let listener = bind(&settings.server.listen)?;
        let address = listener.local_addr().context("the port's own address is not known")?;
        let opened = open_store(&settings).await?;
        let clock = Clock::start();
        let mut supervisor = Supervisor::default();

        let simulators = simulated::start(&settings)?;
        let providers = simulated::providers(&settings, &simulators);
        let remembered = remembered(&*opened.store).await;
        let fleet = fleet(&settings, clock)?;
        let store = &opened.store;
        let backends =
            backends::start(&providers, store, clock, &remembered, fleet.as_ref(), &mut supervisor)?;
        let tally = Tally::new(backends.iter().map(|one| &one.name)).context("the metrics cannot be made")?;
        let (table, published_table) =
            watch::channel(Arc::new(Table { settings: Arc::clone(&settings), backends }));
        let router = start_router(published_table.clone(), clock, &mut supervisor);
        let rules = settings.degradation.clone();
        let published = Published::new(&rules.fallback);
        let degradation = start_degradation(&rules, &published, &mut supervisor);
        let steady = supervisor.steady();
        actix::spawn(supervisor.run());

        let means = Means {
            published: published_table.clone(),
            store: Arc::clone(&opened.store),
            clock,
            random: chance::random,
        };
        let board = StatusBoard::new(means, remembered.past);
        let (status, reports) = (board.watch(), board.reports());
        actix::spawn(board.run());
        let watched = Watched {
            published: published_table.clone(),
            status: status.clone(),
            reports: reports.clone(),
            warnings: watch::channel(Arc::from(Vec::new())).1,
            store: Arc::clone(&opened.store),
            opened_with: opened.problems.clone(),
            clock,
            random: chance::random,
            chance: chance::fraction,
        };
        let alerts = Alerts::start(watched);

        let (phase, phases) = watch::channel(Phase::Open);
        let desk = Desk {
            rooms: Arc::new(Rooms::default()),
            store: Arc::clone(&opened.store),
            router,
            published: published_table,
            ladder: published.ladder(),
            shelf: shelf(&settings, &opened.store).await,
            flights: Arc::default(),
            places: Arc::new(Semaphore::new(settings.limits.turns)),
            outbox: late_answers(&settings),
            phase: phases,
            durable: watch::Sender::new(true),
            counts: Counts::default(),
            tally,
            clock,
            random: chance::random,
        };
        let lobby = Arc::new(Lobby { desk: Arc::new(desk), status, rates: rates(&settings) });
        actix::spawn(warm(Arc::clone(&lobby.desk)));
        actix::spawn(outbox::run(Arc::clone(&lobby.desk)));
        if let Some(fleet) = fleet {
            fleet.start(&lobby);
        }
        let sweeper = Arc::clone(&lobby);
        actix::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweeper.rates.sweep();
            }
        });
        let parts = Parts {
            lobby: Arc::clone(&lobby),
            simulators: Arc::clone(&simulators),
            steady,
            problems: opened.problems,
            degradation: published.health(),
            reports,
            alerts,
            audit: Arc::default(),
        };
        let state = State::new(parts);
        let connections = state.connections();
        let server = web::serve(listener, state)?;
        Ok(Self {
            port: address.port(),
            host: shown_host(&settings.server.listen),
            handle: server.handle(),
            server,
            lobby,
            connections,
            degradation,
            rules,
            phase,
            _table: table,
            turns: settings.limits.turns,
            drain: settings.server.drain,
            _simulators: simulators,
        })
    }

    /// The port that it listens on: the real one where 0 was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The first line that the operator sees.
    pub fn ready_line(&self) -> String {
        format!("failsoft listening on http://{}:{}", self.host, self.port)
    }

    /// What sessions are served with: for tests, which look at rooms and actors.
    pub fn lobby(&self) -> Arc<Lobby> {
        Arc::clone(&self.lobby)
    }

    /// Where the DegradationActor is.
    pub fn degradation(&self) -> Whereabouts<DegradationActor> {
        self.degradation.clone()
    }

    /// Serves until `stop`, then drains: readiness goes, new turns are refused, running ones finish within the drain.
    ///
    /// # Errors
    /// The server failed.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut server = actix::spawn(self.server);
        tokio::select! {
            ended = &mut server => {
                ended.context("the server's task failed")?.context("the server failed")?;
                anyhow::bail!("the server ended by itself");
            }
            () = stop => {}
        }
        tracing::info!("stopping: no new turns, running ones finish");
        drain::drain(&self.lobby, &self.connections, &self.phase, self.turns, self.drain).await;
        self.handle.stop(true).await;
        server.await.context("the server's task failed")?.context("the server failed")
    }

    /// What reads the reply rules again.
    pub fn reloader(&self) -> Reloader {
        Reloader { degradation: self.degradation.clone(), rules: self.rules.clone() }
    }
}

/// Reads the reply rules again, when the operator says so.
pub struct Reloader {
    degradation: Whereabouts<DegradationActor>,
    rules: DegradationSettings,
}

impl Reloader {
    /// Bad rules change nothing, and are said in the log and the status.
    pub async fn reload(&self) {
        let actor = self.degradation.borrow().clone();
        if let Some(actor) = actor {
            // The actor itself says what came of it.
            drop(tokio::time::timeout(RELOAD_LIMIT, actor.send(Reload(self.rules.clone()))).await);
        }
    }
}

fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = listening(listen).map_err(|error| {
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let why = if taken { "; is another process there?" } else { ":" };
        anyhow::Error::new(error)
            .context(format!("cannot listen on {listen}{why} choose another address with --listen"))
    })?;
    listener.set_nonblocking(true).context("the port cannot be used without blocking")?;
    Ok(listener)
}

/// The listener at the first of the name's addresses that can be used.
fn listening(listen: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in listen.to_socket_addrs()? {
        let bound =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
                // A restarted service takes its port again at once.
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(BACKLOG)?;
                Ok(socket.into())
            });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shown_host(listen: &str) -> String {
    listen.rsplit_once(':').map_or(listen, |(host, _)| host).to_owned()
}

async fn open_store(settings: &Settings) -> anyhow::Result<Opened> {
    let folder = settings.server.data_dir.clone();
    let now = At::from_system(std::time::SystemTime::now());
    let opened = tokio::task::spawn_blocking(move || store::open(&folder, now)).await;
    match opened.context("the store's opening failed")? {
        Ok(opened) => Ok(opened),
        Err(StoreError::Locked) => anyhow::bail!(
            "the data folder {} is in use by another failsoft; stop that one, or set another server.data_dir",
            settings.server.data_dir.display()
        ),
        Err(error) => Err(error).context("the store does not open"),
    }
}

/// What this instance has to do with others, where there may be any.
fn fleet(settings: &Settings, clock: Clock) -> anyhow::Result<Option<Fleet>> {
    if settings.store.backend != StoreBackend::Redis {
        return Ok(None);
    }
    let instance: Arc<str> = format!("{:016x}", chance::random()).into();
    let link = Link::open(&settings.store.redis_url, &instance, chance::fraction)
        .map_err(|error| anyhow::anyhow!("store.redis_url: {error}"))?;
    Ok(Some(Fleet { link, instance, clock, random: chance::random, chance: chance::fraction }))
}

async fn remembered(store: &dyn Store) -> Remembered {
    let read =
        async { futures_util::try_join!(store.breakers(), store.spent(), store.incidents(), store.life()) };
    match tokio::time::timeout(REMEMBER_LIMIT, read).await {
        Ok(Ok((breakers, spent, incidents, life))) => {
            Remembered { breakers, spent, past: Past { incidents, life } }
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("the breakers' last states, the day's costs and the incidents were not read");
            Remembered::default()
        }
    }
}

fn start_router(
    table: PublishedTable,
    clock: Clock,
    supervisor: &mut Supervisor,
) -> Whereabouts<RouterActor> {
    let seed = Seed { table, clock, chance: chance::fraction };
    let (place, router) = watch::channel(None);
    supervisor.adopt("router".into(), move |guard| {
        place.send_replace(Some(RouterActor::new(seed.clone(), guard).start()));
    });
    router
}

fn start_degradation(
    rules: &DegradationSettings,
    published: &Published,
    supervisor: &mut Supervisor,
) -> Whereabouts<DegradationActor> {
    let (place, degradation) = watch::channel(None);
    let (rules, published) = (rules.clone(), published.clone());
    supervisor.adopt("degradation".into(), move |guard| {
        place.send_replace(Some(DegradationActor::new(rules.clone(), published.clone(), guard).start()));
    });
    degradation
}

async fn shelf(settings: &Settings, store: &Arc<dyn Store>) -> Shelf {
    let prompt = Arc::clone(&settings.chat.system_prompt);
    let shelf = Shelf::new(Arc::clone(store), settings.cache.clone(), prompt);
    shelf.open().await;
    shelf
}

/// Late answers keep the distance of retries, and after a failure that of a breaker's probes.
fn late_answers(settings: &Settings) -> Outbox {
    let (retry, breaker) = (&settings.retry.call, &settings.breaker);
    let pace =
        Pace { least: retry.base, most: retry.max, rest: breaker.open_for, longest_rest: breaker.open_max };
    Outbox::new(settings.degradation.outbox, pace, chance::fraction)
}

fn rates(settings: &Settings) -> Rates {
    let limits = &settings.limits;
    let per_minute = |messages: u32| NonZeroU32::new(messages).unwrap_or(NonZeroU32::MIN);
    Rates::per_minute(per_minute(limits.messages_per_minute), per_minute(limits.messages_per_minute_per_ip))
}
