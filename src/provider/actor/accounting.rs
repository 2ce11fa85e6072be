//! Accounting of usage, cost and quality, and what the actor saves in the store.
//!
//! Saving runs in the background. If the store fails, only the saved copy is lost.

use std::sync::Arc;

use super::ProviderActor;
use crate::domain::{FaultKind, ProviderState, TokenUsage};
use crate::provider::cost;
use crate::store::{BreakerRecord, DailySpendRecord};

/// The weight of a new score in the moving average of the quality: about twenty answers count.
const QUALITY_EMA_WEIGHT: f64 = 0.05;

impl ProviderActor {
    pub(super) fn record_spend(&mut self, usage: TokenUsage) {
        let used = &mut self.status.usage_totals;
        used.input_tokens = used.input_tokens.saturating_add(usage.input_tokens);
        used.output_tokens = used.output_tokens.saturating_add(usage.output_tokens);
        used.estimated |= usage.estimated;
        let Some(prices) = self.parts.pricing.prices else {
            return;
        };
        let usd = cost::cost_usd(prices, usage);
        used.cost_usd += usd;
        let wall = self.parts.clock.wall();
        let budget = self.parts.pricing.daily_budget_usd;
        self.status.spend_today.add(usd, usage.estimated, wall);
        if budget.is_none() || usd <= 0.0 {
            return;
        }
        // Log once, when the budget becomes spent.
        if self
            .status
            .budget_resets_at
            .is_none_or(|until| until <= wall)
            && self.status.spend_today.resets_at(budget, wall).is_some()
        {
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
        let record = (state != ProviderState::Closed).then(|| BreakerRecord {
            provider: self.parts.name.to_string(),
            is_blocked: state == ProviderState::Blocked,
            failed_probes: self.status.failed_probes,
            retry_at: self
                .status
                .retry_at
                .unwrap_or_else(|| self.parts.clock.wall()),
            reason: self
                .status
                .last_fault
                .map_or("", FaultKind::wire_name)
                .to_owned(),
            fault: self.status.last_fault,
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
