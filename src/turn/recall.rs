//! A turn and the saved answers: one that will do is told instead of asking a provider, and what a provider answered is saved for the next.

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

/// What a turn has to do with saved answers. Nothing, by default.
#[derive(Default)]
pub(super) struct Recall {
    place: Option<Place>,
    /// Whether it may be answered by one.
    reads: bool,
    /// While others wait for this turn's answer.
    flight: Option<Flight>,
}

impl Recall {
    /// After the end: saves the answer, and only then lets go of the place among those who ask: whoever comes later finds one or the other.
    pub(super) async fn save(self, keeping: &Keeping, desk: &Desk, log: &TurnLog) {
        let shelf = &desk.shelf;
        let now = desk.clock.wall();
        match (keeping, &self.place) {
            (Keeping::Aside(_, renewal, _), _) => {
                shelf.keep_renewed(renewal, &log.record(), now).await
            }
            (_, Some(place)) => shelf.keep(place, &log.record(), now).await,
            (_, None) => {}
        }
    }
}

/// A saved answer that will do, as far as the store tells in time.
async fn find(desk: &Desk, place: &Place, need: Need) -> Option<Found> {
    let found = desk.shelf.find(place, need, desk.clock.wall());
    tokio::time::timeout(desk.patience(READ_LIMIT), found)
        .await
        .ok()?
}

impl Turn<'_> {
    /// The end by a saved answer that is fresh, or by what another is being told just now, where there is one and it may be told.
    pub(super) async fn recall(&mut self, keeping: &Keeping, asked: &Asked) -> Option<End> {
        let Keeping::In(room) = keeping else {
            return None;
        };
        let (desk, wishes) = (self.desk, self.wishes);
        let shelf = &desk.shelf;
        if wishes.cache == CacheUse::Off {
            return None;
        }
        let record = self.writer.log().record();
        let asker = Asker {
            conversation: room.id(),
            anonymous: wishes.anonymous,
            first: asked.first && wishes.first.is_none(),
            alone: asked.alone && wishes.first.is_none(),
        };
        let place = shelf.place(&record.question, asker)?;
        self.recall.reads = record.retry_of.is_none();
        self.recall.place = Some(place.clone());
        // Who wants to hear a certain provider, or any, does not want what another said before.
        if !self.recall.reads || wishes.cache == CacheUse::Refresh || wishes.first.is_some() {
            return None;
        }
        if let Some(found) = find(desk, &place, Need::Fresh).await {
            if found.renew {
                desk.renew(asked.ask.clone(), shelf.renewal(&found));
            }
            desk.tally.recalled(Recalled::Hit);
            return Some(self.tell(Source::Cache, &found.answer.text, found.old));
        }
        let told = match shelf
            .common(&place)
            .map(|key| desk.flights.join(key, self.writer.log()))
        {
            Some(Joined::Lead(flight)) => {
                self.recall.flight = Some(flight);
                None
            }
            Some(Joined::Follow(leader)) => self.follow(&leader, &place).await,
            None => None,
        };
        let joined = matches!(told, Some(End::Without { .. }));
        desk.tally.recalled(if joined {
            Recalled::Joined
        } else {
            Recalled::Miss
        });
        told
    }

    /// Waits for another turn's answer. None where that will not do: it goes its own way then.
    async fn follow(&mut self, leader: &TurnLog, place: &Place) -> Option<End> {
        let log = Arc::clone(self.writer.log());
        let mut changes = leader.changes();
        // More than one attempt, and it may not be told to others.
        while !leader.ended() && leader.attempts() <= 1 {
            tokio::select! {
                why = log.cancelled(self.wishes.patience) => return Some(End::Cancelled(why)),
                changed = changes.changed() => changed.ok()?,
            }
        }
        let record = leader.record();
        let will_do = self.desk.shelf.is_tellable(place, &record);
        will_do.then(|| self.tell(Source::Cache, &record.text, Duration::ZERO))
    }

    /// The end by an old answer, where there is one and it may be told: nobody else can answer.
    pub(super) async fn recall_old(&mut self) -> Option<End> {
        let place = self.recall.place.as_ref().filter(|_| self.recall.reads)?;
        let Found { answer, old, .. } = find(self.desk, place, Need::Outage).await?;
        self.desk.tally.recalled(Recalled::Stale);
        Some(self.tell(Source::StaleCache, &answer.text, old))
    }

    fn tell(&mut self, source: Source, text: &str, old: Duration) -> End {
        self.writer.replace(source, text);
        self.progress
            .first_text
            .get_or_insert(self.progress.begun.elapsed());
        End::Without {
            source,
            age_s: Some(old.as_secs()),
        }
    }
}
