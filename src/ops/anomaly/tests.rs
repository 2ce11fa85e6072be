//! Weeks of simulated traffic: how often a steady service raises an alarm, and how soon a change
//! is detected.

use std::time::Duration;

use super::*;

/// xorshift64*, seeded so that every run is the same.
struct TestRng(u64);

impl TestRng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Between 0 and 1, never 0.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let top = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        #[allow(
            clippy::cast_precision_loss,
            reason = "53 bits are a double's own precision"
        )]
        let fraction = (top as f64 + 0.5) / (1_u64 << 53) as f64;
        fraction
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.fraction().ln()).sqrt() * (std::f64::consts::TAU * self.fraction()).cos()
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        let mut count = 0;
        let mut left = mean;
        loop {
            left += self.fraction().ln();
            if left < 0.0 {
                return count;
            }
            count += 1;
        }
    }
}

/// Simulated traffic.
#[derive(Clone, Copy)]
struct Traffic {
    /// Mean answers per window.
    answers: f64,
    /// Amplitude of the daily cycle relative to `answers`; 0 for none.
    swing: f64,
    /// The ratio of degraded answers, stale ones not included.
    degraded: f64,
    stale: f64,
    /// The median time to first token in seconds, and the standard deviation of its logarithm.
    first_words: f64,
    spread: f64,
    /// The median cost of an answer in USD.
    cost: f64,
}

const STEADY: Traffic = Traffic {
    answers: 40.0,
    swing: 0.0,
    degraded: 0.004,
    stale: 0.001,
    first_words: 0.8,
    spread: 0.6,
    cost: 0.002,
};

impl Traffic {
    /// Simulates window number `at`, counted from midnight.
    fn window(&self, at: usize, rng: &mut TestRng) -> (AnswerCounts, f64) {
        #[allow(clippy::cast_precision_loss, reason = "a window of a few weeks")]
        let day = (at as f64 / 288.0 * std::f64::consts::TAU).cos();
        let all = rng.poisson(self.answers * (1.0 - self.swing * day));
        let mut served = AnswerCounts::default();
        let mut cost = 0.0;
        for _ in 0..all {
            match rng.fraction() {
                draw if draw < self.stale => {
                    served.stale += 1;
                    served.degraded += 1;
                }
                draw if draw < self.stale + self.degraded => served.degraded += 1,
                _ => {
                    served.ai += 1;
                    let seconds = self.first_words * (self.spread * rng.normal()).exp();
                    served
                        .first_token_latency
                        .record(Duration::from_secs_f64(seconds));
                    cost += self.cost * (0.8 * rng.normal()).exp();
                }
            }
        }
        (served, cost)
    }
}

/// Counts how often each metric goes out of range in these windows.
fn alarms(
    detector: &mut AnomalyDetector,
    traffic: Traffic,
    windows: std::ops::Range<usize>,
    rng: &mut TestRng,
) -> [u32; 4] {
    let mut alarms = [0; 4];
    let mut out = detector.states.map(|standing| standing.is_out_of_range);
    for at in windows {
        let (served, cost) = traffic.window(at, rng);
        let conditions = detector.close_window(&served, cost);
        for ((alarms, out), condition) in alarms.iter_mut().zip(&mut out).zip(conditions) {
            *alarms += u32::from(condition.severity > 0 && !*out);
            *out = condition.severity > 0;
        }
    }
    alarms
}

/// Counts the false alarms of `weeks` weeks, each from an empty baseline and with its own seed.
fn false_alarms(traffic: Traffic, weeks: u64) -> [u32; 4] {
    let mut sum = [0; 4];
    for week in 0..weeks {
        let alarms = alarms(
            &mut AnomalyDetector::default(),
            traffic,
            0..MAX_WINDOWS,
            &mut TestRng::new(week + 1),
        );
        sum.iter_mut()
            .zip(alarms)
            .for_each(|(sum, alarms)| *sum += alarms);
    }
    sum
}

#[test]
fn steady_traffic_raises_almost_no_alarms() {
    for (name, traffic) in [
        ("a busy service", STEADY),
        (
            "few visitors",
            Traffic {
                answers: 3.0,
                ..STEADY
            },
        ),
        (
            "hardly any",
            Traffic {
                answers: 0.3,
                ..STEADY
            },
        ),
        (
            "many degraded answers",
            Traffic {
                degraded: 0.2,
                stale: 0.1,
                ..STEADY
            },
        ),
    ] {
        assert_eq!(
            false_alarms(traffic, 4),
            [0; 4],
            "{name}: degraded, stale, cost, first token"
        );
    }
    // With a wide spread the 95th percentile is estimated less well: two alarms in four weeks.
    let [degraded, stale, cost, first_words] = false_alarms(
        Traffic {
            spread: 1.2,
            ..STEADY
        },
        4,
    );
    assert_eq!((degraded, stale, cost), (0, 0, 0));
    assert!(first_words <= 2, "{first_words}");
}

#[test]
fn a_daily_cycle_is_usual() {
    for answers in [5.0, 40.0] {
        let traffic = Traffic {
            answers,
            swing: 0.8,
            ..STEADY
        };
        let [degraded, stale, cost, first_words] = false_alarms(traffic, 4);
        assert_eq!(
            (degraded, stale, first_words),
            (0, 0, 0),
            "{answers} answers a window"
        );
        // The first morning may raise one alarm a week.
        assert!(
            cost <= 4,
            "{cost} alarms of cost at {answers} answers a window in four first weeks"
        );
        let mut detector = AnomalyDetector::default();
        let mut rng = TestRng::new(9);
        alarms(&mut detector, traffic, 0..MAX_WINDOWS, &mut rng);
        let later = alarms(&mut detector, traffic, 0..3 * MAX_WINDOWS, &mut rng);
        assert_eq!(
            later, [0; 4],
            "{answers} answers a window, after the first week"
        );
    }
}

/// Windows from a change to the alarm of this metric, after two days of usual traffic.
fn delay(metric: AnomalyMetric, usual: Traffic, changed: Traffic, seed: u64) -> Option<usize> {
    let mut detector = AnomalyDetector::default();
    let mut rng = TestRng::new(seed);
    alarms(&mut detector, usual, 0..576, &mut rng);
    (0..48).find(|at| {
        let (served, cost) = changed.window(576 + at, &mut rng);
        let conditions = detector.close_window(&served, cost);
        conditions.iter().any(|condition| {
            condition.subject == AlertSubject::Warning(metric) && condition.severity > 0
        })
    })
}

#[test]
fn changes_are_detected_soon() {
    let few = Traffic {
        answers: 6.0,
        ..STEADY
    };
    for (name, metric, usual, changed, max) in [
        (
            "a tenth is degraded",
            AnomalyMetric::Degraded,
            STEADY,
            Traffic {
                degraded: 0.1,
                ..STEADY
            },
            4,
        ),
        (
            "half of few is degraded",
            AnomalyMetric::Degraded,
            few,
            Traffic {
                degraded: 0.5,
                ..few
            },
            5,
        ),
        (
            "a tenth is stale",
            AnomalyMetric::Stale,
            STEADY,
            Traffic {
                stale: 0.1,
                ..STEADY
            },
            4,
        ),
        (
            "answers cost four times as much",
            AnomalyMetric::Cost,
            STEADY,
            Traffic {
                cost: 0.008,
                ..STEADY
            },
            8,
        ),
        (
            "first words take three times as long",
            AnomalyMetric::FirstToken,
            STEADY,
            Traffic {
                first_words: 2.4,
                ..STEADY
            },
            4,
        ),
        (
            "the same with few visitors",
            AnomalyMetric::FirstToken,
            few,
            Traffic {
                first_words: 3.2,
                ..few
            },
            16,
        ),
    ] {
        for seed in 1..=5 {
            let delay = delay(metric, usual, changed, seed);
            assert!(
                delay.is_some_and(|windows| windows <= max),
                "{name}: {delay:?} windows, seed {seed}"
            );
        }
    }
}

#[test]
fn a_metric_recovers_and_a_lasting_change_becomes_the_baseline() {
    let mut detector = AnomalyDetector::default();
    let mut rng = TestRng::new(3);
    alarms(&mut detector, STEADY, 0..MAX_WINDOWS, &mut rng);
    let slow = Traffic {
        first_words: 4.0,
        ..STEADY
    };
    assert_eq!(alarms(&mut detector, slow, 0..6, &mut rng), [0, 0, 0, 1]);
    assert!(detector.states[3].is_out_of_range);
    alarms(&mut detector, STEADY, 6..16, &mut rng);
    assert!(!detector.states[3].is_out_of_range, "over");
    alarms(&mut detector, slow, 0..MAX_WINDOWS, &mut rng);
    assert!(!detector.states[3].is_out_of_range, "usual after a week");
}

#[test]
fn windows_survive_a_restart_and_are_bounded() {
    let mut detector = AnomalyDetector::default();
    let mut rng = TestRng::new(5);
    alarms(&mut detector, STEADY, 0..MAX_WINDOWS + 100, &mut rng);
    assert_eq!(
        (detector.past.len(), detector.recent_latencies.len()),
        (MAX_WINDOWS, WINDOWS_PER_HOUR)
    );
    let text = serde_json::to_string(&detector.past().collect::<Vec<_>>()).unwrap();
    let restored = AnomalyDetector::restore(serde_json::from_str(&text).unwrap());
    let is_close = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-9 * one.abs(),
        (one, other) => one == other,
    };
    let same = restored
        .past
        .iter()
        .zip(&detector.past)
        .all(|(one, other)| {
            one.total == other.total
                && one.without_ai == other.without_ai
                && is_close(one.hourly_cost_usd, other.hourly_cost_usd)
        });
    assert!(restored.past.len() == MAX_WINDOWS && same);
    assert!(text.len() < 250_000, "{} bytes", text.len());
}

#[test]
fn descriptions_name_the_baseline_and_the_current_value() {
    let mut detector = AnomalyDetector::default();
    let mut rng = TestRng::new(7);
    alarms(&mut detector, STEADY, 0..576, &mut rng);
    let (served, cost) = Traffic {
        degraded: 0.5,
        ..STEADY
    }
    .window(0, &mut rng);
    let conditions = detector.close_window(&served, cost);
    let words = conditions[0].reason.clone().unwrap();
    assert!(words.starts_with("degraded_share: Usual is 0."), "{words}");
    assert!(
        conditions[2].description.contains("$") && conditions[3].description.contains(" s "),
        "{conditions:?}"
    );
}
