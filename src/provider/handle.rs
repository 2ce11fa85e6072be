//! One provider as the rest of the service sees it: how to call it, and how to reach its actor.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;

use super::actor::ProviderActor;
use super::cost;
use super::event::ProviderEvent;
use super::fault_injection::FaultSwitch;
use super::status::ProviderStatus;
use super::stream_event::ProviderClient;
use crate::actor_exit::AddrWatch;
use crate::config::CallRetry;
use crate::domain::TokenUsage;

/// One configured provider. It outlives its actor, which may be rebuilt at any time.
pub struct Provider {
    pub name: Arc<str>,
    pub model: Arc<str>,
    /// The name of the dialect, for the status.
    pub dialect: &'static str,
    /// The size of the context in tokens; 0 if unknown.
    pub context_tokens: u32,
    pub timeouts: AttemptTimeouts,
    pub retry: CallRetry,
    /// The provider continues a partial answer that it is given as prefill. Cleared when it
    /// refuses.
    pub supports_prefill: AtomicBool,
    /// Share of turns under the `weighted` strategy.
    pub weight: u32,
    /// USD per million input and output tokens.
    pub prices: Option<(f64, f64)>,
    pub has_daily_budget: bool,
    pub client: Arc<dyn ProviderClient>,
    pub actor: AddrWatch<ProviderActor>,
    /// Identifies account, address and model: instances with the same value share the provider's
    /// failures. 16 hexadecimal digits of a hash that does not reveal the key.
    pub account_id: Arc<str>,
    /// Events of this provider that other instances should know of.
    pub events: watch::Receiver<Option<ProviderEvent>>,
    /// The status that was published last. It is a hint for ranking; only
    /// [`TryAcquire`](super::actor::TryAcquire) decides on a call.
    pub status: watch::Receiver<ProviderStatus>,
    pub fault_switch: Arc<FaultSwitch>,
}

#[derive(Clone, Debug)]
pub struct AttemptTimeouts {
    /// Until the first token, by the number of attempts made in the turn; the last value repeats.
    pub first_token: Vec<Duration>,
    pub stall: Duration,
    pub total: Duration,
}

impl AttemptTimeouts {
    /// Returns the limit until the first token of attempt number `attempt`, counted from 1.
    pub fn first_token(&self, attempt: u32) -> Duration {
        let limits = &self.first_token;
        let limit = limits.get(attempt.saturating_sub(1) as usize);
        limit.or(limits.last()).copied().unwrap_or(self.total)
    }
}

impl Provider {
    pub fn cost_usd(&self, usage: TokenUsage) -> Option<f64> {
        self.prices.map(|prices| cost::cost_usd(prices, usage))
    }
}
