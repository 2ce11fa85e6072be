//! Plays a case: opens the house, asks, follows, leaves, stops.

use std::cell::Cell;
use std::rc::Rc;

use bytestring::ByteString;
use tokio::time::{Instant, timeout};

use super::super::*;
use super::cases::{Case, Joiner, TurnCase};
use super::rules::{Played, check_turn};
use crate::turn::desk::Wishes;
use crate::turn::log::Cancel;

/// What a joiner read, and where it had stood before.
pub struct Joined {
    pub after: u64,
    pub frames: Vec<ByteString>,
    /// Whether it read to the end.
    pub to_the_end: bool,
}

fn house(case: &Case) -> House {
    let names = ["a", "b", "c", "d"];
    let mut house = House::of(
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
                (plan.patience.stall, plan.patience.attempt) = (provider.stall, provider.attempt);
                plan
            }),
    );
    house.settings.routing.max_attempts = case.max_attempts;
    house.settings.timeouts.turn = case.turn_limit;
    house.settings.quality.min_chars = case.min_chars;
    house.settings.routing.mid_stream = case.mid_stream;
    house.settings.routing.hedge_after = case.hedge_after;
    house
}

/// Plays all turns of the case, and checks each.
///
/// Panics where a promise is broken.
pub async fn play(case: &Case) {
    let stage = house(case).open();
    for (stand, provider) in stage.stands.iter().zip(&case.providers) {
        stand.upstream.follow_when_probed([provider.probe.clone()]);
        stand.upstream.oblige(provider.obliging);
    }
    stage.remember(case.history).await;
    stage.store.set(case.store);
    for (number, turn) in case.turns.iter().enumerate() {
        let played = play_turn(&stage, turn, number).await;
        check_turn(case, turn, &stage, &played).await;
    }
    pass(s(6)).await;
    assert_eq!(stage.desk.rooms.count(), 0, "rooms");
}

async fn play_turn(stage: &Stage, turn: &TurnCase, number: usize) -> Played {
    let calls_before = stage
        .stands
        .iter()
        .map(|stand| stand.upstream.calls().len())
        .collect();
    let vitals_before = stage
        .stands
        .iter()
        .map(|stand| stand.backend.vitals.borrow().clone())
        .collect();
    let names = ["a", "b", "c", "d", "nobody"];
    let wishes = Wishes {
        first: turn.first.map(|first| names[first].into()),
        only_first: turn.only_first && turn.first.is_some(),
        ..stage.desk.usual()
    };
    let log = stage.ask_with(&format!("m{number}"), wishes);
    let begun = Instant::now();
    let stopped = Rc::new(Cell::new(None));
    if let Some(after) = turn.stop {
        let (log, stopped) = (Arc::clone(&log), Rc::clone(&stopped));
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
        // The visitor leaves in the middle of a wait, never of a frame.
        let _ = timeout(time, reader.read(&mut follower)).await;
    }
    stage.desk.places.none_taken().await;
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
