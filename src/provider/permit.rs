//! The leave to make one call to a provider. It is settled exactly once; dropping it unsettled says that the call was abandoned.

use std::time::Duration;

use tokio::time::Instant;

use super::actor::{Observe, Overtaken, ProviderActor, Settle};
use super::backend::Whereabouts;
use super::breaker::{Ticket, Verdict};
use super::places::Place;
use crate::chat::Usage;

/// One admitted call. Holds one of the provider's places until it is dropped, whatever becomes of the actor.
#[derive(Debug)]
pub struct Permit {
    ticket: Option<Ticket>,
    actor: Whereabouts<ProviderActor>,
    begun: Instant,
    place: Option<Place>,
    notes: Notes,
}

/// What is known of a call besides its verdict. It travels with the verdict, also where that is that the call was abandoned: what a visitor
/// stopped is paid all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Notes {
    /// The tokens that it used.
    pub(super) usage: Option<Usage>,
    /// How good its answer looks, 0 to 1.
    pub(super) quality: Option<f64>,
}

impl Permit {
    pub(super) fn new(ticket: Ticket, actor: Whereabouts<ProviderActor>, place: Place) -> Self {
        let (ticket, place) = (Some(ticket), Some(place));
        Self {
            ticket,
            actor,
            begun: Instant::now(),
            place,
            notes: Notes::default(),
        }
    }

    /// Tells the breaker the first of an attempt's two verdicts: how long the first token took.
    pub fn first_token(&self, after: Duration) {
        if let (Some(ticket), Some(actor)) = (self.ticket, &*self.actor.borrow()) {
            actor.do_send(Observe {
                ticket,
                first_token: after,
            });
        }
    }

    /// Nothing had come after `waited`, when the call was given up for a faster one: its latency is known to be no less. No verdict.
    pub fn overtaken(&self, waited: Duration) {
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(Overtaken { waited });
        }
    }

    /// Notes the tokens that the call used; told when it is settled or dropped.
    pub fn used(&mut self, usage: Usage) {
        self.notes.usage = Some(usage);
    }

    /// Notes how good its answer looks, 0 to 1; told when it is settled or dropped.
    pub fn scored(&mut self, score: f64) {
        self.notes.quality = Some(score);
    }

    /// Tells the breaker how the attempt ended.
    pub fn settle(mut self, verdict: Verdict) {
        self.tell(verdict);
    }

    /// At most one message a permit, so `do_send`, which knows no bound, is bounded by the permits.
    fn tell(&mut self, verdict: Verdict) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        // First the place, so that the actor counts it as free when it hears of the end.
        drop(self.place.take());
        // A rebuilt actor starts from the published state; a verdict lost in between costs one count, never a place.
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(Settle {
                ticket,
                verdict,
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
