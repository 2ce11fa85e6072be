//! Plays a case: starts the service, asks, follows, leaves, stops.

use std::cell::Cell;
use std::rc::Rc;

use bytestring::ByteString;
use tokio::time::{Instant, timeout};

use super::super::*;
use super::cases::{Case, Joiner, TurnCase};
use super::rules::{Played, check_turn};
use crate::turn::desk::Wishes;
use crate::turn::log::Cancel;

/// The frames that a joiner read, and the position it resumed from.
pub struct Joined {
    pub after: u64,
    pub frames: Vec<ByteString>,
    pub to_the_end: bool,
}

fn builder_for(case: &Case) -> House {
    let names = ["a", "b", "c", "d"];
    let mut builder = House::of(
        names
            .into_iter()
            .zip(&case.providers)
            .map(|(name, provider)| {
                let mut plan = Plan::new(name).with(provider.scripts.iter().cloned());
                plan.context_tokens = provider.room;
                plan.prefill = provider.prefill;
                plan.retry.same_provider = provider.same_provider;
                plan.max_concurrent = provider.max_concurrent;
                plan.patience.first_token.clone_from(&provider.first_token);
                plan.patience.stall = provider.stall;
                plan.patience.attempt = provider.attempt;
                plan
            }),
    );
    builder.settings.routing.max_attempts = case.max_attempts;
    builder.settings.timeouts.turn = case.turn_limit;
    builder.settings.quality.min_chars = case.min_chars;
    builder.settings.routing.mid_stream = case.mid_stream;
    builder.settings.routing.hedge_after = case.hedge_after;
    builder
}

/// Plays all turns of the case and checks each. Panics if a guarantee is broken.
pub async fn play(case: &Case) {
    let harness = builder_for(case).open();
    for (provider, provider_case) in harness.stands.iter().zip(&case.providers) {
        provider
            .upstream
            .follow_when_probed([provider_case.probe.clone()]);
        provider.upstream.oblige(provider_case.obliging);
    }
    harness.remember(case.history).await;
    harness.store.set(case.store);
    for (number, turn) in case.turns.iter().enumerate() {
        let played = play_turn(&harness, turn, number).await;
        check_turn(case, turn, &harness, &played).await;
    }
    pass(s(6)).await;
    assert_eq!(harness.desk.rooms.count(), 0, "live conversations");
}

async fn play_turn(harness: &Stage, turn: &TurnCase, number: usize) -> Played {
    let calls_before = harness
        .stands
        .iter()
        .map(|provider| provider.upstream.calls().len())
        .collect();
    let vitals_before = harness
        .stands
        .iter()
        .map(|provider| provider.backend.vitals.borrow().clone())
        .collect();
    let names = ["a", "b", "c", "d", "nobody"];
    let options = Wishes {
        first: turn.first.map(|first| names[first].into()),
        only_first: turn.only_first && turn.first.is_some(),
        ..harness.desk.usual()
    };
    let log = harness.ask_with(&format!("m{number}"), options);
    let begun = Instant::now();
    let stopped = Rc::new(Cell::new(None));
    if let Some(after) = turn.stop {
        let log = Arc::clone(&log);
        let stopped = Rc::clone(&stopped);
        actix::spawn(async move {
            pass(after).await;
            if !log.ended() {
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
    let mut reader = Reader::default();
    if let Some(time) = turn.follows {
        let mut follower = log.follow();
        // Dropping the read in a wait loses no frame.
        let _ = timeout(time, reader.read(&mut follower)).await;
    }
    harness.desk.places.none_taken().await;
    let took = begun.elapsed();
    settled().await;
    assert!(log.ended());
    if reader.done.is_none() {
        let mut rest = if reader.seq == 0 {
            log.follow()
        } else {
            log.resume(reader.seq)
        };
        reader.read(&mut rest).await;
    }
    let mut joined = Vec::new();
    for joiner in joiners {
        joined.push(joiner.await.unwrap());
    }
    Played {
        log,
        reader,
        joined,
        took,
        begun,
        stopped: stopped.get(),
        calls_before,
        vitals_before,
    }
}

async fn join(log: Arc<TurnLog>, joiner: Joiner) -> Joined {
    pass(joiner.comes).await;
    let there = log.last_seq();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let after = (there as f64 * joiner.known) as u64;
    let mut follower = log.resume(after);
    let mut joined = Joined {
        after,
        frames: Vec::new(),
        to_the_end: false,
    };
    let read = async {
        while let Some(frames) = follower.next().await {
            joined.frames.extend(frames);
            pass(joiner.pace).await;
        }
        joined.to_the_end = true;
    };
    let _ = timeout(joiner.stays, read).await;
    joined
}
