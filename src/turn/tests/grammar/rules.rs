//! What must be true of a turn that was played.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::super::*;
use super::cases::{Case, ProviderCase, TurnCase};
use super::play::Joined;
use crate::chat::{Class, Done, Frame, Message, Tried};
use crate::provider::backend::Vitals;
use crate::provider::scripted::Call;
use crate::store::flaky::Trouble;
use crate::turn::attempt::REFUSAL;
use crate::turn::desk::CHAT_PATIENCE;
use crate::turn::log::encode;

/// A turn that was played.
pub struct Played {
    pub log: Arc<TurnLog>,
    pub reader: Reader,
    pub joined: Vec<Joined>,
    pub took: Duration,
    pub begun: Instant,
    pub stopped: Option<Instant>,
    pub calls_before: Vec<usize>,
    pub vitals_before: Vec<Vitals>,
}

/// What the limits of stores and actors may add to any other.
const SLACK: Duration = Duration::from_millis(800);

pub async fn check_turn(case: &Case, turn: &TurnCase, stage: &Stage, played: &Played) {
    let done = played.reader.done();
    let record = played.log.record();
    // By way of JSON, which rounds what an answer cost.
    let kept: Done = serde_json::from_str(&encode(&record.done(done.seq))).unwrap();
    assert_eq!(kept, *done, "the log keeps what it showed");
    if case.store == Trouble::None {
        assert_eq!(
            stage.stored(&played.log).await,
            Some(record),
            "and so does the store"
        );
    }
    let calls = calls(stage, played, done);
    check_text(&played.reader, done, &calls);
    check_attempts(case, done, &calls);
    check_time(case, turn, played, done, &calls);
    check_joiners(played);
    stage.assert_idle().await;
    check_breakers(case, stage, played, done).await;
    if done.degraded {
        check_need(case, turn, stage, played, done, &calls);
    }
}

/// The calls of the attempts, in order. Every attempt is one call, and every call one attempt.
fn calls(stage: &Stage, played: &Played, done: &Done) -> Vec<Call> {
    let mut queues: BTreeMap<_, _> = BTreeMap::new();
    for (stand, before) in stage.stands.iter().zip(&played.calls_before) {
        let calls: Vec<_> = stand.upstream.calls().split_off(*before);
        queues.insert(Arc::clone(&stand.backend.name), calls.into_iter());
    }
    let calls: Vec<_> = done
        .tried
        .iter()
        .map(|one| queues.get_mut(&one.provider).unwrap().next().unwrap())
        .collect();
    assert!(
        queues.values_mut().all(|queue| queue.next().is_none()),
        "a call that is no attempt"
    );
    assert!(calls.is_sorted_by_key(|call| call.at));
    calls
}

/// What is shown is, at every moment, the beginning of what one attempt said, or what stood before and more that the present one said; in the
/// end, all that it said.
fn check_text(reader: &Reader, done: &Done, calls: &[Call]) {
    let mut client = Reader::default();
    // What stood when the present attempt began.
    let mut before = String::new();
    let said = |attempt: u32| {
        attempt
            .checked_sub(1)
            .map_or(FALLBACK, |place| &*calls[place as usize].said)
    };
    let fits = |text: &str, attempt: u32, before: &str| {
        let more = text
            .strip_prefix(before)
            .filter(|more| goes_on(calls, attempt) && said(attempt).contains(more));
        said(attempt).starts_with(text) || more.is_some() || text == REFUSAL
    };
    for frame in &reader.frames {
        client.apply(frame.clone());
        match frame {
            Frame::Attempt { .. } => before.clone_from(&client.text),
            Frame::Token { attempt, .. } => {
                assert!(
                    fits(&client.text, *attempt, &before),
                    "mixed: {:?}",
                    client.text
                );
            }
            Frame::Snapshot { .. } => before.clone_from(&client.text),
            _ => {}
        }
    }
    // Of two in a race the first may have won.
    let well: Vec<_> = done
        .tried
        .iter()
        .filter(|one| one.outcome.as_str() == "ok")
        .collect();
    let won = well.last().map_or(0, |one| one.attempt);
    let winner = |well: &[&Tried]| {
        assert!(well.len() == 1 && done.provider == Some(Arc::clone(&well[0].provider)))
    };
    match (done.source, done.finish) {
        (Source::Ai, Finish::Stop | Finish::Length) => {
            winner(&well);
            let (whole, more) = (said(won), done.text.strip_prefix(&*before));
            let gone_on = goes_on(calls, won) && more.is_some_and(|more| whole.ends_with(more));
            assert!(
                done.text == whole || gone_on,
                "whole: {:?} of {whole:?}",
                done.text
            );
            assert!(!done.text.trim().is_empty());
        }
        (Source::Ai, Finish::ContentFilter) => winner(&well),
        (Source::Ai, Finish::Stopped | Finish::Interrupted) => assert_eq!(won, 0),
        _ => {
            assert_fallback(reader);
            assert_eq!(won, 0);
        }
    }
    let shown = !done.text.is_empty() && !done.degraded || !done.drafts.is_empty();
    assert_eq!(done.first_token_ms.is_some(), shown);
}

/// Whether this attempt was asked to go on from what stood.
fn goes_on(calls: &[Call], attempt: u32) -> bool {
    attempt.checked_sub(1).is_some_and(|place| {
        question(&calls[place as usize]).len() < calls[place as usize].ask.messages.len()
    })
}

/// What a call asked but for what it was to go on from.
fn question(call: &Call) -> &[Message] {
    let messages = &call.ask.messages;
    let told = messages
        .last()
        .is_some_and(|last| last.text.starts_with("Your previous answer was cut off."));
    let asked = messages.len()
        - if call.ask.goes_on {
            1
        } else if told {
            2
        } else {
            0
        };
    &messages[..asked]
}

/// Nobody is asked more often than the rules allow, nor sooner.
fn check_attempts(case: &Case, done: &Done, calls: &[Call]) {
    assert!(done.attempts <= case.max_attempts);
    for (number, one) in (1..).zip(&done.tried) {
        assert_eq!(one.attempt, number);
    }
    // The history is halved once; before and after, the same is asked each time.
    let rounds: Vec<_> = calls
        .chunk_by(|one, next| question(one) == question(next))
        .map(<[Call]>::len)
        .collect();
    assert!(rounds.len() <= 2, "{rounds:?}");
    let made: Vec<_> = done.tried.iter().zip(calls).collect();
    // Who was given up for a faster one may be asked again.
    let given_up = |one: &Tried| one.outcome.as_str() == "stopped";
    let (first, second) = made.split_at(rounds.first().copied().unwrap_or_default());
    assert!(
        second.is_empty()
            || first
                .iter()
                .any(|(_, call)| failed_by(call, Class::MoreRoom))
    );
    for (one, call) in second {
        let before = first
            .iter()
            .filter(|(before, _)| before.provider == one.provider && !given_up(before));
        assert!(
            before
                .into_iter()
                .all(|(_, before)| failed_by(before, Class::MoreRoom)),
            "{call:?}"
        );
    }
    for round in [first, second] {
        let mut tries: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (one, call) in round.iter().filter(|(one, _)| !given_up(one)) {
            tries.entry(&one.provider).or_default().push((one, call));
        }
        for (name, tries) in tries {
            // A continuation that does not fit is not its provider's fault: it may answer anew.
            let misfits = u32::from(tries.iter().any(|(one, _)| misfit(one)));
            let allowed = limits(case, name).same_provider.max(misfits);
            assert!(
                tries.len() <= 1 + allowed as usize,
                "{name} was asked too often"
            );
            for pair in tries.windows(2) {
                let ((one, call), (next, again)) = (pair[0], pair[1]);
                let another = done.tried.iter().any(|other| {
                    (one.attempt + 1..next.attempt).contains(&other.attempt) && !given_up(other)
                });
                assert!(!another, "{name} was asked after another");
                let quick =
                    failed_by(call, Class::RetryHere) && call.said.is_empty() && one.ms <= 2_000;
                assert!(quick || misfit(one), "{one:?}");
                let failure = call.failure.as_ref().filter(|_| !misfit(one));
                let asked = failure.and_then(|failure| failure.retry_after);
                assert!(asked.is_none_or(|asked| asked <= s(2)));
                assert!(
                    again.at >= call.at + ms(one.ms) + asked.unwrap_or_default(),
                    "{name} was asked too soon"
                );
            }
        }
    }
}

fn misfit(one: &Tried) -> bool {
    one.outcome == Fault::Diverged.into()
}

fn failed_by(call: &Call, class: Class) -> bool {
    call.failure
        .as_ref()
        .is_some_and(|failure| failure.fault.class() == class)
}

fn limits<'a>(case: &'a Case, name: &str) -> &'a ProviderCase {
    &case.providers["abcd".find(name).unwrap()]
}

fn check_time(case: &Case, turn: &TurnCase, played: &Played, done: &Done, calls: &[Call]) {
    let total = ms(done.total_ms);
    assert!(total <= case.turn_limit + SLACK, "{total:?}");
    assert!(played.took <= total + SLACK, "{:?}", played.took);
    for (one, call) in done.tried.iter().zip(calls) {
        assert!(ms(one.ms) <= limits(case, &one.provider).attempt, "{one:?}");
        let left = case.turn_limit.saturating_sub(call.at - played.begun);
        assert!(left >= ms(500), "begun too late: {one:?}");
    }
    if let Some(stopped) = played.stopped {
        assert!(
            calls.iter().all(|call| call.at <= stopped),
            "an attempt after the stop"
        );
        let slack = if case.store == Trouble::None {
            Duration::ZERO
        } else {
            SLACK
        };
        assert!(
            played.begun + played.took <= stopped + slack,
            "stop takes time"
        );
        assert!(case.store != Trouble::None || done.finish == Finish::Stopped);
    }
    assert!(done.finish != Finish::Stopped || played.stopped.is_some());
    if turn.follows.is_none() && turn.joiners.is_empty() {
        assert!(total <= CHAT_PATIENCE + SLACK, "nobody followed");
    }
    if done.finish == Finish::Interrupted {
        assert!(total >= CHAT_PATIENCE);
    }
}

/// Who comes later sees the same end.
fn check_joiners(played: &Played) {
    if played.reader.kinds().contains("snapshot") {
        return;
    }
    for joined in &played.joined {
        let mut reader = played.reader.as_of(joined.after);
        reader.take(&joined.frames);
        assert_eq!(
            reader.done.as_ref(),
            played
                .reader
                .done
                .as_ref()
                .filter(|_| joined.to_the_end || reader.done.is_some())
        );
    }
}

/// Each permit was settled once, with what the attempt came to; but who had only what was left of the turn's time is not blamed for its end.
async fn check_breakers(case: &Case, stage: &Stage, played: &Played, done: &Done) {
    let spent = ms(done.total_ms) + SLACK >= case.turn_limit;
    for (stand, before) in stage.stands.iter().zip(&played.vitals_before) {
        let vitals = stand.vitals().await;
        let mine = || {
            done.tried
                .iter()
                .filter(|one| one.provider == stand.backend.name)
        };
        let whole = mine()
            .filter(|one| one.outcome.as_str() == "ok" && done.finish != Finish::ContentFilter);
        let failed = mine().filter(|one| !["ok", "stopped"].contains(&one.outcome.as_str()));
        assert_eq!(vitals.successes - before.successes, whole.count() as u64);
        let hurried = mine()
            .filter(|one| spent && one.outcome.as_str() == "timeout")
            .count() as u64;
        let (counted, failed) = (vitals.failures - before.failures, failed.count() as u64);
        assert!(
            (failed - hurried..=failed).contains(&counted),
            "{counted} of {failed}, {hurried} of them hurried"
        );
    }
}

/// A degraded answer is given only where nobody was left who could have been asked.
fn check_need(
    case: &Case,
    turn: &TurnCase,
    stage: &Stage,
    played: &Played,
    done: &Done,
    calls: &[Call],
) {
    let late = case.turn_limit.saturating_sub(ms(done.total_ms)) < ms(500) + SLACK;
    let refused = calls
        .iter()
        .filter(|call| failed_by(call, Class::Caller) && !call.ask.goes_on)
        .count()
        > 1;
    if late || refused || done.attempts == case.max_attempts {
        return;
    }
    let outgrown = done
        .tried
        .iter()
        .zip(calls)
        .filter(|(_, call)| failed_by(call, Class::MoreRoom));
    let room = outgrown
        .clone()
        .map(|(one, _)| limits(case, &one.provider).room)
        .max()
        .unwrap_or_default();
    // What was too long for someone was sent again with half the history, if there is any.
    let halved = calls
        .first()
        .is_some_and(|first| calls.iter().any(|call| question(call) != question(first)));
    let same_room = |provider: &ProviderCase| provider.room == 0 || provider.room > room;
    for (place, stand) in stage.stands.iter().enumerate() {
        let name = &stand.backend.name;
        let wanted = !turn.only_first || turn.first.is_none_or(|first| first == place);
        let tried = done.tried.iter().any(|one| one.provider == *name);
        let before = &played.vitals_before[place];
        let shut = before.state != ProviderState::Closed
            || before.retry_at.is_some()
            || stand.places() == 0;
        let fits = same_room(&case.providers[place]);
        assert!(
            !wanted || tried || shut || !fits,
            "{name} was left and not asked"
        );
    }
    let history = calls.first().is_some_and(|call| question(call).len() > 1);
    let shut = outgrown.clone().all(|(one, _)| {
        let stand = stage
            .stands
            .iter()
            .find(|stand| stand.backend.name == one.provider)
            .unwrap();
        stand.backend.vitals.borrow().state != ProviderState::Closed
    });
    // Whom a continuation of did not fit was asked twice already, and for other reasons than its room.
    let misfit = done
        .tried
        .iter()
        .any(|one| one.outcome.as_str() == "diverged");
    assert!(
        halved || !history || shut || misfit,
        "half the history was not tried"
    );
}
