//! Answers one follow-up: asks like a turn does, saves the answer with the turn that it belongs to,
//! and sends it to the conversation's sessions.

use std::sync::Arc;
use std::time::Duration;

use super::queue::{FollowupOutcome, PendingFollowup, is_complete_answer, is_still_wanted};
use crate::config::MidStream;
use crate::domain::{
    Failure, FinishReason, Followup, ProviderState, TokenEstimate, TurnRecord, TurnUpdate,
};
use crate::provider::handle::Provider;
use crate::store::StoreError;
use crate::store::redis::turn_streams::TurnMessage;
use crate::turn::deps::{TurnDeps, TurnOptions};
use crate::turn::log::{Cancel, Follower, TurnLog};
use crate::turn::persistence;
use crate::turn::service::TurnService;

/// The number of recent turns that are searched for a retry of the question.
const MAX_LATER_TURNS: usize = 100;

/// The time until an abandoned follow-up turn ends. Short, because nobody reads it before its end.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);

/// Asks for a follow-up if it is still wanted, and saves and publishes it.
pub(super) async fn answer_pending(
    service: &Arc<TurnService>,
    followup: PendingFollowup,
) -> FollowupOutcome {
    let record = match load_if_wanted(service, followup).await {
        Ok(Some(record)) => record,
        Ok(None) => return FollowupOutcome::Obsolete,
        Err(_) => return FollowupOutcome::Deferred,
    };
    let conversation = service.conversations.get_or_create(followup.conversation);
    let persistence::PreparedRequest { request: ask, .. } =
        persistence::prepare_request(service, &conversation, &record).await;
    let load = TokenEstimate::for_last_messages(&ask, 1);
    let can_answer = |provider: &Arc<Provider>| {
        load.fits(provider.context_tokens) && can_serve(service, provider)
    };
    if !service.config().providers.iter().any(can_answer) {
        return FollowupOutcome::Skipped;
    }
    let wishes = TurnOptions {
        orphan_grace: ORPHAN_GRACE,
        // Nobody watches the text arrive, so a break in mid-answer costs nothing to start over.
        mid_stream: MidStream::Restart,
        allow_fallback: false,
        is_background: true,
        ..service.default_options()
    };
    if let Some(sharing) = &service.replication
        && !sharing.streams.claim_followup(followup.turn).await
    {
        return FollowupOutcome::Skipped;
    }
    let Ok(log) = service.start_ephemeral_turn(ask, wishes) else {
        return FollowupOutcome::Deferred;
    };
    let turn = FollowupTurn {
        _follower: log.follow(),
        log,
    };
    let answered = turn.wait_finished().await;
    let (true, Some(provider), Some(model)) = (
        is_complete_answer(&answered),
        &answered.provider,
        &answered.model,
    ) else {
        return turn.failure_outcome(&answered);
    };
    // Check again: the visitor may have retried or deleted the conversation in the meantime.
    if matches!(load_if_wanted(service, followup).await, Ok(None)) {
        return FollowupOutcome::Obsolete;
    }
    let late = Followup {
        provider: Arc::clone(provider),
        model: Arc::clone(model),
        text: answered.text,
        at: service.clock.wall(),
    };
    let saved = service
        .store
        .update_turn(
            followup.conversation,
            followup.turn,
            TurnUpdate::Followup(late.clone()),
        )
        .await;
    if saved.is_err() {
        tracing::warn!(turn = %followup.turn, "failed to save follow-up in time");
    }
    tracing::info!(turn = %followup.turn, provider = %late.provider, "follow-up answered");
    if let Some(sharing) = &service.replication {
        let message =
            TurnMessage::FollowupReady(followup.conversation, followup.turn, late.clone());
        sharing.streams.publish(&message).await;
    }
    conversation.publish_followup(followup.turn, late);
    FollowupOutcome::Answered
}

/// Returns `true` if a follow-up may be sent to this provider.
///
/// An open breaker counts once its open time is over: a follow-up is a better probe than a
/// visitor's turn.
pub(super) fn can_serve(deps: &TurnDeps, provider: &Provider) -> bool {
    let status = provider.status.borrow();
    let now = deps.clock.wall();
    match status.state {
        ProviderState::Closed => status.is_available(now),
        ProviderState::Open | ProviderState::Blocked => {
            status.unavailable_until().is_some_and(|at| at <= now)
        }
        ProviderState::HalfOpen | ProviderState::Disabled => false,
    }
}

/// Returns the turn if a follow-up to it is still wanted.
async fn load_if_wanted(
    service: &TurnService,
    followup: PendingFollowup,
) -> Result<Option<TurnRecord>, StoreError> {
    let Some(record) = service
        .store
        .turn(followup.conversation, followup.turn)
        .await?
    else {
        return Ok(None);
    };
    let mut later = service
        .store
        .turns(followup.conversation, None, MAX_LATER_TURNS)
        .await?;
    // A turn that just started may not be in the store yet.
    let conversation = service.conversations.get(followup.conversation);
    later.extend(
        conversation
            .iter()
            .flat_map(|conversation| conversation.logs())
            .map(|log| log.record()),
    );
    Ok(is_still_wanted(&record, &later, service.clock.wall()).then_some(record))
}

/// The turn that produces a follow-up. It belongs to no conversation. Dropping it cancels it.
struct FollowupTurn {
    log: Arc<TurnLog>,
    _follower: Follower,
}

impl FollowupTurn {
    async fn wait_finished(&self) -> TurnRecord {
        let mut changes = self.log.changes();
        while !self.log.is_finished() && changes.changed().await.is_ok() {}
        self.log.record()
    }

    /// Maps an end without a complete answer to an outcome.
    fn failure_outcome(&self, answered: &TurnRecord) -> FollowupOutcome {
        let is_caller_fault = |failure: &Failure| failure.fault.recovery().is_caller_fault();
        match self.log.last_failure() {
            _ if answered.finish == Some(FinishReason::ContentFilter) => FollowupOutcome::Obsolete,
            Some(failure) if is_caller_fault(&failure) => FollowupOutcome::Obsolete,
            Some(_) => FollowupOutcome::Failed,
            // No provider was called.
            None => FollowupOutcome::Deferred,
        }
    }
}

impl Drop for FollowupTurn {
    fn drop(&mut self) {
        self.log.cancel(Cancel::Interrupted);
    }
}
