//! What a reload makes of an actor: it goes by other settings, or it is not needed any more.

use actix::{ActorContext as _, Context, Handler, Message};

use super::{ProviderActor, Seed};

/// Go by this seed from now on. Its vitals, its places, its clock and its store are the actor's own still.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Change {
    /// What it is made of now.
    pub seed: Seed,
    /// Whether it is another provider than it was: another key, address or model. Then nothing of what was learned holds: its breaker is closed, and
    /// the next turn tries it. Else the breaker stays as it is, and only goes by other rules.
    pub anew: bool,
}

/// Take no more calls, and end when those that are under way have ended. Nobody rebuilds it then.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Retire;

impl Handler<Change> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Change { seed, anew }: Change, ctx: &mut Self::Context) {
        self.seed = seed;
        self.breaker.set_rules(self.seed.rules.clone());
        if anew {
            (self.first_tokens, self.totals, self.vitals.quality) = Default::default();
            self.hold_known = self.seed.clock.now();
            // Others are not told: they may still ask as this one did before.
            if self.forget().is_some() {
                self.keep_nothing();
            }
        }
        self.after(None, ctx);
        self.arm_check(ctx);
    }
}

impl Handler<Retire> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.retired = true;
        self.keep_nothing();
        self.after(None, ctx);
    }
}

impl ProviderActor {
    /// Ends a retired actor whose last call is settled: each permit tells its end once, whatever that is.
    pub(super) fn leave(&self, ctx: &mut Context<Self>) {
        if self.retired && self.unsettled == 0 && self.seed.places.taken() == 0 {
            tracing::info!(provider = %self.seed.name, "a provider that is not configured any more is gone");
            ctx.stop();
        }
    }
}
