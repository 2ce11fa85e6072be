//! The entry point of turns: what every turn needs, and the limits that hold over all of them.

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

/// The progress of a shutdown. Later variants compare as greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Open,
    /// New turns are refused; running turns may finish.
    Draining,
    /// The grace period is over: running turns are interrupted.
    Cutting,
    /// Sessions close; the process exits next.
    Closing,
}

/// Starts turns, and holds what they need.
pub struct Desk {
    pub rooms: Arc<Rooms>,
    pub store: Arc<dyn Store>,
    /// The router's current address. `None` inside while its actor is restarted.
    pub router: Whereabouts<RouterActor>,
    /// The settings and the providers, replaced by each reload. See [`TurnService::config`].
    pub published: Published,
    /// Requests sent to the router and not yet answered.
    pub asking: Arc<Places>,
    pub ladder: watch::Receiver<Arc<Ladder>>,
    pub shelf: Arc<Shelf>,
    /// Notified when the operator orders the warm questions to be asked at once.
    pub warming: Notify,
    pub flights: Arc<Flights>,
    pub places: Arc<Places>,
    pub outbox: Outbox,
    /// Shares turns with other instances. `None` if this is the only one.
    pub sharing: Option<Arc<Sharing>>,
    pub phase: watch::Receiver<Phase>,
    /// `false` after a write that the store did not confirm in time. The status page shows it.
    pub durable: watch::Sender<bool>,
    pub counts: Counts,
    pub tally: Tally,
    /// Exports turns and attempts as spans. `None` if no collector is configured.
    pub spans: Option<Arc<Spans>>,
    pub clock: Clock,
    pub random: fn() -> u64,
}

#[derive(Clone, Debug)]
pub struct Wishes {
    pub first: Option<Arc<str>>,
    /// Fail instead of trying any provider other than `preferred_provider`.
    pub only_first: bool,
    /// The time the turn keeps running after its last follower has left.
    pub patience: Duration,
    pub mid_stream: MidStream,
    /// The client cannot retract text (`/v1`). After a mid-stream failure the turn is continued or
    /// ends without an answer.
    pub rigid: bool,
    /// Accept an answer that no provider gave: an expired cached one or a fallback.
    pub degraded: bool,
    /// Return a provider's 4xx to the caller instead of failing over. The message history is sent
    /// unmodified.
    pub pass_on: bool,
    pub cache: CacheUse,
    /// The visitor is not signed in. Only then may the answer be served to others.
    pub anonymous: bool,
    /// The turn produces a follow-up for an earlier turn. No visitor waits for it, and it is not
    /// counted as a turn.
    pub late: bool,
}

pub const CHAT_PATIENCE: Duration = Duration::from_secs(60);

pub enum Refused {
    Room(NotOpened),
    /// `limits.turns` turns are running already.
    Full,
    Draining,
}

impl Desk {
    /// Starts a turn in `conversation` and answers it on a task of the calling thread.
    ///
    /// # Errors
    /// See [`OpenTurnError`]; no turn was started then.
    pub fn open(
        self: &Arc<Self>,
        conversation: &Arc<Room>,
        question: Question,
        options: Wishes,
    ) -> Result<Arc<TurnLog>, Refused> {
        self.open_claimed(conversation, question, options, None)
    }

    /// Like [`TurnService::start_turn`], but uses the turn id of `claim`. `None` if no other
    /// instance was asked.
    ///
    /// # Errors
    /// See [`OpenTurnError`]; no turn was started then.
    pub fn open_claimed(
        self: &Arc<Self>,
        conversation: &Arc<Room>,
        question: Question,
        options: Wishes,
        claim: Option<Claim>,
    ) -> Result<Arc<TurnLog>, Refused> {
        let permit = self.place()?;
        let now = self.clock.wall();
        let random = (self.random)();
        let claimed_turn = claim.map(|claim| claim.turn);
        let writer = conversation
            .open(question, claimed_turn, now, random)
            .map_err(Refused::Room)?;
        if let Some(sharing) = &self.sharing {
            // The conversation may have assigned another id than the claimed one.
            let is_announced =
                claim.is_some_and(|claim| claim.told && claim.turn == writer.log().turn());
            sharing.share(conversation.id(), writer.log(), is_announced);
        }
        let persistence = Keeping::In(Arc::clone(conversation));
        Ok(self.begin(writer, persistence, options, permit))
    }

    /// Starts a turn that is not stored. The caller supplies all messages and reads the text.
    ///
    /// # Errors
    /// See [`OpenTurnError`].
    pub fn open_unkept(
        self: &Arc<Self>,
        request: Ask,
        options: Wishes,
    ) -> Result<Arc<TurnLog>, Refused> {
        let permit = self.place()?;
        let writer = self.unkept(&request, options.rigid);
        Ok(self.begin(writer, Keeping::Nowhere(request), options, permit))
    }

    /// Asks a provider again in the background and replaces the cached answer.
    ///
    /// Does nothing if the same refresh is running already, or if no more turns may run. The next
    /// read of the old answer tries again.
    pub fn renew(self: &Arc<Self>, request: Ask, renewal: Renewal) {
        let Ok(permit) = self.place() else { return };
        let writer = self.unkept(&request, false);
        let Joined::Lead(flight) = self.flights.join(renewal.key, writer.log()) else {
            return;
        };
        let options = Wishes {
            // Nobody ever follows this turn, so its own time limit is the only one.
            patience: self.table().settings.timeouts.turn,
            degraded: false,
            cache: CacheUse::Off,
            ..self.usual()
        };
        self.begin(
            writer,
            Keeping::Aside(request, renewal, flight),
            options,
            permit,
        );
    }

    fn unkept(&self, request: &Ask, append_only: bool) -> LogWriter {
        let now = self.clock.wall();
        let question = request
            .messages
            .last()
            .map(|message| message.text.to_string())
            .unwrap_or_default();
        let turn = TurnId::after(None, now.0, (self.random)());
        let record = TurnRecord::asked(turn, ClientMsgId::of_turn(turn), now, question, None);
        LogWriter::open_unframed(record, append_only)
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
        persistence: Keeping,
        options: Wishes,
        permit: Place,
    ) -> Arc<TurnLog> {
        let service = Arc::clone(self);
        let log = Arc::clone(writer.log());
        let turn = log.turn();
        // No visitor waits for a cache refresh, so it need not finish during a drain.
        let abort_at = if matches!(persistence, Keeping::Aside(..)) {
            Phase::Draining
        } else {
            Phase::Cutting
        };
        let abort = cut(self.phase.clone(), abort_at, Arc::clone(&log));
        actix::spawn(async move {
            // Boxed because the future has some kilobytes, which the task would move several times.
            // A panic is caught so that the log is evicted all the same.
            let run = Box::pin(
                AssertUnwindSafe(run::run(&service, &persistence, writer, options)).catch_unwind(),
            );
            let result = match select(run, pin!(abort)).await {
                Either::Left((result, _)) => result,
                // The log was cancelled: the turn ends by itself and writes its `done`.
                Either::Right(((), run)) => run.await,
            };
            drop(permit);
            if result.is_err() {
                tracing::error!(%turn, "turn task panicked, turn interrupted");
            }
            if let Keeping::In(conversation) = &persistence {
                tokio::time::sleep(LOG_STAYS).await;
                conversation.drop_log(turn);
            }
        });
        log
    }

    /// The current settings and providers.
    ///
    /// Read them once at the start of an operation and use that snapshot to its end, so that a
    /// reload does not change them half-way.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.published.borrow())
    }

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

    /// The time to wait for a store operation: `usual`, or a few milliseconds after the store has
    /// failed to confirm a write in time. A hanging disk must not delay every answer.
    pub fn patience(&self, usual: Duration) -> Duration {
        if *self.durable.borrow() {
            usual
        } else {
            usual.min(IN_DOUBT)
        }
    }

    /// Asks the router for the next provider.
    ///
    /// Waits a moment for a router that is being restarted. Returns `Selection::Unavailable` if it
    /// does not answer in time, or at once if its queue is full. `request` is called once per try.
    pub async fn pick(&self, request: impl Fn() -> Pick) -> Route {
        let mut router = self.router.clone();
        for _ in 0..2 {
            let addr = tokio::time::timeout(REBUILD_LIMIT, router.wait_for(Option::is_some)).await;
            let Some(actor): Option<Addr<RouterActor>> =
                addr.ok().and_then(Result::ok).and_then(|addr| addr.clone())
            else {
                break;
            };
            // The router asks the providers one by one, each for at most `ACTOR_LIMIT`.
            let limit = LAST_LIMIT
                + ACTOR_LIMIT * (u32::try_from(self.table().backends.len()).unwrap_or(1) + 1);
            let Some(queue_permit) = self.asking.take(MAILBOX) else {
                break;
            };
            let request = Pick {
                waits: Some(Arc::new(queue_permit)),
                ..request()
            };
            match tokio::time::timeout(limit, actor.send(request)).await {
                Ok(Ok(route)) => return route,
                // The actor ended while the request was queued: wait for its successor.
                Ok(Err(_)) => drop(tokio::time::timeout(REBUILD_LIMIT, router.changed()).await),
                Err(_) => break,
            }
        }
        tracing::warn!("router did not answer");
        Route::Nobody { retry_after: None }
    }
}

/// The timeout of one store operation while the store is unhealthy. A turn waits for several of
/// them; together they stay well under 100 ms.
const IN_DOUBT: Duration = Duration::from_millis(15);

/// Keeps the log of a finished turn in memory for clients that reconnect.
const LOG_STAYS: Duration = Duration::from_secs(5);

/// Cancels the turn when the service reaches the phase `abort_at`.
async fn cut(mut phase: watch::Receiver<Phase>, abort_at: Phase, log: Arc<TurnLog>) {
    if phase.wait_for(|phase| *phase >= abort_at).await.is_err() {
        // The sender is gone without a shutdown: never abort.
        std::future::pending::<()>().await;
    }
    log.cancel(Cancel::Interrupted);
}

const REBUILD_LIMIT: Duration = Duration::from_millis(200);
