//! One seed's house: its providers, what befalls it, who asks in it.

use super::super::*;
use super::chance::Chance;
use super::check::{self, Said};
use super::visit::{self, Visit};
use crate::settings::MidStream;
use crate::store::Store as _;
use crate::store::flaky::Trouble;
use crate::turn::desk::Wishes;
use crate::turn::stage::conversation;

/// Turns that are asked for in one house.
pub const TURNS_A_HOUSE: u64 = 50;

/// Conversations that they are asked in: so that several run at once, and each has a history.
const CONVERSATIONS: usize = 5;

/// Scripts of each provider before its last comes again and again.
const SCRIPTS: usize = 60;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What answers begin with, so that some that follow each other begin alike.
const BEGINNING: [&str; 4] = ["The ", "quick ", "brown ", "fox "];

/// How a house is limited.
pub struct Terms {
    pub max_attempts: u32,
    pub turn_limit: Duration,
    pub mid_stream: MidStream,
    /// Whether the store was well all the time.
    pub kept: bool,
}

/// Plays the seed; gives the turns' ends in one text.
///
/// Panics where a promise is broken.
pub async fn play(seed: u64) -> String {
    let mut chance = Chance::of_seed(seed);
    let mut said = Said::default();
    let mid_stream = chance.pick(&[MidStream::Restart, MidStream::Restart, MidStream::Continue]);
    let count = 1 + chance.below(4);
    let plans = NAMES[..count]
        .iter()
        .map(|name| plan(name, &mut chance, &mut said))
        .collect::<Vec<_>>();
    let mut house = House::of(plans);
    house.settings.routing.max_attempts = u32::try_from(1 + chance.below(6)).unwrap();
    house.settings.timeouts.turn = if chance.one_in(3) {
        chance.between(300, 60_000)
    } else {
        s(120)
    };
    house.settings.routing.mid_stream = mid_stream;
    house.settings.routing.hedge_after = if chance.one_in(3) {
        chance.between(1, 4_000)
    } else {
        ms(0)
    };
    let mut terms = Terms {
        max_attempts: house.settings.routing.max_attempts,
        turn_limit: house.settings.timeouts.turn,
        mid_stream,
        kept: chance.one_in(2),
    };
    let mut stage = house.open();
    for stand in &stage.stands {
        let probes = [
            says("pong"),
            fails(Fault::ServerError),
            silent(),
            says("pong"),
        ];
        stand
            .upstream
            .follow_when_probed((0..30).map(|_| chance.pick(&probes)).collect::<Vec<_>>());
        // Who obliges goes on from whatever stands last in what it is shown.
        stand
            .upstream
            .oblige(mid_stream == MidStream::Continue && chance.one_in(2));
    }
    let visits = ask_all(&mut stage, &mut chance, &terms).await;
    let mut ends = Vec::new();
    for visit in visits {
        let visit = visit.await.unwrap();
        check::turn(&terms, &said, &visit);
        ends.push(visit);
    }
    stage.store.set(Trouble::None);
    terms.kept = terms.kept && stage.desk.durable.borrow().to_owned();
    check_house(&stage, &terms, &ends).await;
    let told = ends.iter().map(|one| {
        let done = one.reader.done();
        format!(
            "{:?} {:?} {:?} {:?} {}",
            done.source, done.finish, done.text, done.tried, done.total_ms
        )
    });
    told.collect::<Vec<_>>().join("\n")
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

/// What this provider does at its next call: an answer of its own, or the beginning of one and a fault.
fn script(name: &'static str, number: usize, chance: &mut Chance, said: &mut Said) -> Script {
    let tail = format!("{name}{number}.");
    let alike = chance.below(BEGINNING.len() + 1);
    let pieces: Vec<&str> = BEGINNING[..alike]
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
        // It ends without a word of proof.
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

/// Asks all turns, with what befalls the house between.
async fn ask_all(
    stage: &mut Stage,
    chance: &mut Chance,
    terms: &Terms,
) -> Vec<tokio::task::JoinHandle<Visit>> {
    let mut visits = Vec::new();
    let mut asked = 0;
    while asked < TURNS_A_HOUSE {
        elapse(chance.pause()).await;
        befall(stage, chance, terms).await;
        let room = stage.desk.rooms.enter(conversation(
            1 + u8::try_from(chance.below(CONVERSATIONS)).unwrap(),
        ));
        let first = chance.one_in(6).then(|| chance.pick(&NAMES).into());
        let wishes = Wishes {
            only_first: first.is_some() && chance.one_in(2),
            first,
            ..stage.desk.usual()
        };
        let question = question(&format!("m{asked}"), "What is new?");
        // Where the conversation is busy or the house is full, the visitor asks a little later.
        if let Ok(log) = stage.desk.open(&room, question, wishes) {
            visits.push(actix::spawn(visit::visit(room, log, chance.split())));
            asked += 1;
        }
    }
    visits
}

/// Now and then an actor dies and is rebuilt, or the store has trouble, or has it no more.
async fn befall(stage: &mut Stage, chance: &mut Chance, terms: &Terms) {
    match chance.below(60) {
        0 => {
            stage.router.crash().await;
            stage.router.rebuild();
        }
        1 => {
            let stand = chance.below(stage.stands.len());
            stage.stands[stand].crash().await;
            stage.stands[stand].rebuild();
        }
        2..=5 if !terms.kept => {
            let troubles = [
                Trouble::None,
                Trouble::Fails,
                Trouble::Slow(chance.between(0, 600)),
            ];
            stage.store.set(chance.pick(&troubles));
        }
        _ => {}
    }
}

/// What is left when all turns have ended: nothing but what is kept.
async fn check_house(stage: &Stage, terms: &Terms, visits: &[Visit]) {
    // A stopped or left call's permit settles by a message.
    settled().await;
    stage.assert_idle().await;
    let ended = stage
        .desk
        .counts
        .ended
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ended, TURNS_A_HOUSE, "turns begun are turns ended");
    if terms.kept {
        for visit in visits {
            let stored = stage
                .store
                .turn(visit.conversation, visit.log.turn())
                .await
                .unwrap();
            assert_eq!(
                stored,
                Some(visit.log.record()),
                "the store keeps what was shown"
            );
        }
    }
    // The logs stay for a moment, then nothing of the conversations is left.
    pass(s(6)).await;
    assert_eq!(stage.desk.rooms.count(), 0, "rooms");
}
