//! One late answer: asked like any turn's, kept with the turn that it answers, told to everyone in the conversation.

use std::sync::Arc;
use std::time::Duration;

use super::line::{Came, Waiting, is_wanted, is_whole};
use crate::chat::{Amendment, Failure, Finish, Followup, Load, ProviderState, TurnRecord};
use crate::provider::backend::Backend;
use crate::settings::MidStream;
use crate::store::StoreError;
use crate::turn::desk::{Desk, Wishes};
use crate::turn::keep;
use crate::turn::log::{Cancel, Follower, TurnLog};

/// How many of a conversation's last turns are looked through for one that asks again.
const LOOKED_THROUGH: usize = 100;

/// Nobody reads a late answer before it is whole: once the outbox lets go, it may end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for it, where it is still wanted.
pub(super) async fn answer(desk: &Arc<Desk>, one: Waiting) -> Came {
    let record = match wanted(desk, one).await {
        Ok(Some(record)) => record,
        Ok(None) => return Came::Unwanted,
        Err(_) => return Came::Held,
    };
    let room = desk.rooms.enter(one.conversation);
    let keep::Asked { ask, .. } = keep::asked(desk, &room, &record).await;
    let load = Load::of_last(&ask, 1);
    let may = |backend: &Arc<Backend>| load.fits(backend.context_tokens) && is_well(desk, backend);
    if !desk.table().backends.iter().any(may) {
        return Came::Passed;
    }
    let usual = desk.usual();
    // Nobody sees where one failed in mid-answer, so the next one's is whole.
    let mid_stream = MidStream::Restart;
    let wishes = Wishes {
        patience: PATIENCE,
        mid_stream,
        degraded: false,
        late: true,
        ..usual
    };
    if let Some(sharing) = &desk.sharing
        && !sharing.claim_late(one.turn).await
    {
        return Came::Passed;
    }
    let Ok(log) = desk.open_unkept(ask, wishes) else {
        return Came::Held;
    };
    let under_way = UnderWay {
        _follower: log.follow(),
        log,
    };
    let said = under_way.ended().await;
    let (true, Some(provider), Some(model)) = (is_whole(&said), &said.provider, &said.model) else {
        return under_way.failed(&said);
    };
    // Asked again meanwhile, or forgotten: then it was asked for nothing.
    if matches!(wanted(desk, one).await, Ok(None)) {
        return Came::Unwanted;
    }
    let (provider, model) = (Arc::clone(provider), Arc::clone(model));
    let late = Followup {
        text: said.text,
        provider,
        model,
        at: desk.clock.wall(),
    };
    let kept = desk
        .store
        .amend(
            one.conversation,
            one.turn,
            Amendment::Followup(late.clone()),
        )
        .await;
    if kept.is_err() {
        tracing::warn!(turn = %one.turn, "a late answer was not saved in time");
    }
    tracing::info!(turn = %one.turn, provider = %late.provider, "answered late");
    if let Some(sharing) = &desk.sharing {
        sharing
            .tell_late(one.conversation, one.turn, late.clone())
            .await;
    }
    room.follow_up(one.turn, late);
    Came::Answered
}

/// Whether this one can be asked. An open breaker that tries nobody by itself counts when its time is over: better a late answer is what
/// it tries than a visitor's.
pub(super) fn is_well(desk: &Desk, backend: &Backend) -> bool {
    let vitals = backend.vitals.borrow();
    let now = desk.clock.wall();
    match vitals.state {
        ProviderState::Closed => vitals.can_be_asked(now),
        ProviderState::Open | ProviderState::Blocked => {
            vitals.waits_until().is_some_and(|at| at <= now)
        }
        ProviderState::HalfOpen | ProviderState::Disabled => false,
    }
}

/// The turn, where a late answer to it is wanted.
async fn wanted(desk: &Desk, one: Waiting) -> Result<Option<TurnRecord>, StoreError> {
    let Some(record) = desk.store.turn(one.conversation, one.turn).await? else {
        return Ok(None);
    };
    let mut later = desk
        .store
        .turns(one.conversation, None, LOOKED_THROUGH)
        .await?;
    // One that was opened just now may not be in the store yet.
    let room = desk.rooms.find(one.conversation);
    later.extend(
        room.iter()
            .flat_map(|room| room.logs())
            .map(|log| log.record()),
    );
    Ok(is_wanted(&record, &later, desk.clock.wall()).then_some(record))
}

/// The turn that asks, which nobody but the outbox knows. Dropped, it ends.
struct UnderWay {
    log: Arc<TurnLog>,
    _follower: Follower,
}

impl UnderWay {
    /// Waits for its end.
    async fn ended(&self) -> TurnRecord {
        let mut changes = self.log.changes();
        while !self.log.ended() && changes.changed().await.is_ok() {}
        self.log.record()
    }

    /// What an end without a whole answer comes to.
    fn failed(&self, said: &TurnRecord) -> Came {
        let requests = |last: &Failure| last.fault.class().is_the_requests();
        match self.log.last_failure() {
            _ if said.finish == Some(Finish::ContentFilter) => Came::Unwanted,
            Some(last) if requests(&last) => Came::Unwanted,
            Some(_) => Came::Failed,
            None => Came::Held,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.log.cancel(Cancel::Interrupted);
    }
}
