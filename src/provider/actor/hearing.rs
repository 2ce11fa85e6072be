//! What the actor hears from other instances, and what it says to them.

use std::time::Duration;

use actix::{Context, Handler, Message};

use super::ProviderActor;
use crate::chat::ProviderState;
use crate::provider::breaker::{Transition, View};
use crate::provider::jitter;
use crate::provider::news::News;
use crate::provider::spending::Spent;

/// A hold that grows by less is not told again: calls that were under way when it began add a moment each.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Another instance's news of this provider.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Hear(pub News);

/// What the day cost so far by the calls of other instances.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SpentElsewhere(pub Spent);

impl ProviderActor {
    /// Says what others should know: a change of the breaker's, or a rate limit that this instance ran into. An outage drill is this instance's
    /// alone: what it opens, and closes again, is no news of the provider.
    pub(super) fn tell(&mut self, transition: Option<&Transition>, view: &View, now: Duration) {
        if self.seed.drills.shadows() {
            return;
        }
        let mut news = transition.and_then(|change| News::of(change, view.strikes, now));
        let hold = view
            .retry_at
            .filter(|_| view.state == ProviderState::Closed);
        if let Some(until) =
            hold.filter(|until| *until > self.hold_known.saturating_add(WORTH_TELLING))
        {
            self.hold_known = until;
            news = Some(News::Limited {
                lasts: until.saturating_sub(now),
            });
        }
        if news.is_some() {
            self.seed.voice.send_replace(news);
        }
    }

    /// A moment later than that of the one who told, so that not everyone it told comes back at once.
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

    fn handle(&mut self, Hear(news): Hear, ctx: &mut Context<Self>) {
        let now = self.seed.clock.now();
        let news = news.within_reason();
        let until = now
            .saturating_add(news.lasts())
            .saturating_add(self.spread());
        match news {
            News::Limited { .. } => self.hold_known = self.hold_known.max(until),
            News::Reset => {
                self.vitals.reason = None;
                self.vitals.check = None;
            }
            News::Tripped { .. } | News::Well => {}
        }
        let transition = news.apply(&mut self.breaker, until, now);
        self.after(transition, ctx);
    }
}

impl Handler<SpentElsewhere> for ProviderActor {
    type Result = ();

    fn handle(&mut self, SpentElsewhere(spent): SpentElsewhere, ctx: &mut Context<Self>) {
        // What was known of this day stays known: a counter that was lost, and begins anew, gives no second budget.
        if spent.day > self.vitals.spent_elsewhere.day
            || spent.usd > self.vitals.spent_elsewhere.usd
        {
            let before = self.spent_until();
            self.vitals.spent_elsewhere = spent;
            if before.is_none() && self.spent_until().is_some() {
                tracing::warn!(provider = %self.seed.name, "the day's budget is spent, by all instances together");
            }
            self.after(None, ctx);
        }
    }
}

#[cfg(test)]
mod tests;
