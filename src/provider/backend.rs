//! One backend as the rest of the house holds it: how to ask it, and where its actor is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;
use tokio::time::Instant;

use super::actor::ProviderActor;
use super::drill::Switch;
use super::health::Check;
use super::news::News;
use super::spending::{self, Spent, Used};
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
    /// Its share of turns under the weighted strategy.
    pub weight: u32,
    /// USD per million tokens, in and out.
    pub prices: Option<(f64, f64)>,
    /// Whether it has a daily budget.
    pub is_budgeted: bool,
    /// How to ask it.
    pub upstream: Arc<dyn Upstream>,
    /// Where its actor is.
    pub actor: Whereabouts<ProviderActor>,
    /// In whose name it is asked: one account, at one address, of one model. Instances that share it share its troubles. 16 hexadecimal
    /// digits of a hash; no key can be told from it.
    pub account: Arc<str>,
    /// What its actor has to say to other instances.
    pub voice: watch::Receiver<Option<News>>,
    /// How it is, as last published: a hint for ranking. [`super::actor::Admit`] is the authority.
    pub vitals: watch::Receiver<Vitals>,
    /// Puts its calls under an outage drill.
    pub drills: Arc<Switch>,
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
        let step = usize::try_from(attempt)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        self.first_token
            .get(step)
            .or(self.first_token.last())
            .copied()
            .unwrap_or(self.attempt)
    }
}

impl Backend {
    /// What these tokens cost; none where prices are not configured.
    pub fn cost(&self, usage: Usage) -> Option<f64> {
        self.prices.map(|prices| spending::cost(prices, usage))
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
    /// How long first tokens took lately; none where it was not asked.
    pub first_token: Option<Latency>,
    /// How long whole answers took lately.
    pub total: Option<Latency>,
    /// When it was last heard of: the end of an attempt, or a check.
    pub checked_at: Option<At>,
    /// What the last check of its health said; none before the first.
    pub check: Option<Check>,
    /// Checks of its health since the start.
    pub checks: u64,
    /// Those that failed.
    pub checks_failed: u64,
    /// What its day cost so far.
    pub spent: Spent,
    /// What the same day cost by the calls of other instances, as far as this one knows.
    pub spent_elsewhere: Spent,
    /// Its budget is spent, and it is passed over until then.
    pub budget_until: Option<At>,
    /// Tokens and cost since the start.
    pub used: Used,
    /// How good its answers look, 0 to 1: a running mean over about the last twenty; none before the first.
    pub quality: Option<f64>,
}

impl Vitals {
    /// Until when it is passed over although it is closed or enabled: a rate limit is waited out, or its budget is spent.
    pub fn waits_until(&self) -> Option<At> {
        self.retry_at.max(self.budget_until)
    }

    /// Whether it can be asked at `now`. A full one counts as one that can: it works.
    pub fn can_be_asked(&self, now: At) -> bool {
        self.state == ProviderState::Closed && self.waits_until().is_none_or(|at| at <= now)
    }

    /// Whether nothing speaks against its health: its breaker is closed, and no check failed that is still believed at `now`.
    pub fn healthy(&self, now: At) -> bool {
        self.state == ProviderState::Closed
            && self.check.is_none_or(|check| check.fault(now).is_none())
    }

    /// Why it is not asked, or not healthy, or what failed last, in the protocol's words.
    pub fn why(&self, now: At) -> Option<&'static str> {
        if self.is_over_budget(now) {
            Some("budget_spent")
        } else {
            self.trouble(now).map(Fault::reason)
        }
    }

    /// The same as [`Vitals::why`], in words for people: the protocol has one word for who is not there, who does not know the model and who refuses
    /// the key, and an operator does something else about each.
    pub fn words(&self, now: At) -> Option<&'static str> {
        if self.is_over_budget(now) {
            return Some("today's budget is spent");
        }
        self.trouble(now).map(trouble_in_words)
    }

    /// Whether its day's budget is spent at `now`.
    pub fn is_over_budget(&self, now: At) -> bool {
        self.budget_until.is_some_and(|until| until > now)
    }

    /// What a check that is still believed found of a closed one, else what failed last.
    fn trouble(&self, now: At) -> Option<Fault> {
        let checked = self.check.and_then(|check| check.fault(now));
        checked
            .filter(|_| self.state == ProviderState::Closed)
            .or(self.reason)
    }
}

/// A trouble in words for people.
pub const fn trouble_in_words(fault: Fault) -> &'static str {
    match fault {
        Fault::Unreachable => "it cannot be reached",
        Fault::Reset => "the connection broke",
        Fault::Stalled => "it fell silent in mid-answer",
        Fault::Truncated => "answers broke off",
        Fault::Timeout => "no answer in time",
        Fault::RateLimited => "its rate limit",
        Fault::ServerError => "errors of its server",
        Fault::Overloaded => "it is overloaded",
        Fault::Malformed | Fault::Empty | Fault::Poor => "answers that are none",
        Fault::Unauthorized => "it refuses our key",
        Fault::QuotaSpent => "its quota is spent",
        Fault::Misconfigured => "it knows no such model or address",
        Fault::TooLong | Fault::Policy | Fault::BadRequest | Fault::Diverged => {
            "it refused a request"
        }
    }
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
        Self {
            origin: Instant::now(),
        }
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
