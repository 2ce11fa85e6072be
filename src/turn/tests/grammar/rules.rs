//! The guarantees of a turn that was played.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::super::*;
use super::cases::{Case, ProviderCase, TurnCase};
use super::play::JoinedVisit;
use super::text_rules::check_text;
use crate::domain::{AttemptSummary, ChatMessage, Done, Recovery};
use crate::provider::scripted_client::RecordedCall;
use crate::provider::status::ProviderStatus;
use crate::store::flaky::StoreFault;
use crate::turn::log::encode_frame;
use crate::turn::service::CHAT_ORPHAN_GRACE;

/// A turn that was played.
pub struct PlayedTurn {
    pub log: Arc<TurnLog>,
    pub reader: ProtocolClient,
    pub joined: Vec<JoinedVisit>,
    pub elapsed: Duration,
    pub started_at: Instant,
    pub stopped_at: Option<Instant>,
    pub calls_before: Vec<usize>,
    pub status_before: Vec<ProviderStatus>,
}

/// The time that store and actor timeouts may add to any other limit.
const SLACK: Duration = Duration::from_millis(800);

pub async fn check_turn(case: &Case, turn: &TurnCase, harness: &TestService, played: &PlayedTurn) {
    let done = played.reader.done();
    let record = played.log.record();
    // Through JSON, because it rounds the cost.
    let logged: Done = serde_json::from_str(&encode_frame(&record.done_frame(done.seq))).unwrap();
    assert_eq!(logged, *done, "the log has what it showed");
    if case.store_fault == StoreFault::None {
        assert_eq!(
            harness.stored_turn(&played.log).await,
            Some(record),
            "and so does the store"
        );
    }
    let calls = calls(harness, played, done);
    check_text(&played.reader, done, &calls);
    check_attempts(case, done, &calls);
    check_time(case, turn, played, done, &calls);
    check_joiners(played);
    harness.assert_idle().await;
    check_breakers(case, harness, played, done).await;
    if done.degraded {
        check_fallback_was_needed(case, turn, harness, played, done, &calls);
    }
}

/// Returns the calls of the attempts, in order. Each attempt made exactly one call.
fn calls(harness: &TestService, played: &PlayedTurn, done: &Done) -> Vec<RecordedCall> {
    let mut queues: BTreeMap<_, _> = BTreeMap::new();
    for (provider, before) in harness.providers.iter().zip(&played.calls_before) {
        let calls: Vec<_> = provider.client.calls().split_off(*before);
        queues.insert(Arc::clone(&provider.provider.name), calls.into_iter());
    }
    let calls: Vec<_> = done
        .tried
        .iter()
        .map(|attempt| queues.get_mut(&attempt.provider).unwrap().next().unwrap())
        .collect();
    assert!(
        queues.values_mut().all(|queue| queue.next().is_none()),
        "a call without an attempt"
    );
    assert!(calls.is_sorted_by_key(|call| call.started_at));
    calls
}

/// Returns the messages of a call without the partial answer to continue.
pub fn question_messages(call: &RecordedCall) -> &[ChatMessage] {
    let messages = &call.request.messages;
    let is_instructed = messages
        .last()
        .is_some_and(|last| last.text.starts_with("Your previous answer was cut off."));
    let count = messages.len()
        - if call.request.ends_with_prefill {
            1
        } else if is_instructed {
            2
        } else {
            0
        };
    &messages[..count]
}

/// No provider is asked more often, or sooner, than the rules allow.
fn check_attempts(case: &Case, done: &Done, calls: &[RecordedCall]) {
    assert!(done.attempts <= case.max_attempts);
    for (number, attempt) in (1..).zip(&done.tried) {
        assert_eq!(attempt.attempt, number);
    }
    // The history is halved at most once; otherwise every request is the same.
    let rounds: Vec<_> = calls
        .chunk_by(|call, next| question_messages(call) == question_messages(next))
        .map(<[RecordedCall]>::len)
        .collect();
    assert!(rounds.len() <= 2, "{rounds:?}");
    let attempts: Vec<_> = done.tried.iter().zip(calls).collect();
    // An attempt that lost a race does not count: its provider may be asked again.
    let lost_race = |attempt: &AttemptSummary| attempt.outcome.as_str() == "stopped";
    let (first, second) = attempts.split_at(rounds.first().copied().unwrap_or_default());
    assert!(
        second.is_empty()
            || first
                .iter()
                .any(|(_, call)| failed_by(call, Recovery::LargerContext))
    );
    for (attempt, call) in second {
        let before = first
            .iter()
            .filter(|(before, _)| before.provider == attempt.provider && !lost_race(before));
        assert!(
            before
                .into_iter()
                .all(|(_, before)| failed_by(before, Recovery::LargerContext)),
            "{call:?}"
        );
    }
    for round in [first, second] {
        let mut tries: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (attempt, call) in round.iter().filter(|(attempt, _)| !lost_race(attempt)) {
            tries
                .entry(&attempt.provider)
                .or_default()
                .push((attempt, call));
        }
        for (name, tries) in tries {
            // A continuation that does not fit is not the provider's fault: it may start over.
            let mismatches = u32::from(tries.iter().any(|(attempt, _)| is_mismatch(attempt)));
            let allowed = provider_case(case, name).same_provider.max(mismatches);
            assert!(
                tries.len() <= 1 + allowed as usize,
                "{name} was asked too often"
            );
            for pair in tries.windows(2) {
                let (attempt, call) = pair[0];
                let (next, next_call) = pair[1];
                // A hedge that failed before the attempt that it was to replace does not count: the
                // attempt's own provider failed last, so it may be retried.
                let other_between = attempts.iter().any(|(other, other_call)| {
                    (attempt.attempt + 1..next.attempt).contains(&other.attempt)
                        && !lost_race(other)
                        && ended_at(other, other_call) > ended_at(attempt, call)
                });
                assert!(!other_between, "{name} was asked after another provider");
                let is_quick = failed_by(call, Recovery::RetrySame)
                    && call.text.is_empty()
                    && attempt.ms <= 2_000;
                assert!(is_quick || is_mismatch(attempt), "{attempt:?}");
                let failure = call.failure.as_ref().filter(|_| !is_mismatch(attempt));
                let retry_after = failure.and_then(|failure| failure.retry_after);
                assert!(retry_after.is_none_or(|time| time <= s(2)));
                assert!(
                    next_call.started_at
                        >= ended_at(attempt, call) + retry_after.unwrap_or_default(),
                    "{name} was asked too soon"
                );
            }
        }
    }
}

fn ended_at(attempt: &AttemptSummary, call: &RecordedCall) -> Instant {
    call.started_at + ms(attempt.ms)
}

fn is_mismatch(attempt: &AttemptSummary) -> bool {
    attempt.outcome == FaultKind::Diverged.into()
}

fn failed_by(call: &RecordedCall, class: Recovery) -> bool {
    call.failure
        .as_ref()
        .is_some_and(|failure| failure.fault.recovery() == class)
}

fn provider_case<'a>(case: &'a Case, name: &str) -> &'a ProviderCase {
    &case.providers["abcd".find(name).unwrap()]
}

fn check_time(
    case: &Case,
    turn: &TurnCase,
    played: &PlayedTurn,
    done: &Done,
    calls: &[RecordedCall],
) {
    let total = ms(done.total_ms);
    assert!(total <= case.turn_limit + SLACK, "{total:?}");
    assert!(played.elapsed <= total + SLACK, "{:?}", played.elapsed);
    for (attempt, call) in done.tried.iter().zip(calls) {
        assert!(
            ms(attempt.ms) <= provider_case(case, &attempt.provider).attempt_timeout,
            "{attempt:?}"
        );
        let left = case
            .turn_limit
            .saturating_sub(call.started_at - played.started_at);
        assert!(left >= ms(500), "started too late: {attempt:?}");
    }
    if let Some(stopped) = played.stopped_at {
        assert!(
            calls.iter().all(|call| call.started_at <= stopped),
            "an attempt after the stop"
        );
        let slack = if case.store_fault == StoreFault::None {
            Duration::ZERO
        } else {
            SLACK
        };
        assert!(
            played.started_at + played.elapsed <= stopped + slack,
            "stop takes time"
        );
        assert!(case.store_fault != StoreFault::None || done.finish == FinishReason::Stopped);
    }
    assert!(done.finish != FinishReason::Stopped || played.stopped_at.is_some());
    if turn.follows_for.is_none() && turn.joiners.is_empty() {
        assert!(total <= CHAT_ORPHAN_GRACE + SLACK, "nobody followed");
    }
    if done.finish == FinishReason::Interrupted {
        assert!(total >= CHAT_ORPHAN_GRACE);
    }
}

/// A visitor who joins later sees the same end.
fn check_joiners(played: &PlayedTurn) {
    if played.reader.kinds().contains("snapshot") {
        return;
    }
    for joined in &played.joined {
        let mut reader = played.reader.as_of(joined.resumed_after);
        reader.apply_encoded(&joined.frames);
        assert_eq!(
            reader.done.as_ref(),
            played
                .reader
                .done
                .as_ref()
                .filter(|_| joined.reached_end || reader.done.is_some())
        );
    }
}

/// Each permit recorded the outcome of its attempt once. An attempt cut short by the turn's own
/// limit is not counted as a failure.
async fn check_breakers(case: &Case, harness: &TestService, played: &PlayedTurn, done: &Done) {
    let spent = ms(done.total_ms) + SLACK >= case.turn_limit;
    for (provider, before) in harness.providers.iter().zip(&played.status_before) {
        let status = provider.status().await;
        let own_attempts = || {
            done.tried
                .iter()
                .filter(|attempt| attempt.provider == provider.provider.name)
        };
        let succeeded = own_attempts().filter(|attempt| {
            attempt.outcome.as_str() == "ok" && done.finish != FinishReason::ContentFilter
        });
        let failed =
            own_attempts().filter(|attempt| !["ok", "stopped"].contains(&attempt.outcome.as_str()));
        assert_eq!(
            status.successes - before.successes,
            succeeded.count() as u64
        );
        let cut_short = own_attempts()
            .filter(|attempt| spent && attempt.outcome.as_str() == "timeout")
            .count() as u64;
        let counted = status.failures - before.failures;
        let failed = failed.count() as u64;
        assert!(
            (failed - cut_short..=failed).contains(&counted),
            "{counted} of {failed}, {cut_short} of them cut short"
        );
    }
}

/// The fallback answers only if no provider was left to ask.
fn check_fallback_was_needed(
    case: &Case,
    turn: &TurnCase,
    harness: &TestService,
    played: &PlayedTurn,
    done: &Done,
    calls: &[RecordedCall],
) {
    let is_late = case.turn_limit.saturating_sub(ms(done.total_ms)) < ms(500) + SLACK;
    let is_rejected = calls
        .iter()
        .filter(|call| failed_by(call, Recovery::CallerError) && !call.request.ends_with_prefill)
        .count()
        > 1;
    if is_late || is_rejected || done.attempts == case.max_attempts {
        return;
    }
    let too_long = done
        .tried
        .iter()
        .zip(calls)
        .filter(|(_, call)| failed_by(call, Recovery::LargerContext));
    let largest_context = too_long
        .clone()
        .map(|(attempt, _)| provider_case(case, &attempt.provider).context_tokens)
        .max()
        .unwrap_or_default();
    // A request that was too long is sent again with half the history, if there is any.
    let was_halved = calls.first().is_some_and(|first| {
        calls
            .iter()
            .any(|call| question_messages(call) != question_messages(first))
    });
    let has_larger_context = |provider: &ProviderCase| {
        provider.context_tokens == 0 || provider.context_tokens > largest_context
    };
    for (index, provider) in harness.providers.iter().enumerate() {
        let name = &provider.provider.name;
        let is_allowed =
            !turn.no_failover || turn.preferred_provider.is_none_or(|first| first == index);
        let was_tried = done.tried.iter().any(|attempt| attempt.provider == *name);
        let before = &played.status_before[index];
        let is_unavailable = before.state != ProviderState::Closed
            || before.retry_at.is_some()
            || provider.total_slots() == 0;
        let fits = has_larger_context(&case.providers[index]);
        assert!(
            !is_allowed || was_tried || is_unavailable || !fits,
            "{name} was available and not asked"
        );
    }
    let has_history = calls
        .first()
        .is_some_and(|call| question_messages(call).len() > 1);
    let all_open = too_long.clone().all(|(attempt, _)| {
        let provider = harness
            .providers
            .iter()
            .find(|provider| provider.provider.name == attempt.provider)
            .unwrap();
        provider.provider.status.borrow().state != ProviderState::Closed
    });
    // A provider whose continuation did not fit was asked twice already, whatever its context.
    let has_mismatch = done
        .tried
        .iter()
        .any(|attempt| attempt.outcome.as_str() == "diverged");
    assert!(
        was_halved || !has_history || all_open || has_mismatch,
        "half the history was not tried"
    );
}
