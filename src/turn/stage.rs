//! A service without sockets for tests on a paused clock: real actors, router and turns over
//! scripted providers and a store that can be made to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor as _, Addr};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::counts::Counts;
use super::desk::{Desk, Phase, Refused, Wishes};
use super::log::TurnLog;
use super::outbox::{Outbox, Pace};
use super::rooms::{Question, Room, Rooms};
use super::tally::Tally;
use crate::chat::{ConversationId, TurnRecord};
use crate::degradation::{Ladder, Replies, Shelf};
use crate::provider::backend::Clock;
use crate::provider::paused::settled;
use crate::provider::scripted::{Call, Script};
use crate::provider::stand::{Plan, Stand};
use crate::router::actor::{RouterActor, Seed};
use crate::router::table::Table;
use crate::settings::{CacheSettings, ChatSettings, LimitSettings, Settings};
use crate::store::Store as _;
use crate::store::flaky::Flaky;
use crate::supervised::{ChildDown, Crash, Guard};

pub const FALLBACK: &str = "Sorry, later.";

pub const TURNS: usize = 8;

#[derive(Clone)]
pub struct House {
    /// The providers in order of preference.
    pub plans: Vec<Plan>,
    pub settings: Settings,
    pub pace: Pace,
}

impl House {
    /// A service with these providers and the default settings.
    pub fn of(plans: impl IntoIterator<Item = Plan>) -> Self {
        Self {
            plans: plans.into_iter().collect(),
            settings: Settings {
                chat: ChatSettings {
                    system_prompt: "Be kind.".into(),
                    ..ChatSettings::default()
                },
                cache: CacheSettings {
                    enabled: false,
                    ..CacheSettings::default()
                },
                limits: LimitSettings {
                    turns: TURNS,
                    ..LimitSettings::default()
                },
                ..Settings::default()
            },
            pace: Pace {
                least: Duration::from_millis(200),
                most: Duration::from_secs(2),
                rest: Duration::from_secs(10),
                longest_rest: Duration::from_secs(25),
            },
        }
    }

    /// A service with providers `a`, `b`, `c` … that follow these scripts.
    pub fn following<const N: usize>(scripts: [Vec<Script>; N]) -> Self {
        let names = ["a", "b", "c", "d"];
        Self::of(
            names
                .into_iter()
                .zip(scripts)
                .map(|(name, scripts)| Plan::new(name).with(scripts)),
        )
    }

    /// Starts the service. The clock must be paused already.
    pub fn open(self) -> Stage {
        let store = Arc::new(Flaky::default());
        let clock = Clock::start();
        let start = |plan| Stand::start(plan, clock, Arc::clone(&store) as _);
        let stands: Vec<_> = self.plans.into_iter().map(start).collect();
        let backends: Arc<[_]> = stands
            .iter()
            .map(|stand| Arc::clone(&stand.backend))
            .collect();
        let metrics = Tally::new(backends.iter().map(|backend| &backend.name)).unwrap();
        let cache = Shelf::new(
            Arc::clone(&store) as _,
            self.settings.cache.clone(),
            Arc::clone(&self.settings.chat.system_prompt),
        );
        let config = watch::Sender::new(Arc::new(Table::first(self.settings.into(), backends)));
        let seed = Seed {
            table: config.subscribe(),
            clock,
            chance: || 0.5,
        };
        let (addr, router) = watch::channel(None);
        let (exits_tx, exits) = mpsc::channel(16);
        let (phase_tx, phase) = watch::channel(Phase::Open);
        let chain = watch::Sender::new(Arc::new(Ladder::new(Replies::default(), FALLBACK)));
        let service = Desk {
            rooms: Arc::new(Rooms::default()),
            store: Arc::clone(&store) as _,
            router,
            published: config.subscribe(),
            asking: Arc::default(),
            ladder: chain.subscribe(),
            shelf: Arc::new(cache),
            warming: Notify::new(),
            flights: Arc::default(),
            places: Arc::default(),
            outbox: Outbox::new(true, self.pace, || 0.5),
            sharing: None,
            phase,
            durable: watch::Sender::new(true),
            counts: Counts::default(),
            tally: metrics,
            spans: None,
            clock,
            random: number,
        };
        let stage = Stage {
            desk: Arc::new(service),
            stands,
            store,
            phase: phase_tx,
            table: config,
            router: Seat {
                seed,
                place: addr,
                tell: exits_tx,
                ends: exits,
            },
            ladder: chain,
        };
        stage.router.rebuild();
        stage
    }
}

/// Returns a different number at each call.
fn number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// The router's actor, which a test can crash and restart.
pub struct Seat {
    seed: Seed,
    place: watch::Sender<Option<Addr<RouterActor>>>,
    tell: mpsc::Sender<ChildDown>,
    ends: mpsc::Receiver<ChildDown>,
}

impl Seat {
    /// Starts a new actor with the same state as the first.
    pub fn rebuild(&self) {
        let guard = Guard::new("router".into(), self.tell.clone());
        self.place
            .send_replace(Some(RouterActor::new(self.seed.clone(), guard).start()));
    }

    /// Makes the actor panic and waits until it is gone. It is not restarted.
    pub async fn crash(&mut self) {
        self.actor().do_send(Crash);
        self.ends.recv().await.unwrap();
    }

    pub fn actor(&self) -> Addr<RouterActor> {
        self.place.borrow().clone().unwrap()
    }
}

pub struct Stage {
    pub desk: Arc<Desk>,
    pub stands: Vec<Stand>,
    pub store: Arc<Flaky>,
    pub phase: watch::Sender<Phase>,
    pub table: watch::Sender<Arc<Table>>,
    pub router: Seat,
    pub ladder: watch::Sender<Arc<Ladder>>,
}

pub fn conversation(number: u8) -> ConversationId {
    ConversationId::from_random([number; 16])
}

pub fn question(name: &str, text: &str) -> Question {
    Question {
        client_msg_id: name.parse().unwrap(),
        text: text.to_owned(),
        retry_of: None,
    }
}

impl Stage {
    /// The conversation that `ask` uses.
    pub fn room(&self) -> Arc<Room> {
        self.desk.rooms.enter(conversation(1))
    }

    /// Starts a turn in conversation 1.
    pub fn ask(&self, name: &str) -> Arc<TurnLog> {
        self.ask_with(name, self.desk.usual())
    }

    pub fn ask_with(&self, name: &str, options: Wishes) -> Arc<TurnLog> {
        match self.try_ask(name, options) {
            Ok(log) => log,
            Err(_) => panic!("refused"),
        }
    }

    pub fn try_ask(&self, name: &str, options: Wishes) -> Result<Arc<TurnLog>, Refused> {
        self.desk
            .open(&self.room(), question(name, "What is new?"), options)
    }

    /// Stores finished turns in conversation 1, answered by an AI in 1970.
    pub async fn remember(&self, turns: u64) {
        for number in 1..=turns {
            let turn = crate::chat::TurnId::after(None, number, 0);
            let name = format!("old{number}").parse().unwrap();
            let mut record = TurnRecord::asked(
                turn,
                name,
                crate::chat::At(number),
                format!("q{number}"),
                None,
            );
            record.text = format!("a{number}");
            record.state = crate::chat::TurnState::Done;
            record.source = Some(crate::chat::Source::Ai);
            record.finish = Some(crate::chat::Finish::Stop);
            self.store
                .write_turn(conversation(1), record)
                .await
                .unwrap();
        }
    }

    pub fn reload(&self, change: impl FnOnce(&mut Settings)) {
        self.table.send_modify(|table| {
            let mut settings = Settings::clone(&table.settings);
            change(&mut settings);
            *table = Arc::new(Table {
                settings: settings.into(),
                ..Table::clone(table)
            });
        });
    }

    pub fn calls(&self, stand: usize) -> Vec<Call> {
        self.stands[stand].upstream.calls()
    }

    pub async fn stored(&self, log: &TurnLog) -> Option<TurnRecord> {
        self.store.turn(conversation(1), log.turn()).await.unwrap()
    }

    /// Waits for the turn's `done` and returns the time it was written.
    pub async fn ended(&self, log: &Arc<TurnLog>) -> Instant {
        let mut follower = log.follow();
        while follower.next().await.is_some() {}
        Instant::now()
    }

    /// Asserts that finished turns have left nothing behind: no permit, no call, no connection.
    pub async fn assert_idle(&self) {
        settled().await;
        assert_eq!(self.desk.places.taken(), 0, "turn permits");
        for stand in &self.stands {
            let name = &stand.backend.name;
            assert_eq!(stand.free(), stand.places(), "permits of {name}");
            assert_eq!(
                stand.backend.vitals.borrow().in_flight,
                0,
                "in flight at {name}"
            );
            assert_eq!(stand.upstream.open(), 0, "connections to {name}");
        }
    }
}

impl Drop for Stage {
    /// Stops the actors. They hold a watch of their own address and would live as long as the
    /// thread.
    fn drop(&mut self) {
        self.router.place.send_replace(None);
        self.stands.iter().for_each(Stand::leave);
    }
}
