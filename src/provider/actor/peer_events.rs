//! Events from other instances, and events that this instance publishes.

use std::time::Duration;

use actix::{Context, Handler, Message};

use super::ProviderActor;
use crate::domain::ProviderState;
use crate::provider::breaker::{BreakerView, Transition};
use crate::provider::cost::DailySpend;
use crate::provider::event::ProviderEvent;

/// A rate limit that grows by less is not published again. Calls that were running when it began
/// each extend it by a moment.
const MIN_HOLD_CHANGE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ApplyPeerEvent(pub ProviderEvent);

#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SetPeerSpend(pub DailySpend);

impl ProviderActor {
    /// Publishes a change of the breaker, or a rate limit that this instance ran into.
    ///
    /// Nothing is published while an outage drill may affect the breaker: a drill concerns only
    /// this instance.
    pub(super) fn publish_event(
        &mut self,
        transition: Option<&Transition>,
        view: &BreakerView,
        now: Duration,
    ) {
        if self.parts.fault_switch.affects_breaker() {
            return;
        }
        let mut event = transition.and_then(|transition| {
            ProviderEvent::from_transition(transition, view.failed_probes, now)
        });
        let rate_limit_end = view
            .retry_at
            .filter(|_| view.state == ProviderState::Closed);
        if let Some(until) = rate_limit_end
            .filter(|until| *until > self.published_hold_until.saturating_add(MIN_HOLD_CHANGE))
        {
            self.published_hold_until = until;
            event = Some(ProviderEvent::RateLimited {
                duration: until.saturating_sub(now),
            });
        }
        if event.is_some() {
            self.parts.events.send_replace(event);
        }
    }

    /// Returns a random delay on top of a peer's duration, so that instances do not resume at once.
    pub(super) fn random_delay(&self) -> Duration {
        let random = (self.parts.random_unit)();
        self.parts.breaker_config.random_delay(random)
    }
}

impl Handler<ApplyPeerEvent> for ProviderActor {
    type Result = ();

    fn handle(&mut self, ApplyPeerEvent(event): ApplyPeerEvent, ctx: &mut Context<Self>) {
        let now = self.parts.clock.now();
        let event = event.clamped();
        let until = now
            .saturating_add(event.ttl())
            .saturating_add(self.random_delay());
        match event {
            ProviderEvent::RateLimited { .. } => {
                self.published_hold_until = self.published_hold_until.max(until)
            }
            ProviderEvent::Reset => {
                self.status.last_fault = None;
                self.status.last_check = None;
            }
            ProviderEvent::Opened { .. } | ProviderEvent::Recovered => {}
        }
        let transition = event.apply_to(&mut self.breaker, until, now);
        self.after_change(transition, ctx);
    }
}

impl Handler<SetPeerSpend> for ProviderActor {
    type Result = ();

    fn handle(&mut self, SetPeerSpend(spend): SetPeerSpend, ctx: &mut Context<Self>) {
        // Never lower the spend of a day: a lost counter that starts again grants no second budget.
        if spend.day > self.status.peer_spend_today.day
            || spend.usd > self.status.peer_spend_today.usd
        {
            let was_spent = self.budget_resets_at().is_some();
            self.status.peer_spend_today = spend;
            if !was_spent && self.budget_resets_at().is_some() {
                tracing::warn!(provider = %self.parts.name, "daily budget spent by all instances together");
            }
            self.after_change(None, ctx);
        }
    }
}

#[cfg(test)]
mod tests;
