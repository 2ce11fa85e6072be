//! Reconfiguration and removal of a provider by a reload.

use actix::{ActorContext as _, Context, Handler, Message};

use super::{ProviderActor, Seed};

/// Replaces the parts. The status, the concurrency limit, the clock and the store stay the actor's
/// own.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Change {
    pub seed: Seed,
    /// The provider has another key, address or model, so nothing that was learned still holds: the
    /// breaker closes, and the next turn calls it. Otherwise the breaker keeps its state.
    pub anew: bool,
}

/// Stops taking calls, and stops the actor after its last running call. It is not rebuilt.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Retire;

impl Handler<Change> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Change { seed, anew }: Change, ctx: &mut Self::Context) {
        self.seed = seed;
        self.breaker.set_rules(self.seed.rules.clone());
        if anew {
            self.first_tokens = Default::default();
            self.totals = Default::default();
            self.vitals.quality = None;
            self.hold_known = self.seed.clock.now();
            // Not published: other instances may still use the old key or address.
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
    /// Stops a retired actor after its last outcome. Each permit reports exactly one.
    pub(super) fn leave(&self, ctx: &mut Context<Self>) {
        if self.retired && self.unsettled == 0 && self.seed.places.taken() == 0 {
            tracing::info!(provider = %self.seed.name, "removed provider stopped");
            ctx.stop();
        }
    }
}
