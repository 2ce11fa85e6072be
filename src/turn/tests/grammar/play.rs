//! Plays a case: starts the service, asks, follows, leaves, stops.

use std::cell::Cell;
use std::rc::Rc;

use bytestring::ByteString;
use tokio::time::{Instant, timeout};

use super::super::*;
use super::cases::{Case, Joiner, TurnCase};
use super::rules::{PlayedTurn, check_turn};
use crate::turn::deps::TurnOptions;
use crate::turn::log::Cancel;

/// The frames that a joiner read, and the position it resumed from.
pub struct JoinedVisit {
    pub resumed_after: u64,
    pub frames: Vec<ByteString>,
    pub reached_end: bool,
}

fn builder_for(case: &Case) -> TestServiceBuilder {
    let names = ["a", "b", "c", "d"];
    let mut builder =
        TestServiceBuilder::with_providers(names.into_iter().zip(&case.providers).map(
            |(name, provider)| {
                let mut plan =
                    BenchOptions::new(name).with_scripts(provider.scripts.iter().cloned());
                plan.context_tokens = provider.context_tokens;
                plan.supports_prefill = provider.prefill;
                plan.retry.same_provider = provider.same_provider;
                plan.max_concurrent = provider.max_concurrent;
                plan.timeouts.first_token.clone_from(&provider.first_token);
                plan.timeouts.stall = provider.stall_timeout;
                plan.timeouts.total = provider.attempt_timeout;
                plan
            },
        ));
    builder.settings.routing.max_attempts = case.max_attempts;
    builder.settings.timeouts.turn = case.turn_limit;
    builder.settings.quality.min_chars = case.min_chars;
    builder.settings.routing.mid_stream = case.mid_stream;
    builder.settings.routing.hedge_after = case.hedge_after;
    builder
}

/// Plays all turns of the case and checks each. Panics if a guarantee is broken. Returns the
/// provider and the outcome of each attempt.
pub async fn play(case: &Case) -> Vec<String> {
    let harness = builder_for(case).start();
    for (provider, provider_case) in harness.providers.iter().zip(&case.providers) {
        provider
            .client
            .set_probe_scripts([provider_case.probe.clone()]);
        provider
            .client
            .set_continues_answers(provider_case.continues_answers);
    }
    harness.store_old_turns(case.old_turns).await;
    harness.store.set_fault(case.store_fault);
    let mut tried = Vec::new();
    for (number, turn) in case.turns.iter().enumerate() {
        let played = play_turn(&harness, turn, number).await;
        check_turn(case, turn, &harness, &played).await;
        let attempts = played.reader.done().tried.iter();
        tried.extend(attempts.map(|one| format!("{} {}", one.provider, one.outcome.as_str())));
    }
    advance(s(6)).await;
    assert_eq!(harness.turns.conversations.count(), 0, "live conversations");
    tried
}

async fn play_turn(harness: &TestService, turn: &TurnCase, number: usize) -> PlayedTurn {
    let calls_before = harness
        .providers
        .iter()
        .map(|provider| provider.client.calls().len())
        .collect();
    let vitals_before = harness
        .providers
        .iter()
        .map(|provider| provider.provider.status.borrow().clone())
        .collect();
    let names = ["a", "b", "c", "d", "nobody"];
    let options = TurnOptions {
        preferred_provider: turn.preferred_provider.map(|first| names[first].into()),
        no_failover: turn.no_failover && turn.preferred_provider.is_some(),
        ..harness.turns.default_options()
    };
    let log = harness.ask_with_options(&format!("m{number}"), options);
    let begun = Instant::now();
    let stopped = Rc::new(Cell::new(None));
    if let Some(after) = turn.stops_after {
        let log = Arc::clone(&log);
        let stopped = Rc::clone(&stopped);
        actix::spawn(async move {
            advance(after).await;
            if !log.is_finished() {
                stopped.set(Some(Instant::now()));
                log.cancel(Cancel::Stopped);
            }
        });
    }
    let joiners: Vec<_> = turn
        .joiners
        .iter()
        .map(|joiner| actix::spawn(join(Arc::clone(&log), joiner.clone())))
        .collect();
    let mut reader = ProtocolClient::default();
    if let Some(time) = turn.follows_for {
        let mut follower = log.follow();
        // Dropping the read in a wait loses no frame.
        let _ = timeout(time, reader.read_to_end(&mut follower)).await;
    }
    harness.turns.turn_limit.wait_idle().await;
    let took = begun.elapsed();
    run_until_idle().await;
    assert!(log.is_finished());
    if reader.done.is_none() {
        let mut rest = if reader.last_seq == 0 {
            log.follow()
        } else {
            log.resume(reader.last_seq)
        };
        reader.read_to_end(&mut rest).await;
    }
    let mut joined = Vec::new();
    for joiner in joiners {
        joined.push(joiner.await.unwrap());
    }
    PlayedTurn {
        log,
        reader,
        joined,
        elapsed: took,
        started_at: begun,
        stopped_at: stopped.get(),
        calls_before,
        status_before: vitals_before,
    }
}

async fn join(log: Arc<TurnLog>, joiner: Joiner) -> JoinedVisit {
    advance(joiner.joins_after).await;
    let there = log.last_seq();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let after = (there as f64 * joiner.known_share) as u64;
    let mut follower = log.resume(after);
    let mut joined = JoinedVisit {
        resumed_after: after,
        frames: Vec::new(),
        reached_end: false,
    };
    let read = async {
        while let Some(frames) = follower.next().await {
            joined.frames.extend(frames);
            advance(joiner.read_pause).await;
        }
        joined.reached_end = true;
    };
    let _ = timeout(joiner.stays_for, read).await;
    joined
}
