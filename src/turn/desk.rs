//! Where turns are opened: what every turn needs, and the limits that hold over all of them.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, watch};

use super::counts::Counts;
use super::flights::{Flights, Joined};
use super::keep::Keeping;
use super::log::{Cancel, LogWriter, TurnLog};
use super::outbox::Outbox;
use super::rooms::{NotOpened, Question, Room, Rooms};
use super::run;
use super::sharing::{Claim, Sharing};
use super::tally::Tally;
use crate::chat::{Ask, ClientMsgId, TurnId, TurnRecord};
use crate::degradation::cache::CacheUse;
use crate::degradation::shelf::Renewal;
use crate::degradation::{Ladder, Shelf};
use crate::provider::backend::{Clock, Whereabouts};
use crate::provider::places::{Place, Places};
use crate::router::actor::{ACTOR_LIMIT, LAST_LIMIT, MAILBOX, Pick, Route, RouterActor};
use crate::router::table::{Published, Table};
use crate::settings::MidStream;
use crate::store::Store;
use crate::telemetry::spans::Spans;

/// Whether the service takes new turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It does.
    #[default]
    Open,
    /// It goes down: running turns end, new ones are refused.
    Draining,
    /// They had their time: running turns are interrupted.
    Cutting,
    /// It is about to be gone: sessions close.
    Closing,
}

/// Opens turns, and holds what they need.
pub struct Desk {
    /// Who is in which conversation.
    pub rooms: Arc<Rooms>,
    /// Where turns are kept.
    pub store: Arc<dyn Store>,
    /// Where the router is.
    pub router: Whereabouts<RouterActor>,
    /// The settings and the providers, now and after a reload. See [`Desk::table`].
    pub published: Published,
    /// The questions that the router has not heard yet.
    pub asking: Arc<Places>,
    /// What answers when no provider can.
    pub ladder: watch::Receiver<Arc<Ladder>>,
    /// Saved answers.
    pub shelf: Arc<Shelf>,
    /// Told where the operator wants the warm questions asked now.
    pub warming: Notify,
    /// Answers under way that others wait for.
    pub flights: Arc<Flights>,
    /// The places of running turns.
    pub places: Arc<Places>,
    /// Who waits for a late answer.
    pub outbox: Outbox,
    /// What is shared with other instances; none where this is the only one.
    pub sharing: Option<Arc<Sharing>>,
    /// Whether new turns are taken.
    pub phase: watch::Receiver<Phase>,
    /// Whether the store confirmed the last write in time; the status says so where it did not.
    pub durable: watch::Sender<bool>,
    /// What was answered since the start.
    pub counts: Counts,
    /// The same and more, for the metrics.
    pub tally: Tally,
    /// Tells a collector of turns and attempts; none where none is configured.
    pub spans: Option<Arc<Spans>>,
    /// The clocks.
    pub clock: Clock,
    /// A random number.
    pub random: fn() -> u64,
}

/// How a turn is to be answered.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Ask this provider first.
    pub first: Option<Arc<str>>,
    /// And nobody else.
    pub only_first: bool,
    /// How long the turn goes on with nobody following.
    pub patience: Duration,
    /// What to do when a provider fails in mid-answer.
    pub mid_stream: MidStream,
    /// Whether shown text cannot be taken back: then it goes on, or ends torn.
    pub rigid: bool,
    /// Whether an answer that no provider gave will do.
    pub degraded: bool,
    /// Whether the caller wants to hear of its own faults: then a refused request ends the turn, and its history is not cut.
    pub pass_on: bool,
    /// How saved answers are used.
    pub cache: CacheUse,
    /// Whether the visitor is nobody known: only then the answer may be told to others.
    pub anonymous: bool,
    /// Whether it is for a late answer: nobody waits for it, and it is no turn of its own.
    pub late: bool,
}

/// How long a chat's turn goes on with nobody following it.
pub const CHAT_PATIENCE: Duration = Duration::from_secs(60);

/// Why no turn was opened.
pub enum Refused {
    /// See [`NotOpened`].
    Room(NotOpened),
    /// As many turns run as may.
    Full,
    /// The service goes down.
    Draining,
}

impl Desk {
    /// Opens a turn in `room` and starts to answer it, on a task of the calling thread.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was opened then.
    pub fn open(
        self: &Arc<Self>,
        room: &Arc<Room>,
        question: Question,
        wishes: Wishes,
    ) -> Result<Arc<TurnLog>, Refused> {
        self.open_claimed(room, question, wishes, None)
    }

    /// The same, after other instances were asked: under what was claimed of them.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was opened then.
    pub fn open_claimed(
        self: &Arc<Self>,
        room: &Arc<Room>,
        question: Question,
        wishes: Wishes,
        claim: Option<Claim>,
    ) -> Result<Arc<TurnLog>, Refused> {
        let place = self.place()?;
        let (now, chance) = (self.clock.wall(), (self.random)());
        let claimed = claim.map(|claim| claim.turn);
        let writer = room
            .open(question, claimed, now, chance)
            .map_err(Refused::Room)?;
        if let Some(sharing) = &self.sharing {
            let told = claim.is_some_and(|claim| claim.told && claim.turn == writer.log().turn());
            sharing.share(room.id(), writer.log(), told);
        }
        let keeping = Keeping::In(Arc::clone(room));
        Ok(self.begin(writer, keeping, wishes, place))
    }

    /// Opens a turn that is kept nowhere: the caller says what the model sees, and reads the text.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn open_unkept(
        self: &Arc<Self>,
        ask: Ask,
        wishes: Wishes,
    ) -> Result<Arc<TurnLog>, Refused> {
        let place = self.place()?;
        let writer = self.unkept(&ask, wishes.rigid);
        Ok(self.begin(writer, Keeping::Nowhere(ask), wishes, place))
    }

    /// Asks this once more, for nobody, and saves the answer in the place of an old one. Where that is under way already, or turns have no place
    /// left, nothing happens: the next who is told the old one tries again.
    pub fn renew(self: &Arc<Self>, ask: Ask, renewal: Renewal) {
        let Ok(place) = self.place() else { return };
        let writer = self.unkept(&ask, false);
        let Joined::Lead(flight) = self.flights.join(renewal.key, writer.log()) else {
            return;
        };
        let patience = self.table().settings.timeouts.turn;
        let wishes = Wishes {
            patience,
            degraded: false,
            cache: CacheUse::Off,
            ..self.usual()
        };
        self.begin(writer, Keeping::Aside(ask, renewal, flight), wishes, place);
    }

    fn unkept(&self, ask: &Ask, rigid: bool) -> LogWriter {
        let (now, chance) = (self.clock.wall(), (self.random)());
        let question = ask
            .messages
            .last()
            .map(|message| message.text.to_string())
            .unwrap_or_default();
        let turn = TurnId::after(None, now.0, chance);
        let record = TurnRecord::asked(turn, ClientMsgId::of_turn(turn), now, question, None);
        LogWriter::open_unframed(record, rigid)
    }

    fn place(&self) -> Result<Place, Refused> {
        if *self.phase.borrow() != Phase::Open {
            return Err(Refused::Draining);
        }
        self.places
            .take(self.table().settings.limits.turns)
            .ok_or(Refused::Full)
    }

    fn begin(
        self: &Arc<Self>,
        writer: LogWriter,
        keeping: Keeping,
        wishes: Wishes,
        place: Place,
    ) -> Arc<TurnLog> {
        let (desk, log) = (Arc::clone(self), Arc::clone(writer.log()));
        let turn = log.turn();
        // Nobody waits for what is asked aside.
        let last = if matches!(keeping, Keeping::Aside(..)) {
            Phase::Draining
        } else {
            Phase::Cutting
        };
        let cut = cut(self.phase.clone(), last, Arc::clone(&log));
        actix::spawn(async move {
            // Its log ends whatever becomes of it, and is dropped all the same.
            // Boxed: it is some kilobytes, which the task would be moved with, several times.
            let run = Box::pin(
                AssertUnwindSafe(run::run(&desk, &keeping, writer, wishes)).catch_unwind(),
            );
            let ended = match select(run, pin!(cut)).await {
                Either::Left((ended, _)) => ended,
                // The turn says by itself that it was cut, so it goes on to its end either way.
                Either::Right(((), run)) => run.await,
            };
            drop(place);
            if ended.is_err() {
                tracing::error!(%turn, "a turn's task panicked; it is interrupted");
            }
            if let Keeping::In(room) = &keeping {
                tokio::time::sleep(LOG_STAYS).await;
                room.drop_log(turn);
            }
        });
        log
    }

    /// What the service goes by at this moment. To be looked at once, by who begins something, and gone by to its end.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.published.borrow())
    }

    /// The wishes of who has none.
    pub fn usual(&self) -> Wishes {
        Wishes {
            first: None,
            only_first: false,
            patience: CHAT_PATIENCE,
            mid_stream: self.table().settings.routing.mid_stream,
            rigid: false,
            degraded: true,
            pass_on: false,
            cache: CacheUse::Use,
            anonymous: true,
            late: false,
        }
    }

    /// How long a turn may wait for the store: so long, and hardly at all while it is known not to confirm in time. An answer must not be late
    /// each time because of a disk that hangs.
    pub fn patience(&self, usual: Duration) -> Duration {
        if *self.durable.borrow() {
            usual
        } else {
            usual.min(IN_DOUBT)
        }
    }

    /// Asks the router; where it is being rebuilt, waits a moment for the new one. Without an answer: nobody; at once where too many questions wait.
    pub async fn pick(&self, pick: impl Fn() -> Pick) -> Route {
        let mut router = self.router.clone();
        for _ in 0..2 {
            let here = tokio::time::timeout(REBUILD_LIMIT, router.wait_for(Option::is_some)).await;
            let Some(actor): Option<Addr<RouterActor>> =
                here.ok().and_then(Result::ok).and_then(|one| one.clone())
            else {
                break;
            };
            // The router asks the providers one by one within their own limits.
            let limit = LAST_LIMIT
                + ACTOR_LIMIT * (u32::try_from(self.table().backends.len()).unwrap_or(1) + 1);
            let Some(place) = self.asking.take(MAILBOX) else {
                break;
            };
            let pick = Pick {
                waits: Some(Arc::new(place)),
                ..pick()
            };
            match tokio::time::timeout(limit, actor.send(pick)).await {
                Ok(Ok(route)) => return route,
                // Its actor ended: the next one's address is on its way.
                Ok(Err(_)) => drop(tokio::time::timeout(REBUILD_LIMIT, router.changed()).await),
                Err(_) => break,
            }
        }
        tracing::warn!("the router did not answer");
        Route::Nobody { retry_after: None }
    }
}

/// How long a store that is in doubt is waited for, at each place where a turn waits for it; together well under 100 ms.
const IN_DOUBT: Duration = Duration::from_millis(15);

/// How long an ended turn's log stays for those who come back.
const LOG_STAYS: Duration = Duration::from_secs(5);

/// Interrupts a turn when its time is over.
async fn cut(mut phase: watch::Receiver<Phase>, last: Phase, log: Arc<TurnLog>) {
    if phase.wait_for(|phase| *phase >= last).await.is_err() {
        // Nobody is left to say so: the service was not stopped, it is gone.
        std::future::pending::<()>().await;
    }
    log.cancel(Cancel::Interrupted);
}

/// How long a turn waits for an actor that is being rebuilt.
const REBUILD_LIMIT: Duration = Duration::from_millis(200);
