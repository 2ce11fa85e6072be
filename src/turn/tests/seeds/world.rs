//! The service of one seed: its providers, its faults and its visitors.

use super::super::*;
use super::chance::SeededRandom;
use super::check::{self, ProviderTexts};
use super::visit::{self, Visit};
use crate::config::MidStream;
use crate::store::ConversationStore as _;
use crate::store::flaky::StoreFault;
use crate::turn::deps::TurnOptions;
use crate::turn::test_service::conversation_id;

/// The number of turns in one service.
pub const TURNS_PER_SERVICE: u64 = 50;

/// The number of conversations: several turns run at once, and each conversation has a history.
const CONVERSATIONS: usize = 5;

/// The number of different scripts per provider. The last one repeats.
const SCRIPTS: usize = 60;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The possible beginnings of answers, so that successive ones may start alike.
const OPENING: [&str; 4] = ["The ", "quick ", "brown ", "fox "];

/// The limits of a service.
pub struct ServiceLimits {
    pub max_attempts: u32,
    pub turn_limit: Duration,
    pub mid_stream: MidStream,
    /// `true` if the store was healthy all the time.
    pub store_is_healthy: bool,
}

/// Plays the seed and returns the ends of all turns as one text. Panics if a guarantee is broken.
pub async fn play(seed: u64) -> String {
    let mut chance = SeededRandom::from_seed(seed);
    let mut said = ProviderTexts::default();
    let mid_stream = chance.pick(&[MidStream::Restart, MidStream::Restart, MidStream::Continue]);
    let count = 1 + chance.below(4);
    let plans = NAMES[..count]
        .iter()
        .map(|name| plan(name, &mut chance, &mut said))
        .collect::<Vec<_>>();
    let mut builder = TestServiceBuilder::with_providers(plans);
    builder.settings.routing.max_attempts = u32::try_from(1 + chance.below(6)).unwrap();
    builder.settings.timeouts.turn = if chance.one_in(3) {
        chance.between(300, 60_000)
    } else {
        s(120)
    };
    builder.settings.routing.mid_stream = mid_stream;
    builder.settings.routing.hedge_after = if chance.one_in(3) {
        chance.between(1, 4_000)
    } else {
        ms(0)
    };
    let mut terms = ServiceLimits {
        max_attempts: builder.settings.routing.max_attempts,
        turn_limit: builder.settings.timeouts.turn,
        mid_stream,
        store_is_healthy: chance.one_in(2),
    };
    let mut harness = builder.start();
    for provider in &harness.providers {
        let probes = [
            reply("pong"),
            fail_with(FaultKind::ServerError),
            hang(),
            reply("pong"),
        ];
        provider
            .client
            .set_probe_scripts((0..30).map(|_| chance.pick(&probes)).collect::<Vec<_>>());
        // An obliging provider continues any text that it is given.
        provider
            .client
            .set_continues_answers(mid_stream == MidStream::Continue && chance.one_in(2));
    }
    let visits = ask_all(&mut harness, &mut chance, &terms).await;
    let mut ends = Vec::new();
    for visit in visits {
        let visit = visit.await.unwrap();
        check::check_turn(&terms, &said, &visit);
        ends.push(visit);
    }
    harness.store.set_fault(StoreFault::None);
    terms.store_is_healthy =
        terms.store_is_healthy && harness.turns.store_healthy.borrow().to_owned();
    check_service(&harness, &terms, &ends).await;
    let lines = ends.iter().map(|visit| {
        let done = visit.reader.done();
        format!(
            "{:?} {:?} {:?} {:?} {}",
            done.source, done.finish, done.text, done.tried, done.total_ms
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn plan(name: &'static str, chance: &mut SeededRandom, said: &mut ProviderTexts) -> BenchOptions {
    let scripts: Vec<_> = (0..SCRIPTS)
        .map(|number| script(name, number, chance, said))
        .collect();
    let mut plan = BenchOptions::new(name).with_scripts(scripts);
    plan.context_tokens = chance.pick(&[0, 0, 10_000]);
    plan.supports_prefill = chance.one_in(2);
    plan.retry.same_provider = u32::try_from(chance.below(3)).unwrap();
    plan.max_concurrent = chance.pick(&[1, 3, 8]);
    plan.timeouts.first_token = vec![chance.between(1_000, 15_000)];
    plan.timeouts.stall = chance.between(1_000, 15_000);
    plan.timeouts.total = chance.between(2_000, 90_000);
    plan
}

/// Returns the next script of a provider: an answer of its own, or the beginning of one and a fault.
fn script(
    name: &'static str,
    number: usize,
    chance: &mut SeededRandom,
    said: &mut ProviderTexts,
) -> Script {
    let tail = format!("{name}{number}.");
    let shared_pieces = chance.below(OPENING.len() + 1);
    let pieces: Vec<&str> = OPENING[..shared_pieces]
        .iter()
        .copied()
        .chain([tail.as_str()])
        .collect();
    said.full_texts
        .entry(name)
        .or_default()
        .push(pieces.concat());
    let cut = if chance.below(20) < 11 {
        pieces.len()
    } else {
        chance.below(pieces.len() + 1)
    };
    let mut script = Vec::new();
    for piece in &pieces[..cut] {
        if chance.one_in(4) {
            script.push(ScriptStep::Pause(chance.pause()));
        }
        if chance.one_in(12) {
            script.push(ScriptStep::Think);
        }
        script.push(say(piece));
    }
    if cut == pieces.len() && !chance.one_in(8) {
        let finish = chance.pick(&[
            FinishReason::Stop,
            FinishReason::Stop,
            FinishReason::Stop,
            FinishReason::Length,
        ]);
        said.endings.insert(pieces.concat(), tail);
        script.push(ScriptStep::Finish(finish));
        return script;
    }
    script.extend(match chance.below(14) {
        0 => Some(ScriptStep::Hang),
        1 => Some(ScriptStep::Panic),
        2 => Some(ScriptStep::RepeatForever("again ".to_owned(), ms(350))),
        3 => Some(ScriptStep::Finish(FinishReason::ContentFilter)),
        // The stream ends without an end mark.
        4 => None,
        _ => {
            let faults: Vec<_> = FaultKind::ALL
                .into_iter()
                .filter(|fault| *fault != FaultKind::Diverged)
                .collect();
            let retry_after = chance.one_in(4).then(|| chance.between(0, 4_000));
            Some(ScriptStep::Fail(Failure {
                retry_after,
                ..Failure::new(chance.pick(&faults))
            }))
        }
    });
    script
}

/// Starts all turns, and injects faults in between.
async fn ask_all(
    harness: &mut TestService,
    chance: &mut SeededRandom,
    terms: &ServiceLimits,
) -> Vec<tokio::task::JoinHandle<Visit>> {
    let mut visits = Vec::new();
    let mut asked = 0;
    while asked < TURNS_PER_SERVICE {
        advance_clock(chance.pause()).await;
        inject_fault(harness, chance, terms).await;
        let conversation = harness.turns.conversations.get_or_create(conversation_id(
            1 + u8::try_from(chance.below(CONVERSATIONS)).unwrap(),
        ));
        let first = chance.one_in(6).then(|| chance.pick(&NAMES).into());
        let options = TurnOptions {
            no_failover: first.is_some() && chance.one_in(2),
            preferred_provider: first,
            ..harness.turns.default_options()
        };
        let question = message(&format!("m{asked}"), "What is new?");
        // If the conversation is busy or the service is full, the visitor asks a little later.
        if let Ok(log) = harness.turns.start_turn(&conversation, question, options) {
            visits.push(actix::spawn(visit::visit(
                conversation,
                log,
                chance.split(),
            )));
            asked += 1;
        }
    }
    visits
}

/// Occasionally crashes and restarts an actor, or changes the store's fault.
async fn inject_fault(harness: &mut TestService, chance: &mut SeededRandom, terms: &ServiceLimits) {
    match chance.below(60) {
        0 => {
            harness.router.crash().await;
            harness.router.restart();
        }
        1 => {
            let provider = chance.below(harness.providers.len());
            harness.providers[provider].crash_actor().await;
            harness.providers[provider].restart_actor();
        }
        2..=5 if !terms.store_is_healthy => {
            let troubles = [
                StoreFault::None,
                StoreFault::Failing,
                StoreFault::Slow(chance.between(0, 600)),
            ];
            harness.store.set_fault(chance.pick(&troubles));
        }
        _ => {}
    }
}

/// Asserts that nothing is left when all turns have ended, except what is stored.
async fn check_service(harness: &TestService, terms: &ServiceLimits, visits: &[Visit]) {
    // The permit of a cancelled call records its outcome by a message.
    run_until_idle().await;
    harness.assert_idle().await;
    let ended = harness.turns.observer.answers().ended;
    assert_eq!(ended, TURNS_PER_SERVICE, "every started turn ended");
    if terms.store_is_healthy {
        for visit in visits {
            let stored = harness
                .store
                .turn(visit.conversation, visit.log.turn())
                .await
                .unwrap();
            assert_eq!(
                stored,
                Some(visit.log.record()),
                "the store has what was shown"
            );
        }
    }
    // The logs stay for a moment, then the conversations are gone.
    advance(s(6)).await;
    assert_eq!(harness.turns.conversations.count(), 0, "live conversations");
}
