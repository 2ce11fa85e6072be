//! Reconfiguration and removal of a provider by a reload.

use actix::{ActorContext as _, Context, Handler, Message};

use super::{ProviderActor, ProviderParts};

/// Replaces the parts. The status, the concurrency limit, the clock and the store stay the actor's
/// own.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure {
    pub parts: ProviderParts,
    /// The provider has another key, address or model, so nothing that was learned still holds: the
    /// breaker closes, and the next turn calls it. Otherwise the breaker keeps its state.
    pub discards_state: bool,
}

/// Stops taking calls, and stops the actor after its last running call. It is not rebuilt.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Retire;

impl Handler<Reconfigure> for ProviderActor {
    type Result = ();

    fn handle(&mut self, message: Reconfigure, ctx: &mut Self::Context) {
        self.parts = message.parts;
        self.breaker.set_config(self.parts.breaker_config.clone());
        if message.discards_state {
            self.first_token_latency = Default::default();
            self.total_latency = Default::default();
            self.status.quality_avg = None;
            self.published_hold_until = self.parts.clock.now();
            // Not published: other instances may still use the old key or address.
            if self.reset_state().is_some() {
                self.delete_saved_breaker();
            }
        }
        self.after_change(None, ctx);
        self.schedule_health_check(ctx);
    }
}

impl Handler<Retire> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.is_retired = true;
        self.delete_saved_breaker();
        self.after_change(None, ctx);
    }
}

impl ProviderActor {
    /// Stops a retired actor after its last outcome. Each permit reports exactly one.
    pub(super) fn stop_if_idle(&self, ctx: &mut Context<Self>) {
        if self.is_retired && self.open_permits == 0 && self.parts.concurrency.in_use() == 0 {
            tracing::info!(provider = %self.parts.name, "removed provider stopped");
            ctx.stop();
        }
    }
}
