//! The entry point of turns: starts them within the limits that hold over all of them.

use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::conversations::{LiveConversation, NewMessage, TurnConflict};
use super::deps::{ShutdownPhase, TurnDeps, TurnOptions};
use super::log::{Cancel, LogWriter, TurnLog};
use super::persistence::Persistence;
use super::replication::{ClaimOutcome, TurnClaim};
use super::runner;
use super::single_flight::FlightRole;
use crate::answer_cache::RefreshJob;
use crate::answer_cache::policy::CacheMode;
use crate::domain::{ChatRequest, ClientMsgId, TurnId, TurnRecord};
use crate::provider::concurrency_limit::ConcurrencyPermit;

pub const CHAT_ORPHAN_GRACE: Duration = Duration::from_secs(60);

pub enum OpenTurnError {
    Conflict(TurnConflict),
    /// `limits.turns` turns are running already.
    AtCapacity,
    Draining,
}

/// Starts turns. Dereferences to the data that they share.
pub struct TurnService(pub(super) TurnDeps);

impl Deref for TurnService {
    type Target = TurnDeps;

    fn deref(&self) -> &TurnDeps {
        &self.0
    }
}

impl TurnService {
    pub fn new(deps: TurnDeps) -> Self {
        Self(deps)
    }

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

    /// Asks the other instances whether `question` may start a turn. Hold `lock_opening` of the
    /// conversation until the turn is started.
    pub async fn claim_turn(
        &self,
        room: &Arc<LiveConversation>,
        question: &NewMessage,
    ) -> ClaimOutcome {
        match &self.replication {
            // A turn that runs or is replicated here is found without asking.
            Some(sharing) if room.running_turn().is_none() => {
                sharing
                    .claim_turn(room, question, self.clock.wall(), (self.random_u64)())
                    .await
            }
            _ => ClaimOutcome::Local(None),
        }
    }

    /// Follows the turn that another instance answers in this conversation, if there is one.
    pub async fn follow_remote_turn(&self, room: &Arc<LiveConversation>) {
        if let Some(sharing) = &self.replication {
            sharing
                .follow_remote_turns(std::slice::from_ref(room))
                .await;
        }
    }

    fn ephemeral_log(&self, request: &ChatRequest, append_only: bool) -> LogWriter {
        let now = self.clock.wall();
        let last = request.messages.last();
        let question = last.map_or_else(String::new, |message| message.text.to_string());
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
            let refresh = |request, job| service.refresh_cached_answer(request, job);
            let run = runner::run_turn(&service, &persistence, writer, options, &refresh);
            let run = Box::pin(AssertUnwindSafe(run).catch_unwind());
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
}

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
