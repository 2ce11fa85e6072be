//! The leave to make one call to a provider. It is settled exactly once; dropping it unsettled says that the call was abandoned.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::actor::{Observe, ProviderActor, Settle};
use super::backend::Whereabouts;
use super::breaker::{Ticket, Verdict};

/// One admitted call. Holds one of the provider's places until it is dropped, whatever becomes of the actor.
#[derive(Debug)]
pub struct Permit {
    ticket: Option<Ticket>,
    actor: Whereabouts<ProviderActor>,
    begun: Instant,
    place: Option<OwnedSemaphorePermit>,
}

impl Permit {
    pub(super) fn new(
        ticket: Ticket,
        actor: Whereabouts<ProviderActor>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { ticket: Some(ticket), actor, begun: Instant::now(), place: Some(place) }
    }

    /// Tells the breaker the first of an attempt's two verdicts: how long the first token took.
    pub fn first_token(&self, after: Duration) {
        if let (Some(ticket), Some(actor)) = (self.ticket, &*self.actor.borrow()) {
            actor.do_send(Observe { ticket, first_token: after });
        }
    }

    /// Tells the breaker how the attempt ended.
    pub fn settle(mut self, verdict: Verdict) {
        self.tell(verdict);
    }

    /// At most one message a permit, so `do_send`, which knows no bound, is bounded by the permits.
    fn tell(&mut self, verdict: Verdict) {
        let Some(ticket) = self.ticket.take() else { return };
        // First the place, so that the actor counts it as free when it hears of the end.
        drop(self.place.take());
        // A rebuilt actor starts from the published state; a verdict lost in between costs one count, never a place.
        if let Some(actor) = &*self.actor.borrow() {
            actor.do_send(Settle { ticket, verdict, took: self.begun.elapsed() });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.tell(Verdict::Abandoned);
    }
}
