//! Random steps for the sequence tests.

use proptest::prelude::*;

use super::*;

/// One step. Indexes choose among the calls in flight, modulo their number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Pass(Duration),
    Admit(CallOrigin),
    FirstToken(usize, Duration),
    Settle(usize, CallOutcome),
    Tick,
    Reset,
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![
        10 => prop::sample::select(faults(BreakerImpact::Failure).collect::<Vec<_>>()),
        4 => Just(FaultKind::RateLimited),
        1 => prop::sample::select(faults(BreakerImpact::Block).collect::<Vec<_>>()),
        2 => prop::sample::select(faults(BreakerImpact::Ignored).collect::<Vec<_>>()),
    ];
    let asked = prop_oneof![
        12 => Just(None),
        1 => prop::sample::select(vec![0, 5, 40, 1_000_000_000]).prop_map(|asked| Some(s(asked))),
    ];
    let outcome = prop_oneof![
        6 => Just(CallOutcome::Success),
        2 => Just(CallOutcome::Abandoned),
        6 => (fault, asked).prop_map(|(fault, asked)| failed_with_retry_after(fault, asked)),
    ];
    let origin = prop_oneof![2 => Just(CallOrigin::Turn), 1 => Just(CallOrigin::Probe)];
    let step = prop_oneof![
        10 => (0u64..1_500).prop_map(|time| Step::Pass(ms(time))),
        2 => (0u64..30_000).prop_map(|time| Step::Pass(ms(time))),
        1 => prop::sample::select(vec![0, 100, 3_600]).prop_map(|time| Step::Pass(s(time))),
        30 => origin.prop_map(Step::Admit),
        12 => (any::<usize>(), prop::sample::select(vec![50, 300, 900, 1_000, 4_000]))
            .prop_map(|(call, latency)| Step::FirstToken(call, ms(latency))),
        24 => (any::<usize>(), outcome).prop_map(|(call, outcome)| Step::Settle(call, outcome)),
        2 => Just(Step::Tick),
    ];
    // Resets are rare, because they would hide everything else.
    let step = prop_oneof![400 => step, 1 => Just(Step::Reset)];
    let steps = prop::collection::vec(step, 0..400);
    (prop_oneof![Just(Vec::new()), slowing_down()], steps)
        .prop_map(|(first, then)| [first, then].concat())
}

/// Calls that are mostly fast at first and mostly slow later.
fn slowing_down() -> impl Strategy<Value = Vec<Step>> {
    let call = (100u64..2_000, 0u32..10);
    let calls = || prop::collection::vec(call.clone(), 10..80);
    let turn = |(time, one_in_ten): (u64, u32), usual, exception| {
        let latency = if one_in_ten == 0 { exception } else { usual };
        let first_token = Step::FirstToken(0, latency);
        [
            Step::Pass(ms(time)),
            Step::Admit(CallOrigin::Turn),
            first_token,
            Step::Settle(0, CallOutcome::Success),
        ]
    };
    (calls(), calls()).prop_map(move |(fast, slow)| {
        let fast = fast.into_iter().flat_map(|call| turn(call, ms(300), s(4)));
        let slow = slow.into_iter().flat_map(|call| turn(call, s(4), ms(300)));
        fast.chain(slow).collect()
    })
}

pub(super) fn any_config() -> impl Strategy<Value = BreakerConfig> {
    let rates = prop::sample::select(vec![0.3, 0.5, 0.8, 1.0]);
    let counts = (1u32..=6, 1u32..=12, 1u32..=3, any::<bool>());
    let times = (
        prop::sample::select(vec![10, 60]),
        1u64..15,
        5u64..40,
        5u64..90,
    );
    (counts, times, rates.clone(), rates.clone(), rates).prop_map(
        |(counts, times, calls, streams, slow)| BreakerConfig {
            consecutive_failures: counts.0,
            min_calls: counts.1,
            probes: counts.2,
            recovery_probe: counts.3,
            window: s(times.0),
            open_for: s(times.1),
            open_max: s(times.2),
            blocked_for: s(times.3),
            failure_rate: calls,
            stream_failure_rate: streams,
            slow_rate: slow,
            ..BreakerConfig::default()
        },
    )
}
