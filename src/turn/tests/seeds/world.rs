//! The service of one seed: its providers, its faults and its visitors.

use super::super::*;
use super::chance::Chance;
use super::check::{self, Said};
use super::visit::{self, Visit};
use crate::settings::MidStream;
use crate::store::Store as _;
use crate::store::flaky::Trouble;
use crate::turn::desk::Wishes;
use crate::turn::stage::conversation;

/// The number of turns in one service.
pub const TURNS_A_HOUSE: u64 = 50;

/// The number of conversations: several turns run at once, and each conversation has a history.
const CONVERSATIONS: usize = 5;

/// The number of different scripts per provider. The last one repeats.
const SCRIPTS: usize = 60;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The possible beginnings of answers, so that successive ones may start alike.
const BEGINNING: [&str; 4] = ["The ", "quick ", "brown ", "fox "];

/// The limits of a service.
pub struct Terms {
    pub max_attempts: u32,
    pub turn_limit: Duration,
    pub mid_stream: MidStream,
    /// `true` if the store was healthy all the time.
    pub kept: bool,
}

/// Plays the seed and returns the ends of all turns as one text. Panics if a guarantee is broken.
pub async fn play(seed: u64) -> String {
    let mut chance = Chance::from_seed(seed);
    let mut said = Said::default();
    let mid_stream = chance.pick(&[MidStream::Restart, MidStream::Restart, MidStream::Continue]);
    let count = 1 + chance.below(4);
    let plans = NAMES[..count]
        .iter()
        .map(|name| plan(name, &mut chance, &mut said))
        .collect::<Vec<_>>();
    let mut builder = House::of(plans);
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
    let mut terms = Terms {
        max_attempts: builder.settings.routing.max_attempts,
        turn_limit: builder.settings.timeouts.turn,
        mid_stream,
        kept: chance.one_in(2),
    };
    let mut harness = builder.open();
    for provider in &harness.stands {
        let probes = [
            says("pong"),
            fails(Fault::ServerError),
            silent(),
            says("pong"),
        ];
        provider
            .upstream
            .follow_when_probed((0..30).map(|_| chance.pick(&probes)).collect::<Vec<_>>());
        // An obliging provider continues any text that it is given.
        provider
            .upstream
            .oblige(mid_stream == MidStream::Continue && chance.one_in(2));
    }
    let visits = ask_all(&mut harness, &mut chance, &terms).await;
    let mut ends = Vec::new();
    for visit in visits {
        let visit = visit.await.unwrap();
        check::turn(&terms, &said, &visit);
        ends.push(visit);
    }
    harness.store.set(Trouble::None);
    terms.kept = terms.kept && harness.desk.durable.borrow().to_owned();
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

fn plan(name: &'static str, chance: &mut Chance, said: &mut Said) -> Plan {
    let scripts: Vec<_> = (0..SCRIPTS)
        .map(|number| script(name, number, chance, said))
        .collect();
    let mut plan = Plan::new(name).with(scripts);
    plan.context_tokens = chance.pick(&[0, 0, 10_000]);
    plan.prefill = chance.one_in(2);
    plan.retry.same_provider = u32::try_from(chance.below(3)).unwrap();
    plan.max_concurrent = chance.pick(&[1, 3, 8]);
    plan.patience.first_token = vec![chance.between(1_000, 15_000)];
    plan.patience.stall = chance.between(1_000, 15_000);
    plan.patience.attempt = chance.between(2_000, 90_000);
    plan
}

/// Returns the next script of a provider: an answer of its own, or the beginning of one and a fault.
fn script(name: &'static str, number: usize, chance: &mut Chance, said: &mut Said) -> Script {
    let tail = format!("{name}{number}.");
    let shared_pieces = chance.below(BEGINNING.len() + 1);
    let pieces: Vec<&str> = BEGINNING[..shared_pieces]
        .iter()
        .copied()
        .chain([tail.as_str()])
        .collect();
    said.all.entry(name).or_default().push(pieces.concat());
    let cut = if chance.below(20) < 11 {
        pieces.len()
    } else {
        chance.below(pieces.len() + 1)
    };
    let mut script = Vec::new();
    for piece in &pieces[..cut] {
        if chance.one_in(4) {
            script.push(Act::Wait(chance.pause()));
        }
        if chance.one_in(12) {
            script.push(Act::Think);
        }
        script.push(say(piece));
    }
    if cut == pieces.len() && !chance.one_in(8) {
        let finish = chance.pick(&[Finish::Stop, Finish::Stop, Finish::Stop, Finish::Length]);
        said.whole.insert(pieces.concat(), tail);
        script.push(Act::End(finish));
        return script;
    }
    script.extend(match chance.below(14) {
        0 => Some(Act::Hang),
        1 => Some(Act::Panic),
        2 => Some(Act::Forever("again ".to_owned(), ms(350))),
        3 => Some(Act::End(Finish::ContentFilter)),
        // The stream ends without an end mark.
        4 => None,
        _ => {
            let faults: Vec<_> = Fault::ALL
                .into_iter()
                .filter(|fault| *fault != Fault::Diverged)
                .collect();
            let retry_after = chance.one_in(4).then(|| chance.between(0, 4_000));
            Some(Act::Fail(Failure {
                retry_after,
                ..Failure::of(chance.pick(&faults))
            }))
        }
    });
    script
}

/// Starts all turns, and injects faults in between.
async fn ask_all(
    harness: &mut Stage,
    chance: &mut Chance,
    terms: &Terms,
) -> Vec<tokio::task::JoinHandle<Visit>> {
    let mut visits = Vec::new();
    let mut asked = 0;
    while asked < TURNS_A_HOUSE {
        elapse(chance.pause()).await;
        inject_fault(harness, chance, terms).await;
        let conversation = harness.desk.rooms.enter(conversation(
            1 + u8::try_from(chance.below(CONVERSATIONS)).unwrap(),
        ));
        let first = chance.one_in(6).then(|| chance.pick(&NAMES).into());
        let options = Wishes {
            only_first: first.is_some() && chance.one_in(2),
            first,
            ..harness.desk.usual()
        };
        let question = question(&format!("m{asked}"), "What is new?");
        // If the conversation is busy or the service is full, the visitor asks a little later.
        if let Ok(log) = harness.desk.open(&conversation, question, options) {
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
async fn inject_fault(harness: &mut Stage, chance: &mut Chance, terms: &Terms) {
    match chance.below(60) {
        0 => {
            harness.router.crash().await;
            harness.router.rebuild();
        }
        1 => {
            let provider = chance.below(harness.stands.len());
            harness.stands[provider].crash().await;
            harness.stands[provider].rebuild();
        }
        2..=5 if !terms.kept => {
            let troubles = [
                Trouble::None,
                Trouble::Fails,
                Trouble::Slow(chance.between(0, 600)),
            ];
            harness.store.set(chance.pick(&troubles));
        }
        _ => {}
    }
}

/// Asserts that nothing is left when all turns have ended, except what is stored.
async fn check_service(harness: &Stage, terms: &Terms, visits: &[Visit]) {
    // The permit of a cancelled call records its outcome by a message.
    settled().await;
    harness.assert_idle().await;
    let ended = harness
        .desk
        .counts
        .ended
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ended, TURNS_A_HOUSE, "every started turn ended");
    if terms.kept {
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
    pass(s(6)).await;
    assert_eq!(harness.desk.rooms.count(), 0, "live conversations");
}
