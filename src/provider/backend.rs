//! One backend as the rest of the house holds it: how to ask it, and where its actor is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;
use tokio::time::Instant;

use super::actor::ProviderActor;
use super::upstream::Upstream;
use crate::chat::{At, Fault, ProviderState, Usage};
use crate::settings::CallRetry;

/// Where an actor can be reached now: none while it is being rebuilt after a panic.
pub type Whereabouts<A> = watch::Receiver<Option<Addr<A>>>;

/// One configured backend. Outlives its actor, which may be rebuilt at any time.
pub struct Backend {
    /// Its configured name.
    pub name: Arc<str>,
    /// The model that it is asked for.
    pub model: Arc<str>,
    /// The dialect's name, for the status.
    pub dialect: &'static str,
    /// The room of its context in tokens; 0 where that is not known.
    pub context_tokens: u32,
    /// How long its calls may take.
    pub patience: Patience,
    /// How it is tried again in a turn.
    pub retry: CallRetry,
    /// Whether it goes on from a started answer that it is given (prefill). Cleared when it refuses to.
    pub prefill: AtomicBool,
    /// USD per million tokens, in and out.
    pub prices: Option<(f64, f64)>,
    /// How to ask it.
    pub upstream: Arc<dyn Upstream>,
    /// Where its actor is.
    pub actor: Whereabouts<ProviderActor>,
    /// How it is, as last published: a hint for ranking. [`super::actor::Admit`] is the authority.
    pub vitals: watch::Receiver<Vitals>,
}

/// How long one call may take.
#[derive(Clone, Debug)]
pub struct Patience {
    /// To the first token, by attempts made in the turn; the last repeats.
    pub first_token: Vec<Duration>,
    /// Between tokens.
    pub stall: Duration,
    /// In all.
    pub attempt: Duration,
}

impl Patience {
    /// The limit to the first token of the turn's attempt number `attempt`, counted from 1.
    pub fn first_token(&self, attempt: u32) -> Duration {
        let step = usize::try_from(attempt).unwrap_or(usize::MAX).saturating_sub(1);
        self.first_token.get(step).or(self.first_token.last()).copied().unwrap_or(self.attempt)
    }
}

impl Backend {
    /// What these tokens cost; none where prices are not configured.
    pub fn cost(&self, usage: Usage) -> Option<f64> {
        let (input, output) = self.prices?;
        #[allow(clippy::cast_precision_loss, reason = "no answer has 2^53 tokens")]
        let cost = usage.input_tokens as f64 * input + usage.output_tokens as f64 * output;
        Some(cost / 1_000_000.0)
    }
}

/// How a provider is, as its actor publishes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Its breaker's state.
    pub state: ProviderState,
    /// When it will be tried, or may be asked, again.
    pub retry_at: Option<At>,
    /// Why it is not closed, or what failed last.
    pub reason: Option<Fault>,
    /// How many times in a row its probe failed.
    pub strikes: u32,
    /// Answers under way.
    pub in_flight: usize,
    /// Whole answers since the start.
    pub successes: u64,
    /// Failed attempts since the start.
    pub failures: u64,
    /// Failed attempts that had shown text.
    pub restarts: u64,
    /// How long first tokens took since the start.
    pub first_token: Option<Latency>,
    /// How long whole answers took since the start.
    pub total: Option<Latency>,
    /// When the last attempt ended.
    pub checked_at: Option<At>,
}

/// Milliseconds that half, 95 % and 99 % of the calls stayed within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of them.
    pub p50: u64,
    /// 95 %.
    pub p95: u64,
    /// 99 %.
    pub p99: u64,
}

/// The clocks of the house: one monotonic for every limit, one of the wall to show and store.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Monotonic time since the start.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The wall clock.
    pub fn wall(&self) -> At {
        At::from_system(std::time::SystemTime::now())
    }

    /// The wall clock's reading when the monotonic one shows `moment`, as far as is known now.
    pub fn wall_at(&self, moment: Duration) -> At {
        self.wall().plus(moment.saturating_sub(self.now()))
    }
}
