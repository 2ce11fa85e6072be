//! Answers turns from the cache, and stores the answers of providers in it.

use std::time::Duration;

use super::deps::TurnDeps;
use super::log::{Cancel, TurnLog};
use super::metrics::CacheOutcome;
use super::persistence::{Persistence, PreparedRequest};
use super::running_turn::{CacheLookup, RunningTurn};
use super::single_flight::FlightRole;
use super::summary::TurnEnd;
use crate::answer_cache::policy::CacheMode;
use crate::answer_cache::{AcceptedAge, CACHE_READ_TIMEOUT, CacheHit, CacheSlot, QuestionContext};
use crate::domain::AnswerSource;

impl CacheLookup {
    /// Stores the answer after the end of the turn.
    ///
    /// The flight is released last: a later turn finds either the flight or the cached answer.
    pub(super) async fn store_answer(
        self,
        persistence: &Persistence,
        deps: &TurnDeps,
        log: &TurnLog,
    ) {
        let cache = &deps.answer_cache;
        let now = deps.clock.wall();
        match (persistence, &self.slot) {
            (Persistence::CacheRefresh(_, renewal, _), _) => {
                cache.put_refreshed(renewal, &log.record(), now).await
            }
            (_, Some(slot)) => cache.put(slot, &log.record(), now).await,
            (_, None) => {}
        }
    }
}

/// Looks up a cached answer. `None` also if the store does not answer in time.
async fn lookup(deps: &TurnDeps, slot: &CacheSlot, need: AcceptedAge) -> Option<CacheHit> {
    let lookup = deps.answer_cache.get(slot, need, deps.clock.wall());
    tokio::time::timeout(deps.store_timeout(CACHE_READ_TIMEOUT), lookup)
        .await
        .ok()?
}

impl RunningTurn<'_> {
    /// Ends the turn with a fresh cached answer, or with that of another turn that is asking the
    /// same question right now. `None` if the turn has to ask a provider itself.
    ///
    /// # Errors
    /// The turn was cancelled while it waited.
    pub(super) async fn lookup_fresh(
        &mut self,
        persistence: &Persistence,
        prepared: &PreparedRequest,
    ) -> Result<Option<TurnEnd>, Cancel> {
        let Persistence::Conversation(conversation) = persistence else {
            return Ok(None);
        };
        let deps = self.deps;
        let options = &self.options;
        let cache = &deps.answer_cache;
        if options.cache_mode == CacheMode::Off {
            return Ok(None);
        }
        let record = self.writer.log().record();
        let asker = QuestionContext {
            conversation: conversation.id(),
            is_anonymous: options.is_anonymous,
            is_first_message: prepared.is_first_message && options.preferred_provider.is_none(),
            is_context_free: prepared.is_standalone && options.preferred_provider.is_none(),
        };
        let Some(slot) = cache.slot(&record.question, asker) else {
            return Ok(None);
        };
        self.cache_lookup.may_read = record.retry_of.is_none();
        self.cache_lookup.slot = Some(slot.clone());
        // A caller that names a provider, or wants a fresh answer, gets no earlier one.
        if !self.cache_lookup.may_read
            || options.cache_mode == CacheMode::Refresh
            || options.preferred_provider.is_some()
        {
            return Ok(None);
        }
        if let Some(hit) = lookup(deps, &slot, AcceptedAge::FreshOnly).await {
            if hit.needs_refresh {
                (self.start_refresh)(prepared.request.clone(), cache.refresh_job(&hit));
            }
            deps.observer.metrics.record_cache_lookup(CacheOutcome::Hit);
            let end = self.serve(AnswerSource::Cache, &hit.answer.text, hit.age);
            return Ok(Some(end));
        }
        // Only questions that other conversations may share have a common key.
        let role = cache
            .single_flight_key(&slot)
            .map(|key| deps.single_flight.join(key, self.writer.log()));
        let end = match role {
            Some(FlightRole::Leader(flight)) => {
                self.cache_lookup.flight = Some(flight);
                Ok(None)
            }
            Some(FlightRole::Follower(leader)) => self.await_leader(&leader, &slot).await,
            None => Ok(None),
        };
        deps.observer.metrics.record_cache_lookup(match end {
            Ok(Some(_)) => CacheOutcome::Joined,
            Ok(None) | Err(_) => CacheOutcome::Miss,
        });
        end
    }

    /// Waits for another turn's answer. `None` if it may not be served to this conversation.
    async fn await_leader(
        &mut self,
        leader: &TurnLog,
        slot: &CacheSlot,
    ) -> Result<Option<TurnEnd>, Cancel> {
        let mut changes = leader.changes();
        // Stop waiting at the second attempt: only answers of a single attempt are shared.
        while !leader.is_finished() && leader.attempts() <= 1 {
            if self.unless_cancelled(changes.changed()).await?.is_err() {
                return Ok(None);
            }
        }
        let record = leader.record();
        let may_serve = self.deps.answer_cache.is_shareable(slot, &record);
        Ok(may_serve.then(|| self.serve(AnswerSource::Cache, &record.text, Duration::ZERO)))
    }

    /// Ends the turn with an expired cached answer. `None` if there is none that may be served.
    pub(super) async fn lookup_stale(&mut self) -> Option<TurnEnd> {
        let slot = self
            .cache_lookup
            .slot
            .as_ref()
            .filter(|_| self.cache_lookup.may_read)?;
        let hit = lookup(self.deps, slot, AcceptedAge::StaleAllowed).await?;
        self.deps
            .observer
            .metrics
            .record_cache_lookup(CacheOutcome::Stale);
        Some(self.serve(AnswerSource::StaleCache, &hit.answer.text, hit.age))
    }

    fn serve(&mut self, source: AnswerSource, text: &str, age: Duration) -> TurnEnd {
        self.writer.replace_text(source, text);
        self.summary
            .first_text_after
            .get_or_insert(self.summary.started_at.elapsed());
        TurnEnd::WithoutProvider {
            source,
            age_s: Some(age.as_secs()),
        }
    }
}
