//! What every turn needs: the shared data of all turns, and the options of one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::conversations::ConversationRegistry;
use super::followups::FollowupQueue;
use super::observer::TurnObserver;
use super::replication::TurnReplication;
use super::single_flight::SingleFlight;
use crate::actor_exit::AddrWatch;
use crate::answer_cache::policy::CacheMode;
use crate::config::MidStream;
use crate::degradation::{AnswerCache, FallbackChain};
use crate::provider::clock::Clock;
use crate::provider::concurrency_limit::ConcurrencyLimit;
use crate::router::actor::RouterActor;
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

/// The data that turns share. See [`super::service::TurnService`], which starts them.
pub struct TurnDeps {
    pub conversations: Arc<ConversationRegistry>,
    pub store: Arc<dyn Store>,
    /// The router's current address. `None` inside while its actor is restarted.
    pub router: AddrWatch<RouterActor>,
    /// The settings and the providers, replaced by each reload. See [`TurnDeps::config`].
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
    pub observer: TurnObserver,
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

/// The timeout of one store operation while the store is unhealthy. A turn waits for several of
/// them; together they stay well under 100 ms.
const UNHEALTHY_STORE_TIMEOUT: Duration = Duration::from_millis(15);

impl TurnDeps {
    /// The current settings and providers.
    ///
    /// Read them once at the start of an operation and use that snapshot to its end, so that a
    /// reload does not change them half-way.
    pub fn config(&self) -> Arc<RuntimeConfig> {
        Arc::clone(&self.config_watch.borrow())
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
}
