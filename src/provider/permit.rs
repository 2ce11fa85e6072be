//! The permission for one call to a provider. Its outcome is reported exactly once; a permit that
//! is dropped reports an abandoned call.

use std::time::Duration;

use tokio::time::Instant;

use super::actor::{Observe, Overtaken, ProviderActor, Settle};
use super::backend::Whereabouts;
use super::breaker::{Ticket, Verdict};
use super::places::Place;
use crate::chat::Usage;

/// One admitted call. It holds a concurrency permit of the provider until it is dropped, whatever
/// happens to the actor.
#[derive(Debug)]
pub struct Permit {
    ticket: Option<Ticket>,
    actor: Whereabouts<ProviderActor>,
    begun: Instant,
    place: Option<Place>,
    notes: Notes,
}

/// Measurements of a call. They are reported with every outcome: the tokens of an abandoned call
/// cost money too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Notes {
    pub(super) usage: Option<Usage>,
    pub(super) quality: Option<f64>,
}

impl Permit {
    pub(super) fn new(ticket: Ticket, actor: Whereabouts<ProviderActor>, place: Place) -> Self {
        Self {
            ticket: Some(ticket),
            actor,
            begun: Instant::now(),
            place: Some(place),
            notes: Notes::default(),
        }
    }

    /// Reports how long the first token took. This is the first of an attempt's two outcomes.
    pub fn first_token(&self, after: Duration) {
        if let (Some(ticket), Some(actor)) = (self.ticket, &*self.actor.borrow()) {
            actor.do_send(Observe {
                ticket,
                first_token: after,
            });
        }
    }

    /// Reports that no token had arrived after `waited`, when the call was abandoned for a faster
    /// one. A lower bound of the latency, not an outcome.
    pub fn overtaken(&self, waited: Duration) {
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(Overtaken { waited });
        }
    }

    /// Stores the usage, which is reported with the outcome.
    pub fn used(&mut self, usage: Usage) {
        self.notes.usage = Some(usage);
    }

    /// Stores the quality of the answer, 0 to 1, which is reported with the outcome.
    pub fn scored(&mut self, score: f64) {
        self.notes.quality = Some(score);
    }

    pub fn settle(mut self, outcome: Verdict) {
        self.tell(outcome);
    }

    /// Sends at most one message per permit: `do_send` is not bounded, but permits are.
    fn tell(&mut self, outcome: Verdict) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        // Release the slot first, so that the actor counts it as free when it handles the message.
        drop(self.place.take());
        // A rebuilt actor starts from the published status. An outcome that is lost in between
        // costs one count, never a slot.
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(Settle {
                ticket,
                verdict: outcome,
                took: self.begun.elapsed(),
                notes: self.notes,
            });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.tell(Verdict::Abandoned);
    }
}
