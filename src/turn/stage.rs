//! A whole house without sockets: scripted backends with their actors, the router, a store with switchable trouble, a desk. For tests,
//! on a paused clock.

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

/// What the ladder says to everything.
pub const FALLBACK: &str = "Sorry, later.";

/// Places for running turns.
pub const TURNS: usize = 8;

/// What is to be known of a house before it stands.
#[derive(Clone)]
pub struct House {
    /// The backends, in order of preference.
    pub plans: Vec<Plan>,
    /// What the service goes by.
    pub settings: Settings,
    /// The waits between late answers.
    pub pace: Pace,
}

impl House {
    /// With these backends, and the configuration's defaults.
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

    /// With backends `a`, `b`, `c` … that follow these scripts.
    pub fn following<const N: usize>(scripts: [Vec<Script>; N]) -> Self {
        let names = ["a", "b", "c", "d"];
        Self::of(
            names
                .into_iter()
                .zip(scripts)
                .map(|(name, scripts)| Plan::new(name).with(scripts)),
        )
    }

    /// Opens its doors, on a clock that is paused already.
    pub fn open(self) -> Stage {
        let store = Arc::new(Flaky::default());
        let clock = Clock::start();
        let start = |plan| Stand::start(plan, clock, Arc::clone(&store) as _);
        let stands: Vec<_> = self.plans.into_iter().map(start).collect();
        let backends: Arc<[_]> = stands
            .iter()
            .map(|stand| Arc::clone(&stand.backend))
            .collect();
        let tally = Tally::new(backends.iter().map(|one| &one.name)).unwrap();
        let (cache, prompt) = (
            self.settings.cache.clone(),
            Arc::clone(&self.settings.chat.system_prompt),
        );
        let shelf = Shelf::new(Arc::clone(&store) as _, cache, prompt);
        let table = watch::Sender::new(Arc::new(Table::first(self.settings.into(), backends)));
        let seed = Seed {
            table: table.subscribe(),
            clock,
            chance: || 0.5,
        };
        let (place, router) = watch::channel(None);
        let (tell, ends) = mpsc::channel(16);
        let (phase, phases) = watch::channel(Phase::Open);
        let ladder = watch::Sender::new(Arc::new(Ladder::new(Replies::default(), FALLBACK)));
        let desk = Desk {
            rooms: Arc::new(Rooms::default()),
            store: Arc::clone(&store) as _,
            router,
            published: table.subscribe(),
            asking: Arc::default(),
            ladder: ladder.subscribe(),
            shelf: Arc::new(shelf),
            warming: Notify::new(),
            flights: Arc::default(),
            places: Arc::default(),
            outbox: Outbox::new(true, self.pace, || 0.5),
            sharing: None,
            phase: phases,
            durable: watch::Sender::new(true),
            counts: Counts::default(),
            tally,
            spans: None,
            clock,
            random: number,
        };
        let stage = Stage {
            desk: Arc::new(desk),
            stands,
            store,
            phase,
            table,
            router: Seat {
                seed,
                place,
                tell,
                ends,
            },
            ladder,
        };
        stage.router.rebuild();
        stage
    }
}

/// Another number each time.
fn number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Where the router sits.
pub struct Seat {
    seed: Seed,
    place: watch::Sender<Option<Addr<RouterActor>>>,
    tell: mpsc::Sender<ChildDown>,
    ends: mpsc::Receiver<ChildDown>,
}

impl Seat {
    /// Starts a new actor from the same seed.
    pub fn rebuild(&self) {
        let guard = Guard::new("router".into(), self.tell.clone());
        self.place
            .send_replace(Some(RouterActor::new(self.seed.clone(), guard).start()));
    }

    /// Has the actor panic, and waits until it is gone. Nobody rebuilds it.
    pub async fn crash(&mut self) {
        self.actor().do_send(Crash);
        self.ends.recv().await.unwrap();
    }

    /// The actor.
    pub fn actor(&self) -> Addr<RouterActor> {
        self.place.borrow().clone().unwrap()
    }
}

/// A house that is open.
pub struct Stage {
    /// Where turns are opened.
    pub desk: Arc<Desk>,
    /// The backends.
    pub stands: Vec<Stand>,
    /// The store.
    pub store: Arc<Flaky>,
    /// Whether new turns are taken.
    pub phase: watch::Sender<Phase>,
    /// What the service goes by.
    pub table: watch::Sender<Arc<Table>>,
    /// The router.
    pub router: Seat,
    /// What answers when no provider can.
    pub ladder: watch::Sender<Arc<Ladder>>,
}

/// The conversation of this number.
pub fn conversation(number: u8) -> ConversationId {
    ConversationId::from_random([number; 16])
}

/// A message with this name and text.
pub fn question(name: &str, text: &str) -> Question {
    Question {
        client_msg_id: name.parse().unwrap(),
        text: text.to_owned(),
        retry_of: None,
    }
}

impl Stage {
    /// The room of conversation 1.
    pub fn room(&self) -> Arc<Room> {
        self.desk.rooms.enter(conversation(1))
    }

    /// Opens a turn in conversation 1.
    pub fn ask(&self, name: &str) -> Arc<TurnLog> {
        self.ask_with(name, self.desk.usual())
    }

    /// The same, with wishes.
    pub fn ask_with(&self, name: &str, wishes: Wishes) -> Arc<TurnLog> {
        match self.try_ask(name, wishes) {
            Ok(log) => log,
            Err(_) => panic!("refused"),
        }
    }

    /// The same, where it may be refused.
    pub fn try_ask(&self, name: &str, wishes: Wishes) -> Result<Arc<TurnLog>, Refused> {
        self.desk
            .open(&self.room(), question(name, "What is new?"), wishes)
    }

    /// Puts ended turns into the store: so many, answered by an AI.
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

    /// Publishes other settings.
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

    /// The calls to one backend.
    pub fn calls(&self, stand: usize) -> Vec<Call> {
        self.stands[stand].upstream.calls()
    }

    /// The turn as the store has it.
    pub async fn stored(&self, log: &TurnLog) -> Option<TurnRecord> {
        self.store.turn(conversation(1), log.turn()).await.unwrap()
    }

    /// Waits until the turn's `done` is written, and says at what moment.
    pub async fn ended(&self, log: &Arc<TurnLog>) -> Instant {
        let mut follower = log.follow();
        while follower.next().await.is_some() {}
        Instant::now()
    }

    /// Nothing is left of the turns that ended: no place, no permit, no connection.
    pub async fn assert_idle(&self) {
        settled().await;
        assert_eq!(self.desk.places.taken(), 0, "places of turns");
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
    /// The actors hold the watch of their own address, so without this they would stay as long as the thread.
    fn drop(&mut self) {
        self.router.place.send_replace(None);
        self.stands.iter().for_each(Stand::leave);
    }
}
