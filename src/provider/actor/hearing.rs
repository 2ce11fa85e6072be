//! Events from other instances, and events that this instance publishes.

use std::time::Duration;

use actix::{Context, Handler, Message};

use super::ProviderActor;
use crate::chat::ProviderState;
use crate::provider::breaker::{Transition, View};
use crate::provider::jitter;
use crate::provider::news::News;
use crate::provider::spending::Spent;

/// A rate limit that grows by less is not published again. Calls that were running when it began
/// each extend it by a moment.
const WORTH_TELLING: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Hear(pub News);

#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SpentElsewhere(pub Spent);

impl ProviderActor {
    /// Publishes a change of the breaker, or a rate limit that this instance ran into.
    ///
    /// Nothing is published while an outage drill may affect the breaker: a drill concerns only
    /// this instance.
    pub(super) fn tell(&mut self, transition: Option<&Transition>, view: &View, now: Duration) {
        if self.seed.drills.shadows() {
            return;
        }
        let mut event = transition.and_then(|transition| News::of(transition, view.strikes, now));
        let rate_limit_end = view
            .retry_at
            .filter(|_| view.state == ProviderState::Closed);
        if let Some(until) =
            rate_limit_end.filter(|until| *until > self.hold_known.saturating_add(WORTH_TELLING))
        {
            self.hold_known = until;
            event = Some(News::Limited {
                lasts: until.saturating_sub(now),
            });
        }
        if event.is_some() {
            self.seed.voice.send_replace(event);
        }
    }

    /// Returns a random delay on top of a peer's duration, so that instances do not resume at once.
    pub(super) fn spread(&self) -> Duration {
        jitter::between(
            Duration::ZERO,
            self.seed.rules.open_for / 5,
            (self.seed.chance)(),
        )
    }
}

impl Handler<Hear> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Hear(event): Hear, ctx: &mut Context<Self>) {
        let now = self.seed.clock.now();
        let event = event.within_reason();
        let until = now
            .saturating_add(event.lasts())
            .saturating_add(self.spread());
        match event {
            News::Limited { .. } => self.hold_known = self.hold_known.max(until),
            News::Reset => {
                self.vitals.reason = None;
                self.vitals.check = None;
            }
            News::Tripped { .. } | News::Well => {}
        }
        let transition = event.apply(&mut self.breaker, until, now);
        self.after(transition, ctx);
    }
}

impl Handler<SpentElsewhere> for ProviderActor {
    type Result = ();

    fn handle(&mut self, SpentElsewhere(spend): SpentElsewhere, ctx: &mut Context<Self>) {
        // Never lower the spend of a day: a lost counter that starts again grants no second budget.
        if spend.day > self.vitals.spent_elsewhere.day
            || spend.usd > self.vitals.spent_elsewhere.usd
        {
            let was_spent = self.spent_until().is_some();
            self.vitals.spent_elsewhere = spend;
            if !was_spent && self.spent_until().is_some() {
                tracing::warn!(provider = %self.seed.name, "daily budget spent by all instances together");
            }
            self.after(None, ctx);
        }
    }
}

#[cfg(test)]
mod tests;
