//! The permission for one call to a provider. Its outcome is reported exactly once; a permit that
//! is dropped reports an abandoned call.

use std::time::Duration;

use actix::Message;
use tokio::time::Instant;

use super::ProviderActor;
use crate::actor_exit::AddrWatch;
use crate::domain::TokenUsage;
use crate::provider::breaker::{CallOutcome, Ticket};
use crate::provider::concurrency_limit::ConcurrencyPermit;

/// Records how long the first token took. This is the first of an attempt's two outcomes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RecordFirstToken {
    pub(super) ticket: Ticket,
    pub(super) latency: Duration,
}

/// Records a lower bound of the first-token latency, from an attempt that was abandoned for a
/// faster one before its first token.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RecordMinLatency {
    pub(super) waited: Duration,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RecordOutcome {
    pub(super) ticket: Ticket,
    pub(super) outcome: CallOutcome,
    pub(super) elapsed: Duration,
    pub(super) stats: CallStats,
}

/// One admitted call. It holds a concurrency permit of the provider until it is dropped, whatever
/// happens to the actor.
#[derive(Debug)]
pub struct Permit {
    ticket: Option<Ticket>,
    actor: AddrWatch<ProviderActor>,
    started_at: Instant,
    concurrency_permit: Option<ConcurrencyPermit>,
    stats: CallStats,
}

/// Measurements of a call. They are reported with every outcome: the tokens of an abandoned call
/// cost money too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CallStats {
    pub(super) usage: Option<TokenUsage>,
    pub(super) quality: Option<f64>,
}

impl Permit {
    pub(super) fn new(
        ticket: Ticket,
        actor: AddrWatch<ProviderActor>,
        concurrency_permit: ConcurrencyPermit,
    ) -> Self {
        Self {
            ticket: Some(ticket),
            actor,
            started_at: Instant::now(),
            concurrency_permit: Some(concurrency_permit),
            stats: CallStats::default(),
        }
    }

    /// Reports how long the first token took. This is the first of an attempt's two outcomes.
    pub fn record_first_token(&self, latency: Duration) {
        if let (Some(ticket), Some(actor)) = (self.ticket, &*self.actor.borrow()) {
            actor.do_send(RecordFirstToken { ticket, latency });
        }
    }

    /// Reports that no token had arrived after `waited`, when the call was abandoned for a faster
    /// one. A lower bound of the latency, not an outcome.
    pub fn record_min_latency(&self, waited: Duration) {
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(RecordMinLatency { waited });
        }
    }

    /// Stores the usage, which is reported with the outcome.
    pub fn record_usage(&mut self, usage: TokenUsage) {
        self.stats.usage = Some(usage);
    }

    /// Stores the quality of the answer, 0 to 1, which is reported with the outcome.
    pub fn record_quality(&mut self, score: f64) {
        self.stats.quality = Some(score);
    }

    pub fn complete(mut self, outcome: CallOutcome) {
        self.report(outcome);
    }

    /// Sends at most one message per permit: `do_send` is not bounded, but permits are.
    fn report(&mut self, outcome: CallOutcome) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        // Release the slot first, so that the actor counts it as free when it handles the message.
        drop(self.concurrency_permit.take());
        // A rebuilt actor starts from the published status. An outcome that is lost in between
        // costs one count, never a slot.
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(RecordOutcome {
                ticket,
                outcome,
                elapsed: self.started_at.elapsed(),
                stats: self.stats,
            });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.report(CallOutcome::Abandoned);
    }
}
