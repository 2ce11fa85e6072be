//! Generates random services, scripts and visitors.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::super::*;
use crate::config::MidStream;
use crate::store::flaky::StoreFault;

/// All random choices of one test case.
#[derive(Clone, Debug)]
pub struct Case {
    pub providers: Vec<ProviderCase>,
    pub max_attempts: u32,
    pub turn_limit: Duration,
    pub min_chars: usize,
    pub old_turns: u64,
    pub store_fault: StoreFault,
    pub mid_stream: MidStream,
    /// The silence after which a hedge starts. Zero disables hedging.
    pub hedge_after: Duration,
    pub turns: Vec<TurnCase>,
}

#[derive(Clone, Debug)]
pub struct ProviderCase {
    pub scripts: Vec<Script>,
    pub probe: Script,
    pub context_tokens: u32,
    pub prefill: bool,
    /// `true` if it continues a partial answer when asked to, as far as the text is the same.
    pub continues_answers: bool,
    pub same_provider: u32,
    pub max_concurrent: usize,
    pub first_token: Vec<Duration>,
    pub stall_timeout: Duration,
    pub attempt_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct TurnCase {
    /// The time the visitor follows from the start, or `None` if not at all.
    pub follows_for: Option<Duration>,
    pub stops_after: Option<Duration>,
    pub joiners: Vec<Joiner>,
    pub preferred_provider: Option<usize>,
    pub no_failover: bool,
}

/// A second tab that opens during the turn.
#[derive(Clone, Debug)]
pub struct Joiner {
    pub joins_after: Duration,
    pub stays_for: Duration,
    /// The share of the frames that it had read before.
    pub known_share: f64,
    /// The pause after every read.
    pub read_pause: Duration,
}

/// Two that start alike, and one that does not.
const TEXTS: [&str; 4] = [
    "The quick brown fox.",
    "The quick brown dog is lazy.",
    "The",
    "Ein schneller Füchs: 狐.",
];

pub fn case() -> impl Strategy<Value = Case> {
    let store = prop_oneof![
        8 => Just(StoreFault::None),
        1 => Just(StoreFault::Failing),
        1 => (0..600_u64).prop_map(|time| StoreFault::Slow(ms(time))),
    ];
    let turn_limit = prop_oneof![2 => Just(s(120)), 1 => between(300, 60_000)];
    let mid_stream = prop_oneof![3 => Just(MidStream::Restart), 2 => Just(MidStream::Continue)];
    let hedge_after = prop_oneof![2 => Just(ms(0)), 1 => between(1, 4_000)];
    let routing = (
        1..=6_u32,
        turn_limit,
        0..=6_usize,
        0..=3_u64,
        store,
        mid_stream,
        hedge_after,
    );
    (vec(provider(), 1..=4), routing, vec(turn(), 1..=2)).prop_map(|(providers, routing, turns)| {
        let (max_attempts, turn_limit, min_chars, history, store, mid_stream, hedge_after) =
            routing;
        Case {
            providers,
            max_attempts,
            turn_limit,
            min_chars,
            old_turns: history,
            store_fault: store,
            mid_stream,
            hedge_after,
            turns,
        }
    })
}

fn between(min: u64, max: u64) -> impl Strategy<Value = Duration> {
    (min..=max).prop_map(ms)
}

/// A pause that is usually short, and sometimes longer than the time limits.
fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![4 => between(0, 400), 1 => between(400, 8_000), 1 => between(8_000, 40_000)]
}

fn provider() -> impl Strategy<Value = ProviderCase> {
    let probe = prop_oneof![
        Just(reply("pong")),
        Just(fail_with(FaultKind::ServerError)),
        Just(hang())
    ];
    let room = prop::sample::select(vec![0, 10_000, 20_000]);
    let places = prop_oneof![1 => Just(0_usize), 15 => Just(3)];
    let limits = (
        vec(between(1_000, 15_000), 1..=3),
        between(1_000, 15_000),
        between(2_000, 90_000),
    );
    let counts = (room, 0..=2_u32, places, any::<bool>(), any::<bool>());
    (vec(script(), 1..=4), probe, counts, limits).prop_map(|(scripts, probe, counts, limits)| {
        let (room, same_provider, max_concurrent, prefill, obliging) = counts;
        let (first_token, stall, attempt) = limits;
        ProviderCase {
            scripts,
            probe,
            context_tokens: room,
            prefill,
            continues_answers: obliging,
            same_provider,
            max_concurrent,
            first_token,
            stall_timeout: stall,
            attempt_timeout: attempt,
        }
    })
}

fn script() -> impl Strategy<Value = Script> {
    let opening = prop_oneof![
        6 => Just(Vec::new()),
        1 => pause().prop_map(|pause| vec![ScriptStep::Pause(pause)]),
        1 => Just(vec![ScriptStep::Think, ScriptStep::Pause(ms(900)), ScriptStep::Think]),
        1 => Just(vec![say(" \n")]),
    ];
    let pieces = vec((1..=9_usize, weighted(0.4, pause()), 0..8_u8), 0..8);
    (
        opening,
        prop::sample::select(TEXTS.to_vec()),
        pieces,
        last_act(),
    )
        .prop_map(|(opening, text, pieces, last_act)| {
            let mut script = opening;
            let mut rest = text.chars();
            for (length, pause, extra) in pieces {
                let piece: String = rest.by_ref().take(length).collect();
                script.extend((!piece.is_empty()).then_some(ScriptStep::Say(piece)));
                script.extend(pause.map(ScriptStep::Pause));
                script.extend(match extra {
                    0 => Some(ScriptStep::Think),
                    1 => Some(ScriptStep::ReportUsage(5, 1)),
                    _ => None,
                });
            }
            script.extend(last_act);
            script
        })
}

fn last_act() -> impl Strategy<Value = Option<ScriptStep>> {
    // Every fault that a provider can cause by itself.
    let faults: Vec<_> = FaultKind::ALL
        .into_iter()
        .filter(|fault| *fault != FaultKind::Diverged)
        .collect();
    let fault = prop::sample::select(faults);
    let wait = weighted(0.4, between(0, 4_000));
    let failure = (fault, wait).prop_map(|(fault, retry_after)| {
        ScriptStep::Fail(Failure {
            retry_after,
            ..Failure::new(fault)
        })
    });
    prop_oneof![
        6 => Just(Some(end())),
        8 => failure.prop_map(Some),
        1 => Just(Some(ScriptStep::Finish(FinishReason::Length))),
        1 => Just(Some(ScriptStep::Finish(FinishReason::ContentFilter))),
        1 => Just(Some(ScriptStep::Hang)),
        1 => Just(Some(ScriptStep::Panic)),
        1 => Just(Some(ScriptStep::RepeatForever("again ".to_owned(), ms(350)))),
        1 => Just(None),
    ]
}

fn turn() -> impl Strategy<Value = TurnCase> {
    let follows =
        prop_oneof![6 => Just(Some(s(999))), 1 => pause().prop_map(Some), 1 => Just(None)];
    let joiner = (
        pause(),
        pause(),
        0.0..1.0,
        prop_oneof![Just(ms(0)), pause()],
    )
        .prop_map(|(comes, stays, known, pace)| Joiner {
            joins_after: comes,
            stays_for: stays,
            known_share: known,
            read_pause: pace,
        });
    let preference = (weighted(0.2, 0..5_usize), any::<bool>());
    (
        follows,
        weighted(0.2, pause()),
        vec(joiner, 0..=2),
        preference,
    )
        .prop_map(|(follows, stop, joiners, preference)| TurnCase {
            follows_for: follows,
            stops_after: stop,
            joiners,
            preferred_provider: preference.0,
            no_failover: preference.1,
        })
}
