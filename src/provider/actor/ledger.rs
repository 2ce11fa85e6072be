//! What the actor writes down: what answers cost, and what the store is to remember of it and of the breaker.
//!
//! All of it beside everything else: a store that fails costs the memory of it, nothing more.

use std::sync::Arc;

use super::ProviderActor;
use crate::chat::{Fault, ProviderState, Usage};
use crate::provider::spending;
use crate::store::{BreakerRecord, SpentRecord};

/// Each new score moves the running quality by this share: about the last twenty answers count.
const NEWEST: f64 = 0.05;

impl ProviderActor {
    /// Counts what a call used.
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
        let (wall, budget) = (self.seed.clock.wall(), self.seed.terms.daily_budget_usd);
        self.vitals.spent.add(usd, usage.estimated, wall);
        if budget.is_none() || usd <= 0.0 {
            return;
        }
        if self.vitals.budget_until.is_none_or(|until| until <= wall)
            && self.vitals.spent.until(budget, wall).is_some()
        {
            tracing::warn!(provider = %self.seed.name, "the day's budget is spent; passed over until midnight UTC");
        }
        self.keep_spent();
    }

    /// Takes note of how good an answer looks.
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
        let (store, name) = (Arc::clone(&self.seed.store), Arc::clone(&self.seed.name));
        actix::spawn(async move {
            if let Err(error) = store.write_spent(record).await {
                tracing::warn!(provider = %name, %error, "the day's cost not kept");
            }
        });
    }

    /// Forgets the breaker's state: its provider is not configured any more.
    pub(super) fn keep_nothing(&self) {
        self.write_breaker(None);
    }

    /// Writes the breaker's state. What an outage drill opened must not be open after a restart, which ends the drill; that it closed may always be
    /// kept.
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
        let (store, name) = (Arc::clone(&self.seed.store), Arc::clone(&self.seed.name));
        actix::spawn(async move {
            if let Err(error) = store.write_breaker(name.to_string(), record).await {
                tracing::warn!(provider = %name, %error, "breaker state not kept");
            }
        });
    }
}

#[cfg(test)]
mod tests;
