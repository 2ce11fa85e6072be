//! Weeks of made traffic: how often a steady service is called unusual, and how soon one that has changed.

use std::time::Duration;

use super::*;

/// xorshift64*: seeded, so that a week can be made again.
struct Chance(u64);

impl Chance {
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
        let (mut count, mut left) = (0, mean);
        loop {
            left += self.fraction().ln();
            if left < 0.0 {
                return count;
            }
            count += 1;
        }
    }
}

/// A service as it is for a while.
#[derive(Clone, Copy)]
struct Traffic {
    /// Answers in five minutes, on average over a day.
    answers: f64,
    /// How much more than that at the height of the day, and less at night: 0 for the same all day.
    swing: f64,
    /// Shares.
    degraded: f64,
    stale: f64,
    /// The median time to first words in seconds, and how wide it spreads (a deviation of the logarithm).
    first_words: f64,
    spread: f64,
    /// The median cost of an answer in USD; it spreads as wide as answers' lengths do.
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
    /// The window number `at` from midnight.
    fn window(&self, at: usize, chance: &mut Chance) -> (Served, f64) {
        #[allow(clippy::cast_precision_loss, reason = "a window of a few weeks")]
        let day = (at as f64 / 288.0 * std::f64::consts::TAU).cos();
        let all = chance.poisson(self.answers * (1.0 - self.swing * day));
        let (mut served, mut cost) = (Served::default(), 0.0);
        for _ in 0..all {
            match chance.fraction() {
                lot if lot < self.stale => {
                    served.stale += 1;
                    served.degraded += 1;
                }
                lot if lot < self.stale + self.degraded => served.degraded += 1,
                _ => {
                    served.ai += 1;
                    let seconds = self.first_words * (self.spread * chance.normal()).exp();
                    served.first_words.note(Duration::from_secs_f64(seconds));
                    cost += self.cost * (0.8 * chance.normal()).exp();
                }
            }
        }
        (served, cost)
    }
}

/// How often each figure went out of its range in these windows.
fn alarms(
    early: &mut Early,
    traffic: Traffic,
    windows: std::ops::Range<usize>,
    chance: &mut Chance,
) -> [u32; 4] {
    let (mut alarms, mut out) = ([0; 4], early.standings.map(|one| one.out));
    for at in windows {
        let (served, cost) = traffic.window(at, chance);
        let found = early.close(&served, cost);
        for ((alarms, out), found) in alarms.iter_mut().zip(&mut out).zip(found) {
            *alarms += u32::from(found.level > 0 && !*out);
            *out = found.level > 0;
        }
    }
    alarms
}

/// The false alarms of this traffic over so many weeks, each from nothing known and each with a seed of its own.
fn false_alarms(traffic: Traffic, weeks: u64) -> [u32; 4] {
    let mut sum = [0; 4];
    for week in 0..weeks {
        let alarms = alarms(
            &mut Early::default(),
            traffic,
            0..WEEK,
            &mut Chance::new(week + 1),
        );
        sum.iter_mut()
            .zip(alarms)
            .for_each(|(sum, alarms)| *sum += alarms);
    }
    sum
}

#[test]
fn steady_traffic_raises_hardly_an_alarm_in_weeks() {
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
            "{name}: degraded, stale, cost, first words"
        );
    }
    // Where one time in twenty is over seven times the median, the twentieth is known less well: two in four weeks, with these seeds.
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
fn day_and_night_are_usual() {
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
        // The first morning that it sees may surprise it, once.
        assert!(
            cost <= 4,
            "{cost} alarms of cost at {answers} answers a window in four first weeks"
        );
        let (mut early, mut chance) = (Early::default(), Chance::new(9));
        alarms(&mut early, traffic, 0..WEEK, &mut chance);
        let later = alarms(&mut early, traffic, 0..3 * WEEK, &mut chance);
        assert_eq!(
            later, [0; 4],
            "{answers} answers a window, once a week is known"
        );
    }
}

/// Windows from a change to the alarm of this figure; after two days of the usual.
fn delay(figure: Figure, usual: Traffic, changed: Traffic, seed: u64) -> Option<usize> {
    let (mut early, mut chance) = (Early::default(), Chance::new(seed));
    alarms(&mut early, usual, 0..576, &mut chance);
    (0..48).find(|at| {
        let (served, cost) = changed.window(576 + at, &mut chance);
        let found = early.close(&served, cost);
        found
            .iter()
            .any(|one| one.cause == Cause::Warning(figure) && one.level > 0)
    })
}

#[test]
fn a_change_is_told_soon() {
    let few = Traffic {
        answers: 6.0,
        ..STEADY
    };
    for (name, figure, usual, changed, most) in [
        (
            "a tenth is degraded",
            Figure::Degraded,
            STEADY,
            Traffic {
                degraded: 0.1,
                ..STEADY
            },
            4,
        ),
        (
            "half of few is degraded",
            Figure::Degraded,
            few,
            Traffic {
                degraded: 0.5,
                ..few
            },
            5,
        ),
        (
            "a tenth is stale",
            Figure::Stale,
            STEADY,
            Traffic {
                stale: 0.1,
                ..STEADY
            },
            4,
        ),
        (
            "answers cost four times as much",
            Figure::Cost,
            STEADY,
            Traffic {
                cost: 0.008,
                ..STEADY
            },
            8,
        ),
        (
            "first words take three times as long",
            Figure::FirstToken,
            STEADY,
            Traffic {
                first_words: 2.4,
                ..STEADY
            },
            4,
        ),
        (
            "and where few ask",
            Figure::FirstToken,
            few,
            Traffic {
                first_words: 3.2,
                ..few
            },
            16,
        ),
    ] {
        for seed in 1..=5 {
            let delay = delay(figure, usual, changed, seed);
            assert!(
                delay.is_some_and(|windows| windows <= most),
                "{name}: {delay:?} windows, seed {seed}"
            );
        }
    }
}

#[test]
fn it_is_over_when_it_is_usual_again_and_what_lasts_becomes_usual() {
    let (mut early, mut chance) = (Early::default(), Chance::new(3));
    alarms(&mut early, STEADY, 0..WEEK, &mut chance);
    let slow = Traffic {
        first_words: 4.0,
        ..STEADY
    };
    assert_eq!(alarms(&mut early, slow, 0..6, &mut chance), [0, 0, 0, 1]);
    assert!(early.standings[3].out);
    alarms(&mut early, STEADY, 6..16, &mut chance);
    assert!(!early.standings[3].out, "over");
    alarms(&mut early, slow, 0..WEEK, &mut chance);
    assert!(!early.standings[3].out, "a week later that is how it is");
}

#[test]
fn a_restart_forgets_nothing_and_memory_is_bounded() {
    let (mut early, mut chance) = (Early::default(), Chance::new(5));
    alarms(&mut early, STEADY, 0..WEEK + 100, &mut chance);
    assert_eq!((early.past.len(), early.hour.len()), (WEEK, HOUR));
    let text = serde_json::to_string(&early.past().collect::<Vec<_>>()).unwrap();
    let back = Early::recalled(serde_json::from_str(&text).unwrap());
    let close = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-9 * one.abs(),
        (one, other) => one == other,
    };
    let same = back.past.iter().zip(&early.past).all(|(one, other)| {
        one.all == other.all
            && one.without_ai == other.without_ai
            && close(one.cost_an_hour, other.cost_an_hour)
    });
    assert!(back.past.len() == WEEK && same);
    assert!(text.len() < 250_000, "{} bytes", text.len());
}

#[test]
fn the_words_say_what_is_usual_and_what_is() {
    let (mut early, mut chance) = (Early::default(), Chance::new(7));
    alarms(&mut early, STEADY, 0..576, &mut chance);
    let (served, cost) = Traffic {
        degraded: 0.5,
        ..STEADY
    }
    .window(0, &mut chance);
    let found = early.close(&served, cost);
    let words = found[0].reason.clone().unwrap();
    assert!(words.starts_with("degraded_share: Usual is 0."), "{words}");
    assert!(
        found[2].words.contains("$") && found[3].words.contains(" s "),
        "{found:?}"
    );
}
