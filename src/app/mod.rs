//! Puts the house together: `App::build(settings)`, then `port()`, then `run_until_stopped()`.

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

/// How long reading what the store remembers of the providers may hold the start up.
const REMEMBER_LIMIT: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted: many come at once when a service is back. The kernel has a bound of its own.
const BACKLOG: i32 = 4096;

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
    answered: Answered,
    degradation: Whereabouts<DegradationActor>,
    reloads: Reloads,
    audit: Arc<Audit>,
    phase: watch::Sender<Phase>,
    _simulators: Arc<[Arc<Simulator>]>,
}

impl App {
    /// Binds the port, opens the store, starts the actors and the server. To be called on a thread with an actix system.
    ///
    /// # Errors
    /// What keeps the service from starting, in words for its operator: the port, a second process, a provider's address.
    pub async fn build(settings: Settings) -> anyhow::Result<Self> {
        let same = settings.clone();
        let loaded = move || {
            let (warnings, source, file) = (Vec::new(), Source::File, None);
            Ok(Loaded {
                settings: same.clone(),
                warnings,
                source,
                file,
            })
        };
        Self::build_from(settings, Arc::new(loaded)).await
    }

    /// The same; at a reload `read` gives the settings that there are then.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn build_from(settings: Settings, read: Read) -> anyhow::Result<Self> {
        Self::build_with(settings, read, Checks::EVERY).await
    }

    /// The same; what answers without a provider is looked after so often.
    ///
    /// # Errors
    /// As [`App::build`].
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
            .context("the port's own address is not known")?;
        let instance: Arc<str> = format!("{:08x}", chance::random() >> 32).into();
        let link = sharing::link(&settings, &instance).await?;
        let opened = open_store(&settings).await?;
        let (terms, known_terms) = watch::channel(sharing::terms(&settings));
        let opened = sharing::shared(opened, link.as_ref(), known_terms);
        let clock = Clock::start();
        let supervisor = Supervisor::default();

        let simulators = simulated::start(&settings)?;
        let providers = simulated::providers(&settings, &simulators);
        let remembered = remembered(&*opened.store).await;
        let (steady, care) = (supervisor.steady(), supervisor.care());
        actix::spawn(supervisor.run());
        let fleet = link.as_ref().map(|link| fleet(link, &instance, clock));
        let mut roster = Roster::new(
            Arc::clone(&opened.store),
            clock,
            care.clone(),
            fleet.clone(),
        );
        let plan = roster.plan(&providers)?;
        roster.carry_out(plan, &remembered).await;
        let backends = roster.backends();
        let tally = Tally::new(backends.iter().map(|one| &one.name))
            .context("the metrics cannot be made")?;
        let (table, published_table) =
            watch::channel(Arc::new(Table::first(Arc::clone(&settings), backends)));
        let router = start_router(published_table.clone(), clock, &care).await;
        let published = Published::new(&settings.degradation.fallback);
        let shelf = Arc::new(shelf(&settings, &opened.store).await);
        let checks = Checks {
            shelf: Some(Arc::clone(&shelf)),
            every: self_check,
        };
        let degradation =
            start_degradation(published_table.clone(), &published, checks, &care).await;

        let means = Means {
            published: published_table.clone(),
            store: Arc::clone(&opened.store),
            clock,
            random: chance::random,
        };
        let board = StatusBoard::new(means, remembered.past);
        let (status, reports) = (board.watch(), board.reports());
        actix::spawn(board.run());

        let (phase, phases) = watch::channel(Phase::Open);
        let desk = Desk {
            rooms: Arc::new(Rooms::default()),
            store: Arc::clone(&opened.store),
            router,
            published: published_table,
            asking: Arc::default(),
            ladder: published.ladder(),
            shelf,
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
            phase: phases,
            durable: watch::Sender::new(true),
            counts: Counts::default(),
            tally,
            spans: collector::spans(&settings, &instance),
            clock,
            random: chance::random,
        };
        let lobby = Arc::new(Lobby {
            desk: Arc::new(desk),
            status,
            rates: rates(&settings),
        });
        let Watching {
            answered,
            alerts,
            drills,
        } = Watching::begin(
            &lobby,
            reports.clone(),
            opened.problems.clone(),
            fleet.as_ref(),
        );
        actix::spawn(warm(Arc::clone(&lobby.desk)));
        actix::spawn(retain(Arc::clone(&lobby.desk)));
        actix::spawn(outbox::run(Arc::clone(&lobby.desk)));
        actix::spawn(turn_sharing::run(Arc::clone(&lobby.desk)));
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
        let audit: Arc<Audit> = Arc::default();
        let (reloads, asked) = Reloads::new();
        let parts = Parts {
            instance,
            lobby: Arc::clone(&lobby),
            simulators: Arc::clone(&simulators),
            steady,
            problems: opened.problems,
            degradation: published.health(),
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
        let changing = Changing {
            read,
            roster,
            table,
            lobby: Arc::clone(&lobby),
            connections: Arc::clone(&connections),
            degradation: degradation.clone(),
            simulators: Arc::clone(&simulators),
            store: opened.store,
            terms,
        };
        actix::spawn(changing.run(asked));
        Ok(Self {
            port: address.port(),
            host: shown_host(&settings.server.listen),
            handle: server.handle(),
            server,
            lobby,
            connections,
            answered,
            degradation,
            reloads,
            audit,
            phase,
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
        let limit = self.lobby.settings().server.drain;
        drain::drain(&self.lobby, &self.connections, &self.phase, limit).await;
        self.answered.stop().await;
        collector::shut_down(self.lobby.desk.spans.clone()).await;
        self.handle.stop(true).await;
        server
            .await
            .context("the server's task failed")?
            .context("the server failed")
    }

    /// What reads the configuration again.
    pub fn reloader(&self) -> Reloader {
        Reloader {
            reloads: self.reloads.clone(),
            audit: Arc::clone(&self.audit),
        }
    }
}

fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = listening(listen).map_err(|error| {
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let why = if taken {
            "; is another process there?"
        } else {
            ":"
        };
        anyhow::Error::new(error).context(format!(
            "cannot listen on {listen}{why} choose another address with --listen"
        ))
    })?;
    listener
        .set_nonblocking(true)
        .context("the port cannot be used without blocking")?;
    Ok(listener)
}

/// The listener at the first of the name's addresses that can be used.
fn listening(listen: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in listen.to_socket_addrs()? {
        let bound = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .and_then(|socket| {
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
    listen
        .rsplit_once(':')
        .map_or(listen, |(host, _)| host)
        .to_owned()
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

/// What this instance has to do with others.
fn fleet(link: &Link, instance: &Arc<str>, clock: Clock) -> Fleet {
    let (link, instance) = (link.clone(), Arc::clone(instance));
    Fleet {
        link,
        instance,
        clock,
        random: chance::random,
        chance: chance::fraction,
    }
}

async fn remembered(store: &dyn Store) -> Remembered {
    let read = async {
        futures_util::try_join!(
            store.breakers(),
            store.spent(),
            store.incidents(),
            store.life()
        )
    };
    match tokio::time::timeout(REMEMBER_LIMIT, read).await {
        Ok(Ok((breakers, spent, incidents, life))) => Remembered {
            breakers,
            spent,
            past: Past { incidents, life },
        },
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(
                "the breakers' last states, the day's costs and the incidents were not read"
            );
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
    let (place, router) = watch::channel(None);
    let build =
        move |guard| drop(place.send_replace(Some(RouterActor::new(seed.clone(), guard).start())));
    care.adopt("router".into(), build).await;
    router
}

async fn start_degradation(
    table: PublishedTable,
    published: &Published,
    checks: Checks,
    care: &Care,
) -> Whereabouts<DegradationActor> {
    let (place, degradation) = watch::channel(None);
    let published = published.clone();
    let build = move |guard| {
        let rules = table.borrow().settings.degradation.clone();
        let actor = DegradationActor::new(rules, published.clone(), guard).checking(checks.clone());
        place.send_replace(Some(actor.start()));
    };
    care.adopt("degradation".into(), build).await;
    degradation
}

async fn shelf(settings: &Settings, store: &Arc<dyn Store>) -> Shelf {
    let prompt = Arc::clone(&settings.chat.system_prompt);
    let shelf = Shelf::new(Arc::clone(store), settings.cache.clone(), prompt);
    shelf.open().await;
    shelf
}

fn rates(settings: &Settings) -> Rates {
    let limits = &settings.limits;
    let address = limits.messages_per_minute_per_ip;
    Rates::per_minute(
        reload::quota(limits.messages_per_minute),
        reload::quota(address),
    )
}
