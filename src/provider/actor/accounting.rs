//! The outcomes of calls: usage, cost and quality, and what the actor saves in the store.
//!
//! Saving runs in the background. If the store fails, only the saved copy is lost.

use std::sync::Arc;

use actix::Handler;

use super::ProviderActor;
use super::permit::{RecordFirstToken, RecordMinLatency, RecordOutcome};
use crate::domain::{FaultKind, ProviderState, TokenUsage};
use crate::provider::breaker::{CallOutcome, Ticket, Transition};
use crate::provider::cost;
use crate::store::{BreakerRecord, DailySpendRecord};

/// The weight of a new score in the moving average of the quality: about twenty answers count.
const QUALITY_EMA_WEIGHT: f64 = 0.05;

impl Handler<RecordFirstToken> for ProviderActor {
    type Result = ();

    fn handle(&mut self, message: RecordFirstToken, ctx: &mut Self::Context) {
        let RecordFirstToken { ticket, latency } = message;
        let now = self.parts.clock.now();
        self.first_token_latency.record(latency, now);
        let random = (self.parts.random_unit)();
        let transition = self
            .breaker
            .record_first_token(ticket, latency, now, random);
        // Published at once, because the `fastest` strategy may use it while this answer runs.
        self.after_change(transition, ctx);
    }
}

impl Handler<RecordMinLatency> for ProviderActor {
    type Result = ();

    fn handle(&mut self, RecordMinLatency { waited }: RecordMinLatency, ctx: &mut Self::Context) {
        // The real latency would have been longer. Without this sample, a provider that hangs would
        // keep the good percentiles of its earlier calls. The breaker does not count it.
        let now = self.parts.clock.now();
        self.first_token_latency.record(waited, now);
        self.after_change(None, ctx);
    }
}

impl Handler<RecordOutcome> for ProviderActor {
    type Result = ();

    fn handle(&mut self, message: RecordOutcome, ctx: &mut Self::Context) {
        let outcome = message.outcome;
        // Saturating, because a permit issued before a rebuild is not counted here.
        self.open_permits = self.open_permits.saturating_sub(1);
        let now = self.parts.clock.now();
        match outcome {
            CallOutcome::Success => {
                self.status.successes += 1;
                self.total_latency.record(message.elapsed, now);
                // A complete answer proves more than any check.
                if let Some(check) = &mut self.status.last_check {
                    check.fault = None;
                }
            }
            CallOutcome::Failed {
                fault, had_text, ..
            } => {
                self.status.failures += 1;
                self.status.broken_streams += u64::from(had_text);
                self.status.last_fault = Some(fault);
            }
            CallOutcome::Abandoned => {}
        }
        if outcome != CallOutcome::Abandoned {
            self.status.last_heard_at = Some(self.parts.clock.wall());
        }
        if let Some(usage) = message.stats.usage {
            self.record_spend(usage);
        }
        if let Some(score) = message.stats.quality {
            self.record_quality(score);
        }
        let transition = self.record_in_breaker(message.ticket, outcome);
        self.after_change(transition, ctx);
    }
}

impl ProviderActor {
    pub(super) fn record_in_breaker(
        &mut self,
        ticket: Ticket,
        outcome: CallOutcome,
    ) -> Option<Transition> {
        let now = self.parts.clock.now();
        let random = (self.parts.random_unit)();
        self.breaker.record_outcome(ticket, outcome, now, random)
    }

    pub(super) fn record_spend(&mut self, usage: TokenUsage) {
        let totals = &mut self.status.usage_totals;
        totals.input_tokens = totals.input_tokens.saturating_add(usage.input_tokens);
        totals.output_tokens = totals.output_tokens.saturating_add(usage.output_tokens);
        totals.estimated |= usage.estimated;
        let Some(prices) = self.parts.pricing.prices else {
            return;
        };
        let usd = cost::cost_usd(prices, usage);
        totals.cost_usd += usd;
        let wall = self.parts.clock.wall();
        let budget = self.parts.pricing.daily_budget_usd;
        self.status.spend_today.add(usd, usage.estimated, wall);
        if budget.is_none() || usd <= 0.0 {
            return;
        }
        // Log once, when the budget becomes spent.
        let was_spent = self.status.is_over_budget(wall);
        if !was_spent && self.status.spend_today.resets_at(budget, wall).is_some() {
            tracing::warn!(provider = %self.parts.name, "daily budget spent, provider skipped until midnight UTC");
        }
        self.save_spend();
    }

    pub(super) fn record_quality(&mut self, score: f64) {
        let quality = self.status.quality_avg.get_or_insert(score);
        *quality += (score - *quality) * QUALITY_EMA_WEIGHT;
    }

    fn save_spend(&self) {
        let spent = self.status.spend_today;
        let record = DailySpendRecord {
            provider: self.parts.name.to_string(),
            utc_day: spent.day,
            usd: spent.usd,
            is_estimated: spent.estimated,
        };
        let store = Arc::clone(&self.parts.store);
        let name = Arc::clone(&self.parts.name);
        actix::spawn(async move {
            if let Err(error) = store.save_daily_spend(record).await {
                tracing::warn!(provider = %name, %error, "failed to save daily spend");
            }
        });
    }

    /// Deletes the saved breaker state of a removed or replaced provider.
    pub(super) fn delete_saved_breaker(&self) {
        self.write_breaker_record(None);
    }

    /// Saves the breaker's state. A state other than closed that may be the effect of an outage
    /// drill is not saved, because a restart ends the drill.
    pub(super) fn save_breaker(&self) {
        if self.is_retired {
            return;
        }
        let state = self.status.state;
        if state != ProviderState::Closed && self.parts.fault_switch.affects_breaker() {
            return;
        }
        let fault = self.status.last_fault;
        let wall = self.parts.clock.wall();
        let record = (state != ProviderState::Closed).then(|| BreakerRecord {
            provider: self.parts.name.to_string(),
            is_blocked: state == ProviderState::Blocked,
            failed_probes: self.status.failed_probes,
            retry_at: self.status.retry_at.unwrap_or(wall),
            reason: fault.map_or("", FaultKind::wire_name).to_owned(),
            fault,
        });
        self.write_breaker_record(record);
    }

    fn write_breaker_record(&self, record: Option<BreakerRecord>) {
        let store = Arc::clone(&self.parts.store);
        let name = Arc::clone(&self.parts.name);
        actix::spawn(async move {
            if let Err(error) = store.write_breaker(name.to_string(), record).await {
                tracing::warn!(provider = %name, %error, "failed to save breaker state");
            }
        });
    }
}

#[cfg(test)]
mod tests;
