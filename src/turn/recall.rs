//! Answers turns from the cache, and stores the answers of providers in it.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::flights::{Flight, Joined};
use super::keep::{Asked, Keeping};
use super::log::TurnLog;
use super::progress::End;
use super::run::Turn;
use super::tally::Recalled;
use crate::chat::Source;
use crate::degradation::cache::CacheUse;
use crate::degradation::shelf::{Asker, Found, Need, Place, READ_LIMIT};

/// A turn's use of the answer cache. By default it uses none.
#[derive(Default)]
pub(super) struct Recall {
    /// `None` if this question may not be cached.
    place: Option<Place>,
    /// `false` for a retry: the visitor did not like the answer.
    reads: bool,
    /// Held while other turns wait for this one's answer.
    flight: Option<Flight>,
}

impl Recall {
    /// Stores the answer after the end of the turn.
    ///
    /// The flight is released last: a later turn finds either the flight or the cached answer.
    pub(super) async fn save(self, persistence: &Keeping, service: &Desk, log: &TurnLog) {
        let cache = &service.shelf;
        let now = service.clock.wall();
        match (persistence, &self.place) {
            (Keeping::Aside(_, renewal, _), _) => {
                cache.keep_renewed(renewal, &log.record(), now).await
            }
            (_, Some(slot)) => cache.keep(slot, &log.record(), now).await,
            (_, None) => {}
        }
    }
}

/// Looks up a cached answer. `None` also if the store does not answer in time.
async fn find(service: &Desk, slot: &Place, need: Need) -> Option<Found> {
    let lookup = service.shelf.find(slot, need, service.clock.wall());
    tokio::time::timeout(service.patience(READ_LIMIT), lookup)
        .await
        .ok()?
}

impl Turn<'_> {
    /// Ends the turn with a fresh cached answer, or with that of another turn that is asking the
    /// same question right now. `None` if the turn has to ask a provider itself.
    pub(super) async fn recall(&mut self, persistence: &Keeping, prepared: &Asked) -> Option<End> {
        let Keeping::In(conversation) = persistence else {
            return None;
        };
        let service = self.desk;
        let options = self.wishes;
        let cache = &service.shelf;
        if options.cache == CacheUse::Off {
            return None;
        }
        let record = self.writer.log().record();
        let asker = Asker {
            conversation: conversation.id(),
            anonymous: options.anonymous,
            first: prepared.first && options.first.is_none(),
            alone: prepared.alone && options.first.is_none(),
        };
        let slot = cache.place(&record.question, asker)?;
        self.recall.reads = record.retry_of.is_none();
        self.recall.place = Some(slot.clone());
        // A caller that names a provider, or wants a fresh answer, gets no earlier one.
        if !self.recall.reads || options.cache == CacheUse::Refresh || options.first.is_some() {
            return None;
        }
        if let Some(hit) = find(service, &slot, Need::Fresh).await {
            if hit.renew {
                service.renew(prepared.ask.clone(), cache.renewal(&hit));
            }
            service.tally.recalled(Recalled::Hit);
            return Some(self.tell(Source::Cache, &hit.answer.text, hit.old));
        }
        // Only questions that other conversations may share have a common key.
        let role = cache
            .common(&slot)
            .map(|key| service.flights.join(key, self.writer.log()));
        let end = match role {
            Some(Joined::Lead(flight)) => {
                self.recall.flight = Some(flight);
                None
            }
            Some(Joined::Follow(leader)) => self.follow(&leader, &slot).await,
            None => None,
        };
        let has_joined = matches!(end, Some(End::Without { .. }));
        service.tally.recalled(if has_joined {
            Recalled::Joined
        } else {
            Recalled::Miss
        });
        end
    }

    /// Waits for another turn's answer. `None` if it may not be served to this conversation.
    async fn follow(&mut self, leader: &TurnLog, slot: &Place) -> Option<End> {
        let log = Arc::clone(self.writer.log());
        let mut changes = leader.changes();
        // Stop waiting at the second attempt: only answers of a single attempt are shared.
        while !leader.ended() && leader.attempts() <= 1 {
            tokio::select! {
                cancel = log.cancelled(self.wishes.patience) => return Some(End::Cancelled(cancel)),
                changed = changes.changed() => changed.ok()?,
            }
        }
        let record = leader.record();
        let may_serve = self.desk.shelf.is_tellable(slot, &record);
        may_serve.then(|| self.tell(Source::Cache, &record.text, Duration::ZERO))
    }

    /// Ends the turn with an expired cached answer. `None` if there is none that may be served.
    pub(super) async fn recall_old(&mut self) -> Option<End> {
        let slot = self.recall.place.as_ref().filter(|_| self.recall.reads)?;
        let hit = find(self.desk, slot, Need::Outage).await?;
        self.desk.tally.recalled(Recalled::Stale);
        Some(self.tell(Source::StaleCache, &hit.answer.text, hit.old))
    }

    fn tell(&mut self, source: Source, text: &str, age: Duration) -> End {
        self.writer.replace(source, text);
        self.progress
            .first_text
            .get_or_insert(self.progress.begun.elapsed());
        End::Without {
            source,
            age_s: Some(age.as_secs()),
        }
    }
}
