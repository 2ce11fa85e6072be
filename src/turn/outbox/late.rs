//! Answers one follow-up: asks like a turn does, saves the answer with the turn that it belongs to,
//! and sends it to the conversation's sessions.

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

/// The number of recent turns that are searched for a retry of the question.
const LOOKED_THROUGH: usize = 100;

/// The time until an abandoned follow-up turn ends. Short, because nobody reads it before its end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for a follow-up if it is still wanted, and saves and publishes it.
pub(super) async fn answer(service: &Arc<Desk>, followup: Waiting) -> Came {
    let record = match wanted(service, followup).await {
        Ok(Some(record)) => record,
        Ok(None) => return Came::Unwanted,
        Err(_) => return Came::Held,
    };
    let conversation = service.rooms.enter(followup.conversation);
    let keep::Asked { ask, .. } = keep::asked(service, &conversation, &record).await;
    let load = Load::of_last(&ask, 1);
    let can_answer =
        |provider: &Arc<Backend>| load.fits(provider.context_tokens) && is_well(service, provider);
    if !service.table().backends.iter().any(can_answer) {
        return Came::Passed;
    }
    let wishes = Wishes {
        patience: PATIENCE,
        // Nobody watches the text arrive, so a break in mid-answer costs nothing to start over.
        mid_stream: MidStream::Restart,
        degraded: false,
        late: true,
        ..service.usual()
    };
    if let Some(sharing) = &service.sharing
        && !sharing.claim_late(followup.turn).await
    {
        return Came::Passed;
    }
    let Ok(log) = service.open_unkept(ask, wishes) else {
        return Came::Held;
    };
    let turn = UnderWay {
        _follower: log.follow(),
        log,
    };
    let answered = turn.ended().await;
    let (true, Some(provider), Some(model)) =
        (is_whole(&answered), &answered.provider, &answered.model)
    else {
        return turn.failed(&answered);
    };
    // Check again: the visitor may have retried or deleted the conversation in the meantime.
    if matches!(wanted(service, followup).await, Ok(None)) {
        return Came::Unwanted;
    }
    let late = Followup {
        provider: Arc::clone(provider),
        model: Arc::clone(model),
        text: answered.text,
        at: service.clock.wall(),
    };
    let saved = service
        .store
        .amend(
            followup.conversation,
            followup.turn,
            Amendment::Followup(late.clone()),
        )
        .await;
    if saved.is_err() {
        tracing::warn!(turn = %followup.turn, "failed to save follow-up in time");
    }
    tracing::info!(turn = %followup.turn, provider = %late.provider, "follow-up answered");
    if let Some(sharing) = &service.sharing {
        sharing
            .tell_late(followup.conversation, followup.turn, late.clone())
            .await;
    }
    conversation.follow_up(followup.turn, late);
    Came::Answered
}

/// Returns `true` if a follow-up may be sent to this provider.
///
/// An open breaker counts once its open time is over: a follow-up is a better probe than a
/// visitor's turn.
pub(super) fn is_well(service: &Desk, provider: &Backend) -> bool {
    let status = provider.vitals.borrow();
    let now = service.clock.wall();
    match status.state {
        ProviderState::Closed => status.can_be_asked(now),
        ProviderState::Open | ProviderState::Blocked => {
            status.waits_until().is_some_and(|at| at <= now)
        }
        ProviderState::HalfOpen | ProviderState::Disabled => false,
    }
}

/// Returns the turn if a follow-up to it is still wanted.
async fn wanted(service: &Desk, followup: Waiting) -> Result<Option<TurnRecord>, StoreError> {
    let Some(record) = service
        .store
        .turn(followup.conversation, followup.turn)
        .await?
    else {
        return Ok(None);
    };
    let mut later = service
        .store
        .turns(followup.conversation, None, LOOKED_THROUGH)
        .await?;
    // A turn that just started may not be in the store yet.
    let conversation = service.rooms.find(followup.conversation);
    later.extend(
        conversation
            .iter()
            .flat_map(|conversation| conversation.logs())
            .map(|log| log.record()),
    );
    Ok(is_wanted(&record, &later, service.clock.wall()).then_some(record))
}

/// The turn that produces a follow-up. It belongs to no conversation. Dropping it cancels it.
struct UnderWay {
    log: Arc<TurnLog>,
    _follower: Follower,
}

impl UnderWay {
    async fn ended(&self) -> TurnRecord {
        let mut changes = self.log.changes();
        while !self.log.ended() && changes.changed().await.is_ok() {}
        self.log.record()
    }

    /// Maps an end without a complete answer to an outcome.
    fn failed(&self, answered: &TurnRecord) -> Came {
        let is_caller_fault = |failure: &Failure| failure.fault.class().is_the_requests();
        match self.log.last_failure() {
            _ if answered.finish == Some(Finish::ContentFilter) => Came::Unwanted,
            Some(failure) if is_caller_fault(&failure) => Came::Unwanted,
            Some(_) => Came::Failed,
            // No provider was called.
            None => Came::Held,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.log.cancel(Cancel::Interrupted);
    }
}
