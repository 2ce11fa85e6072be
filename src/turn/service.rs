//! The entry point of turns: what every turn needs, and the limits that hold over all of them.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, watch};

use super::answer_counters::AnswerCounters;
use super::conversations::{ConversationRegistry, LiveConversation, NewMessage, TurnConflict};
use super::followups::FollowupQueue;
use super::log::{Cancel, LogWriter, TurnLog};
use super::metrics::TurnMetrics;
use super::persistence::Persistence;
use super::replication::{TurnClaim, TurnReplication};
use super::runner;
use super::single_flight::{FlightRole, SingleFlight};
use crate::actor_exit::AddrWatch;
use crate::answer_cache::RefreshJob;
use crate::answer_cache::policy::CacheMode;
use crate::config::MidStream;
use crate::degradation::{AnswerCache, FallbackChain};
use crate::domain::{ChatRequest, ClientMsgId, TurnId, TurnRecord};
use crate::provider::clock::Clock;
use crate::provider::concurrency_limit::{ConcurrencyLimit, ConcurrencyPermit};
use crate::router::actor::{
    ACTOR_TIMEOUT, MAILBOX_CAPACITY, RouterActor, SECOND_ROUND_TIMEOUT, SelectProvider, Selection,
};
use crate::router::runtime_config::{ConfigWatch, RuntimeConfig};
use crate::store::Store;
use crate::telemetry::spans::TurnTracer;

/// The progress of a shutdown. Later variants compare as greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownPhase {
    #[default]
    Running,
    /// New turns are refused; running turns may finish.
    Draining,
    /// The grace period is over: running turns are interrupted.
    Aborting,
    /// Sessions close; the process exits next.
    Closing,
}

/// Starts turns, and holds what they need.
pub struct TurnService {
    pub conversations: Arc<ConversationRegistry>,
    pub store: Arc<dyn Store>,
    /// The router's current address. `None` inside while its actor is restarted.
    pub router: AddrWatch<RouterActor>,
    /// The settings and the providers, replaced by each reload. See [`TurnService::config`].
    pub config_watch: ConfigWatch,
    /// Requests sent to the router and not yet answered.
    pub router_queue: Arc<ConcurrencyLimit>,
    pub fallback_chain: watch::Receiver<Arc<FallbackChain>>,
    pub answer_cache: Arc<AnswerCache>,
    /// Notified when the operator orders the warm questions to be asked at once.
    pub warm_now: Notify,
    pub single_flight: Arc<SingleFlight>,
    pub turn_limit: Arc<ConcurrencyLimit>,
    pub followup_queue: FollowupQueue,
    /// Shares turns with other instances. `None` if this is the only one.
    pub replication: Option<Arc<TurnReplication>>,
    pub phase: watch::Receiver<ShutdownPhase>,
    /// `false` after a write that the store did not confirm in time. The status page shows it.
    pub store_healthy: watch::Sender<bool>,
    pub answer_counters: AnswerCounters,
    pub metrics: TurnMetrics,
    /// Exports turns and attempts as spans. `None` if no collector is configured.
    pub tracer: Option<Arc<TurnTracer>>,
    pub clock: Clock,
    pub random_u64: fn() -> u64,
}

#[derive(Clone, Debug)]
pub struct TurnOptions {
    pub preferred_provider: Option<Arc<str>>,
    /// Fail instead of trying any provider other than `preferred_provider`.
    pub no_failover: bool,
    /// The time the turn keeps running after its last follower has left.
    pub orphan_grace: Duration,
    pub mid_stream: MidStream,
    /// The client cannot retract text (`/v1`). After a mid-stream failure the turn is continued or
    /// ends without an answer.
    pub append_only: bool,
    /// Accept an answer that no provider gave: an expired cached one or a fallback.
    pub allow_fallback: bool,
    /// Return a provider's 4xx to the caller instead of failing over. The message history is sent
    /// unmodified.
    pub surface_caller_errors: bool,
    pub cache_mode: CacheMode,
    /// The visitor is not signed in. Only then may the answer be served to others.
    pub is_anonymous: bool,
    /// The turn produces a follow-up for an earlier turn. No visitor waits for it, and it is not
    /// counted as a turn.
    pub is_background: bool,
}

pub const CHAT_ORPHAN_GRACE: Duration = Duration::from_secs(60);

pub enum OpenTurnError {
    Conflict(TurnConflict),
    /// `limits.turns` turns are running already.
    AtCapacity,
    Draining,
}

impl TurnService {
    /// Starts a turn in `conversation` and answers it on a task of the calling thread.
    ///
    /// # Errors
    /// See [`OpenTurnError`]; no turn was started then.
    pub fn start_turn(
        self: &Arc<Self>,
        conversation: &Arc<LiveConversation>,
        question: NewMessage,
        options: TurnOptions,
    ) -> Result<Arc<TurnLog>, OpenTurnError> {
        self.start_claimed_turn(conversation, question, options, None)
    }

    /// Like [`TurnService::start_turn`], but uses the turn id of `claim`. `None` if no other
    /// instance was asked.
    ///
    /// # Errors
    /// See [`OpenTurnError`]; no turn was started then.
    pub fn start_claimed_turn(
        self: &Arc<Self>,
        conversation: &Arc<LiveConversation>,
        question: NewMessage,
        options: TurnOptions,
        claim: Option<TurnClaim>,
    ) -> Result<Arc<TurnLog>, OpenTurnError> {
        let permit = self.acquire_permit()?;
        let now = self.clock.wall();
        let random = (self.random_u64)();
        let claimed_turn = claim.map(|claim| claim.turn);
        let writer = conversation
            .open_turn(question, claimed_turn, now, random)
            .map_err(OpenTurnError::Conflict)?;
        if let Some(sharing) = &self.replication {
            // The conversation may have assigned another id than the claimed one.
            let is_announced =
                claim.is_some_and(|claim| claim.is_published && claim.turn == writer.log().turn());
            sharing.add_local_turn(conversation.id(), writer.log(), is_announced);
        }
        let persistence = Persistence::Conversation(Arc::clone(conversation));
        Ok(self.spawn_turn(writer, persistence, options, permit))
    }

    /// Starts a turn that is not stored. The caller supplies all messages and reads the text.
    ///
    /// # Errors
    /// See [`OpenTurnError`].
    pub fn start_ephemeral_turn(
        self: &Arc<Self>,
        request: ChatRequest,
        options: TurnOptions,
    ) -> Result<Arc<TurnLog>, OpenTurnError> {
        let permit = self.acquire_permit()?;
        let writer = self.ephemeral_log(&request, options.append_only);
        Ok(self.spawn_turn(writer, Persistence::Ephemeral(request), options, permit))
    }

    /// Asks a provider again in the background and replaces the cached answer.
    ///
    /// Does nothing if the same refresh is running already, or if no more turns may run. The next
    /// read of the old answer tries again.
    pub fn refresh_cached_answer(self: &Arc<Self>, request: ChatRequest, renewal: RefreshJob) {
        let Ok(permit) = self.acquire_permit() else {
            return;
        };
        let writer = self.ephemeral_log(&request, false);
        let FlightRole::Leader(flight) = self.single_flight.join(renewal.key, writer.log()) else {
            return;
        };
        let options = TurnOptions {
            // Nobody ever follows this turn, so its own time limit is the only one.
            orphan_grace: self.config().settings.timeouts.turn,
            allow_fallback: false,
            cache_mode: CacheMode::Off,
            ..self.default_options()
        };
        self.spawn_turn(
            writer,
            Persistence::CacheRefresh(request, renewal, flight),
            options,
            permit,
        );
    }

    fn ephemeral_log(&self, request: &ChatRequest, append_only: bool) -> LogWriter {
        let now = self.clock.wall();
        let question = request
            .messages
            .last()
            .map(|message| message.text.to_string())
            .unwrap_or_default();
        let turn = TurnId::next_after(None, now.0, (self.random_u64)());
        let record = TurnRecord::new(turn, ClientMsgId::for_turn(turn), now, question, None);
        LogWriter::without_frames(record, append_only)
    }

    fn acquire_permit(&self) -> Result<ConcurrencyPermit, OpenTurnError> {
        if *self.phase.borrow() != ShutdownPhase::Running {
            return Err(OpenTurnError::Draining);
        }
        self.turn_limit
            .try_acquire(self.config().settings.limits.turns)
            .ok_or(OpenTurnError::AtCapacity)
    }

    fn spawn_turn(
        self: &Arc<Self>,
        writer: LogWriter,
        persistence: Persistence,
        options: TurnOptions,
        permit: ConcurrencyPermit,
    ) -> Arc<TurnLog> {
        let service = Arc::clone(self);
        let log = Arc::clone(writer.log());
        let turn = log.turn();
        // No visitor waits for a cache refresh, so it need not finish during a drain.
        let abort_at = if matches!(persistence, Persistence::CacheRefresh(..)) {
            ShutdownPhase::Draining
        } else {
            ShutdownPhase::Aborting
        };
        let abort = abort_on_shutdown(self.phase.clone(), abort_at, Arc::clone(&log));
        actix::spawn(async move {
            // Boxed because the future has some kilobytes, which the task would move several times.
            // A panic is caught so that the log is evicted all the same.
            let run = Box::pin(
                AssertUnwindSafe(runner::run_turn(&service, &persistence, writer, options))
                    .catch_unwind(),
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
            if let Persistence::Conversation(conversation) = &persistence {
                tokio::time::sleep(LOG_TTL).await;
                conversation.evict_log(turn);
            }
        });
        log
    }

    /// The current settings and providers.
    ///
    /// Read them once at the start of an operation and use that snapshot to its end, so that a
    /// reload does not change them half-way.
    pub fn config(&self) -> Arc<RuntimeConfig> {
        Arc::clone(&self.config_watch.borrow())
    }

    pub fn default_options(&self) -> TurnOptions {
        TurnOptions {
            preferred_provider: None,
            no_failover: false,
            orphan_grace: CHAT_ORPHAN_GRACE,
            mid_stream: self.config().settings.routing.mid_stream,
            append_only: false,
            allow_fallback: true,
            surface_caller_errors: false,
            cache_mode: CacheMode::Use,
            is_anonymous: true,
            is_background: false,
        }
    }

    /// The time to wait for a store operation: `usual`, or a few milliseconds after the store has
    /// failed to confirm a write in time. A hanging disk must not delay every answer.
    pub fn store_timeout(&self, usual: Duration) -> Duration {
        if *self.store_healthy.borrow() {
            usual
        } else {
            usual.min(UNHEALTHY_STORE_TIMEOUT)
        }
    }

    /// Asks the router for the next provider.
    ///
    /// Waits a moment for a router that is being restarted. Returns `Selection::Unavailable` if it
    /// does not answer in time, or at once if its queue is full. `request` is called once per try.
    pub async fn select_provider(&self, request: impl Fn() -> SelectProvider) -> Selection {
        let mut router = self.router.clone();
        for _ in 0..2 {
            let addr =
                tokio::time::timeout(ROUTER_RESTART_TIMEOUT, router.wait_for(Option::is_some))
                    .await;
            let Some(actor): Option<Addr<RouterActor>> =
                addr.ok().and_then(Result::ok).and_then(|addr| addr.clone())
            else {
                break;
            };
            // The router asks the providers one by one, each for at most `ACTOR_LIMIT`.
            let limit = SECOND_ROUND_TIMEOUT
                + ACTOR_TIMEOUT * (u32::try_from(self.config().providers.len()).unwrap_or(1) + 1);
            let Some(queue_permit) = self.router_queue.try_acquire(MAILBOX_CAPACITY) else {
                break;
            };
            let request = SelectProvider {
                queue_permit: Some(Arc::new(queue_permit)),
                ..request()
            };
            match tokio::time::timeout(limit, actor.send(request)).await {
                Ok(Ok(route)) => return route,
                // The actor ended while the request was queued: wait for its successor.
                Ok(Err(_)) => {
                    drop(tokio::time::timeout(ROUTER_RESTART_TIMEOUT, router.changed()).await)
                }
                Err(_) => break,
            }
        }
        tracing::warn!("router did not answer");
        Selection::Unavailable { retry_after: None }
    }
}

/// The timeout of one store operation while the store is unhealthy. A turn waits for several of
/// them; together they stay well under 100 ms.
const UNHEALTHY_STORE_TIMEOUT: Duration = Duration::from_millis(15);

/// Keeps the log of a finished turn in memory for clients that reconnect.
const LOG_TTL: Duration = Duration::from_secs(5);

/// Cancels the turn when the service reaches the phase `abort_at`.
async fn abort_on_shutdown(
    mut phase: watch::Receiver<ShutdownPhase>,
    abort_at: ShutdownPhase,
    log: Arc<TurnLog>,
) {
    if phase.wait_for(|phase| *phase >= abort_at).await.is_err() {
        // The sender is gone without a shutdown: never abort.
        std::future::pending::<()>().await;
    }
    log.cancel(Cancel::Interrupted);
}

const ROUTER_RESTART_TIMEOUT: Duration = Duration::from_millis(200);
