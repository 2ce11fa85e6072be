//! Answers turns from the cache, and stores the answers of providers in it.

use std::sync::Arc;
use std::time::Duration;

use super::log::TurnLog;
use super::metrics::CacheOutcome;
use super::persistence::{Persistence, PreparedRequest};
use super::runner::TurnRunner;
use super::service::TurnService;
use super::single_flight::{FlightGuard, FlightRole};
use super::summary::TurnEnd;
use crate::answer_cache::policy::CacheMode;
use crate::answer_cache::{AcceptedAge, CACHE_READ_TIMEOUT, CacheHit, CacheSlot, QuestionContext};
use crate::domain::AnswerSource;

/// A turn's use of the answer cache. By default it uses none.
#[derive(Default)]
pub(super) struct CacheLookup {
    /// `None` if this question may not be cached.
    slot: Option<CacheSlot>,
    /// `false` for a retry: the visitor did not like the answer.
    may_read: bool,
    /// Held while other turns wait for this one's answer.
    flight: Option<FlightGuard>,
}

impl CacheLookup {
    /// Stores the answer after the end of the turn.
    ///
    /// The flight is released last: a later turn finds either the flight or the cached answer.
    pub(super) async fn store_answer(
        self,
        persistence: &Persistence,
        service: &TurnService,
        log: &TurnLog,
    ) {
        let cache = &service.answer_cache;
        let now = service.clock.wall();
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
async fn lookup(service: &TurnService, slot: &CacheSlot, need: AcceptedAge) -> Option<CacheHit> {
    let lookup = service.answer_cache.get(slot, need, service.clock.wall());
    tokio::time::timeout(service.store_timeout(CACHE_READ_TIMEOUT), lookup)
        .await
        .ok()?
}

impl TurnRunner<'_> {
    /// Ends the turn with a fresh cached answer, or with that of another turn that is asking the
    /// same question right now. `None` if the turn has to ask a provider itself.
    pub(super) async fn lookup_fresh(
        &mut self,
        persistence: &Persistence,
        prepared: &PreparedRequest,
    ) -> Option<TurnEnd> {
        let Persistence::Conversation(conversation) = persistence else {
            return None;
        };
        let service = self.service;
        let options = self.options;
        let cache = &service.answer_cache;
        if options.cache_mode == CacheMode::Off {
            return None;
        }
        let record = self.writer.log().record();
        let asker = QuestionContext {
            conversation: conversation.id(),
            is_anonymous: options.is_anonymous,
            is_first_message: prepared.is_first_message && options.preferred_provider.is_none(),
            is_context_free: prepared.is_standalone && options.preferred_provider.is_none(),
        };
        let slot = cache.slot(&record.question, asker)?;
        self.cache_lookup.may_read = record.retry_of.is_none();
        self.cache_lookup.slot = Some(slot.clone());
        // A caller that names a provider, or wants a fresh answer, gets no earlier one.
        if !self.cache_lookup.may_read
            || options.cache_mode == CacheMode::Refresh
            || options.preferred_provider.is_some()
        {
            return None;
        }
        if let Some(hit) = lookup(service, &slot, AcceptedAge::FreshOnly).await {
            if hit.needs_refresh {
                service.refresh_cached_answer(prepared.request.clone(), cache.refresh_job(&hit));
            }
            service.metrics.record_cache_lookup(CacheOutcome::Hit);
            return Some(self.serve(AnswerSource::Cache, &hit.answer.text, hit.age));
        }
        // Only questions that other conversations may share have a common key.
        let role = cache
            .single_flight_key(&slot)
            .map(|key| service.single_flight.join(key, self.writer.log()));
        let end = match role {
            Some(FlightRole::Leader(flight)) => {
                self.cache_lookup.flight = Some(flight);
                None
            }
            Some(FlightRole::Follower(leader)) => self.await_leader(&leader, &slot).await,
            None => None,
        };
        let has_joined = matches!(end, Some(TurnEnd::WithoutProvider { .. }));
        service.metrics.record_cache_lookup(if has_joined {
            CacheOutcome::Joined
        } else {
            CacheOutcome::Miss
        });
        end
    }

    /// Waits for another turn's answer. `None` if it may not be served to this conversation.
    async fn await_leader(&mut self, leader: &TurnLog, slot: &CacheSlot) -> Option<TurnEnd> {
        let log = Arc::clone(self.writer.log());
        let mut changes = leader.changes();
        // Stop waiting at the second attempt: only answers of a single attempt are shared.
        while !leader.is_finished() && leader.attempts() <= 1 {
            tokio::select! {
                cancel = log.cancelled(self.options.orphan_grace) => return Some(TurnEnd::Cancelled(cancel)),
                changed = changes.changed() => changed.ok()?,
            }
        }
        let record = leader.record();
        let may_serve = self.service.answer_cache.is_shareable(slot, &record);
        may_serve.then(|| self.serve(AnswerSource::Cache, &record.text, Duration::ZERO))
    }

    /// Ends the turn with an expired cached answer. `None` if there is none that may be served.
    pub(super) async fn lookup_stale(&mut self) -> Option<TurnEnd> {
        let slot = self
            .cache_lookup
            .slot
            .as_ref()
            .filter(|_| self.cache_lookup.may_read)?;
        let hit = lookup(self.service, slot, AcceptedAge::StaleAllowed).await?;
        self.service
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
