//! Accounting of usage, cost and quality, and what the actor saves in the store.
//!
//! Saving runs in the background. If the store fails, only the saved copy is lost.

use std::sync::Arc;

use super::ProviderActor;
use crate::chat::{Fault, ProviderState, Usage};
use crate::provider::spending;
use crate::store::{BreakerRecord, SpentRecord};

/// The weight of a new score in the moving average of the quality: about twenty answers count.
const NEWEST: f64 = 0.05;

impl ProviderActor {
    pub(super) fn spend(&mut self, usage: Usage) {
        let used = &mut self.vitals.used;
        used.input_tokens = used.input_tokens.saturating_add(usage.input_tokens);
        used.output_tokens = used.output_tokens.saturating_add(usage.output_tokens);
        used.estimated |= usage.estimated;
        let Some(prices) = self.seed.terms.prices else {
            return;
        };
        let usd = spending::cost(prices, usage);
        used.cost_usd += usd;
        let wall = self.seed.clock.wall();
        let budget = self.seed.terms.daily_budget_usd;
        self.vitals.spent.add(usd, usage.estimated, wall);
        if budget.is_none() || usd <= 0.0 {
            return;
        }
        // Log once, when the budget becomes spent.
        if self.vitals.budget_until.is_none_or(|until| until <= wall)
            && self.vitals.spent.until(budget, wall).is_some()
        {
            tracing::warn!(provider = %self.seed.name, "daily budget spent, provider skipped until midnight UTC");
        }
        self.keep_spent();
    }

    pub(super) fn score(&mut self, score: f64) {
        let quality = self.vitals.quality.get_or_insert(score);
        *quality += (score - *quality) * NEWEST;
    }

    fn keep_spent(&self) {
        let spent = self.vitals.spent;
        let record = SpentRecord {
            provider: self.seed.name.to_string(),
            day: spent.day,
            usd: spent.usd,
            estimated: spent.estimated,
        };
        let store = Arc::clone(&self.seed.store);
        let name = Arc::clone(&self.seed.name);
        actix::spawn(async move {
            if let Err(error) = store.write_spent(record).await {
                tracing::warn!(provider = %name, %error, "failed to save daily spend");
            }
        });
    }

    /// Deletes the saved breaker state of a removed or replaced provider.
    pub(super) fn keep_nothing(&self) {
        self.write_breaker(None);
    }

    /// Saves the breaker's state. A state other than closed that may be the effect of an outage
    /// drill is not saved, because a restart ends the drill.
    pub(super) fn keep(&self) {
        if self.retired {
            return;
        }
        let state = self.vitals.state;
        if state != ProviderState::Closed && self.seed.drills.shadows() {
            return;
        }
        let record = (state != ProviderState::Closed).then(|| BreakerRecord {
            provider: self.seed.name.to_string(),
            blocked: state == ProviderState::Blocked,
            strikes: self.vitals.strikes,
            until: self
                .vitals
                .retry_at
                .unwrap_or_else(|| self.seed.clock.wall()),
            reason: self.vitals.reason.map_or("", Fault::reason).to_owned(),
            fault: self.vitals.reason,
        });
        self.write_breaker(record);
    }

    fn write_breaker(&self, record: Option<BreakerRecord>) {
        let store = Arc::clone(&self.seed.store);
        let name = Arc::clone(&self.seed.name);
        actix::spawn(async move {
            if let Err(error) = store.write_breaker(name.to_string(), record).await {
                tracing::warn!(provider = %name, %error, "failed to save breaker state");
            }
        });
    }
}

#[cfg(test)]
mod tests;
