//! Early warning: a figure leaves its usual range, before anyone complains. Pure; five minutes of service are a window, and windows are an argument.
//!
//! Watched are the share of answers without an AI, the share of old saved answers, USD an hour and what 95 % of first words stay within. What is
//! usual is learned from the windows of the last week, which are also noted in the store; the rule is in `rule`. A figure is out of its range from
//! the first unusual window (a share) or the second running (an amount) until two windows running are usual. What lasts becomes usual itself, as
//! the past takes it in.
//!
//! Where few ask, windows hold little: then first words are taken together over up to an hour, until there are fifty. Costs are always an hour's,
//! where at least twenty answers were given in it.

mod rule;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::rule::{Found, Share, UNKNOWN, Verdict};
use super::alerts::cause::{Cause, Figure, Finding};
use crate::turn::counts::{Served, Times};

/// The length of a window, in minutes.
pub const WINDOW_MINUTES: u64 = 5;

/// Windows that are remembered: a week.
pub const WEEK: usize = 7 * 24 * 12;

/// Windows of an hour.
const HOUR: usize = 12;

/// Windows whose shares are also looked at together: a quarter of an hour.
const LATELY: usize = 3;

/// First words without which nothing is said of how fast they come.
const LEAST_FIRST_WORDS: u64 = 50;

/// Answers in an hour without which nothing is said of its cost.
const LEAST_ANSWERS: u64 = 20;

/// How many windows running an amount must be unusual.
const UNUSUAL_RUN: u32 = 2;

/// How many windows running a figure must be usual, to be so again.
const USUAL_RUN: u32 = 2;

/// One window, as it is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Answers, and messages that got none.
    #[serde(rename = "n")]
    all: u64,
    /// Of those, without an AI.
    #[serde(rename = "d")]
    without_ai: u64,
    /// Of those, by an old saved answer.
    #[serde(rename = "s")]
    stale: u64,
    /// USD of this window.
    #[serde(rename = "c")]
    cost_usd: f64,
    /// USD of the hour that ends with it; none where too little was answered.
    #[serde(rename = "h")]
    cost_an_hour: Option<f64>,
    /// What 95 % of first words stayed within, in milliseconds; none where there were too few.
    #[serde(rename = "p")]
    first_words_ms: Option<f64>,
}

/// How a figure stands.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    out: bool,
    unusual_run: u32,
    usual_run: u32,
}

impl Standing {
    fn see(&mut self, verdict: Verdict, needed: u32) {
        self.unusual_run = if verdict == Verdict::Unusual {
            self.unusual_run + 1
        } else {
            0
        };
        self.usual_run = if verdict == Verdict::Usual {
            self.usual_run + 1
        } else {
            0
        };
        self.out = if self.out {
            self.usual_run < USUAL_RUN
        } else {
            self.unusual_run >= needed
        };
    }
}

/// What is usual, and how each figure stands. About 150 KB when a week is known.
#[derive(Debug, Default)]
pub struct Early {
    /// Oldest first.
    past: VecDeque<Window>,
    /// The first words of the last hour, by windows, oldest first.
    hour: VecDeque<Times>,
    standings: [Standing; 4],
}

impl Early {
    /// What an earlier process remembered, oldest first.
    pub fn recalled(past: Vec<Window>) -> Self {
        let beyond = past.len().saturating_sub(WEEK);
        Self {
            past: past.into_iter().skip(beyond).collect(),
            ..Self::default()
        }
    }

    /// What is remembered, oldest first.
    pub fn past(&self) -> impl Iterator<Item = &Window> {
        self.past.iter()
    }

    /// A window is over that brought this. Gives how each figure stands.
    pub fn close(&mut self, served: &Served, cost_usd: f64) -> [Finding; 4] {
        let now = self.window(served, cost_usd);
        let judged = Figure::ALL.map(|figure| (figure, self.judge(figure, &now)));
        self.past.push_back(now);
        if self.past.len() > WEEK {
            self.past.pop_front();
        }
        let mut standings = self.standings.iter_mut();
        judged.map(|(figure, found)| {
            let needed = match figure {
                Figure::Degraded | Figure::Stale => 1,
                Figure::Cost | Figure::FirstToken => UNUSUAL_RUN,
            };
            let out = standings.next().is_some_and(|standing| {
                standing.see(found.verdict, needed);
                standing.out
            });
            let words = words(figure, found.usual, &now);
            Finding {
                cause: Cause::Warning(figure),
                level: u8::from(out),
                reason: out.then(|| format!("{}: {words}", figure.name())),
                words,
                // What drills bring about is in no window.
                staged: false,
            }
        })
    }

    fn window(&mut self, served: &Served, cost_usd: f64) -> Window {
        self.hour.push_back(served.first_words);
        if self.hour.len() > HOUR {
            self.hour.pop_front();
        }
        let mut words = Times::default();
        for window in self.hour.iter().rev() {
            words = words.plus(window);
            if words.count() >= LEAST_FIRST_WORDS {
                break;
            }
        }
        let enough = words.count() >= LEAST_FIRST_WORDS && served.first_words.count() > 0;
        let before = self.past.iter().rev().take(HOUR - 1);
        let (answers, cost) = before.fold((served.total(), cost_usd), |(answers, cost), window| {
            (answers + window.all, cost + window.cost_usd)
        });
        let whole = self.past.len() >= HOUR - 1 && answers >= LEAST_ANSWERS;
        Window {
            all: served.total(),
            without_ai: served.degraded + served.lost,
            stale: served.stale,
            cost_usd,
            cost_an_hour: whole.then_some(cost),
            first_words_ms: words.within(0.95).filter(|_| enough),
        }
    }

    fn judge(&self, figure: Figure, now: &Window) -> Found {
        if self.past.len() < rule::LEAST_WINDOWS {
            return UNKNOWN;
        }
        let share = |kind: fn(&Window) -> u64| {
            let pooled = |sum: Share, window: &Window| Share {
                of_kind: sum.of_kind + kind(window),
                all: sum.all + window.all,
            };
            let past = self.past.iter().fold(Share::default(), pooled);
            let one = pooled(Share::default(), now);
            let lately = self.past.iter().rev().take(LATELY - 1).fold(one, pooled);
            // A jump is seen in one window, what is smaller or rarer in some together.
            let [at_once, together] = [one, lately].map(|share| rule::share(share, past));
            if at_once.verdict > together.verdict {
                at_once
            } else {
                together
            }
        };
        match figure {
            Figure::Degraded => share(|window| window.without_ai),
            Figure::Stale => share(|window| window.stale),
            Figure::Cost => {
                // An hour that overlaps this one says nothing of what is usual.
                let before = self.past.iter().rev().skip(HOUR - 1);
                let past = before.filter_map(|window| window.cost_an_hour);
                now.cost_an_hour
                    .map_or(UNKNOWN, |cost| rule::amount(cost, past))
            }
            Figure::FirstToken => {
                let past = self.past.iter().filter_map(|window| window.first_words_ms);
                now.first_words_ms
                    .map_or(UNKNOWN, |ms| rule::amount(ms, past))
            }
        }
    }
}

/// What is usual and what is, in figures.
fn words(figure: Figure, usual: Option<f64>, now: &Window) -> String {
    let share = |part: u64| {
        let usual = usual.map_or(String::new(), |usual| {
            format!("Usual is {:.1} %; now ", usual * 100.0)
        });
        format!(
            "{usual}it is {part} of {} in {WINDOW_MINUTES} min.",
            now.all
        )
    };
    match figure {
        Figure::Degraded => share(now.without_ai),
        Figure::Stale => share(now.stale),
        Figure::Cost => amount_words(usual, now.cost_an_hour, |usd| format!("${usd:.2} an hour")),
        Figure::FirstToken => amount_words(usual, now.first_words_ms, |ms| {
            format!("{:.1} s (95 % stay within)", ms / 1_000.0)
        }),
    }
}

fn amount_words(usual: Option<f64>, now: Option<f64>, written: impl Fn(f64) -> String) -> String {
    let now = now.map_or_else(|| "not known".to_owned(), &written);
    usual.map_or_else(
        || format!("It is {now}."),
        |usual| format!("Usual is {}; now it is {now}.", written(usual)),
    )
}
