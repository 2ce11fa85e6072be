//! Anomaly detection: raises an early warning when a metric leaves its usual range. Pure: the
//! caller passes in one window per five minutes of service.
//!
//! The metrics are the ratio of answers without an AI, the ratio of stale cached answers, the cost
//! per hour and the 95th percentile of the time to first token. The baseline is the windows of the
//! last week, which are also saved in the store; `rule` has the statistics. A metric is out of
//! range from its first unusual window (a ratio) or its second in a row (an amount) until two
//! windows in a row are usual. A lasting change becomes the baseline itself.
//!
//! Windows of a quiet service hold few samples. First tokens are therefore pooled over up to an
//! hour until there are fifty. Costs always cover an hour, with at least twenty answers in it.

mod rule;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::rule::{Found, Share, UNKNOWN, Verdict};
use super::alerts::cause::{Cause, Figure, Finding};
use crate::turn::counts::{Served, Times};

pub const WINDOW_MINUTES: u64 = 5;

/// The number of past windows kept as the baseline: one week.
pub const WEEK: usize = 7 * 24 * 12;

const HOUR: usize = 12;

/// The ratio of this many windows together is checked as well: a quarter of an hour.
const LATELY: usize = 3;

const LEAST_FIRST_WORDS: u64 = 50;

/// The minimum number of answers in an hour for a cost per hour.
const LEAST_ANSWERS: u64 = 20;

/// The consecutive unusual windows after which an amount is out of range.
const UNUSUAL_RUN: u32 = 2;

/// The consecutive usual windows after which a metric is in range again.
const USUAL_RUN: u32 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// All messages, answered or not.
    #[serde(rename = "n")]
    all: u64,
    #[serde(rename = "d")]
    without_ai: u64,
    /// Messages answered from the stale cache.
    #[serde(rename = "s")]
    stale: u64,
    #[serde(rename = "c")]
    cost_usd: f64,
    /// Cost of the hour that ends with this window. `None` if it has too few answers.
    #[serde(rename = "h")]
    cost_an_hour: Option<f64>,
    /// The 95th percentile of the time to first token. `None` if there were too few.
    #[serde(rename = "p")]
    first_words_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    out: bool,
    unusual_run: u32,
    usual_run: u32,
}

impl Standing {
    fn see(&mut self, verdict: Verdict, min_unusual: u32) {
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
            self.unusual_run >= min_unusual
        };
    }
}

/// The baseline, and the state of each metric. About 150 KB with a full week.
#[derive(Debug, Default)]
pub struct Early {
    /// The windows of the baseline, oldest first.
    past: VecDeque<Window>,
    /// First-token latencies of the last hour, one histogram per window, oldest first.
    hour: VecDeque<Times>,
    standings: [Standing; 4],
}

impl Early {
    /// Restores the saved windows, oldest first. Only the newest week is kept.
    pub fn recalled(past: Vec<Window>) -> Self {
        let surplus = past.len().saturating_sub(WEEK);
        Self {
            past: past.into_iter().skip(surplus).collect(),
            ..Self::default()
        }
    }

    pub fn past(&self) -> impl Iterator<Item = &Window> {
        self.past.iter()
    }

    /// Adds a window to the baseline and returns the condition of each metric.
    pub fn close(&mut self, served: &Served, cost_usd: f64) -> [Finding; 4] {
        let now = self.window(served, cost_usd);
        let judged = Figure::ALL.map(|metric| (metric, self.judge(metric, &now)));
        self.past.push_back(now);
        if self.past.len() > WEEK {
            self.past.pop_front();
        }
        let mut standings = self.standings.iter_mut();
        judged.map(|(metric, judgement)| {
            let min_unusual = match metric {
                Figure::Degraded | Figure::Stale => 1,
                Figure::Cost | Figure::FirstToken => UNUSUAL_RUN,
            };
            let is_out = standings.next().is_some_and(|standing| {
                standing.see(judgement.verdict, min_unusual);
                standing.out
            });
            let description = words(metric, judgement.usual, &now);
            Finding {
                cause: Cause::Warning(metric),
                level: u8::from(is_out),
                reason: is_out.then(|| format!("{}: {description}", metric.name())),
                words: description,
                // Windows with a drill are discarded before they get here.
                staged: false,
            }
        })
    }

    fn window(&mut self, served: &Served, cost_usd: f64) -> Window {
        self.hour.push_back(served.first_words);
        if self.hour.len() > HOUR {
            self.hour.pop_front();
        }
        // The newest windows that together have enough samples, at most an hour of them.
        let mut latencies = Times::default();
        for window in self.hour.iter().rev() {
            latencies = latencies.plus(window);
            if latencies.count() >= LEAST_FIRST_WORDS {
                break;
            }
        }
        let has_percentile =
            latencies.count() >= LEAST_FIRST_WORDS && served.first_words.count() > 0;
        let previous = self.past.iter().rev().take(HOUR - 1);
        let (answers, cost) = previous
            .fold((served.total(), cost_usd), |(answers, cost), window| {
                (answers + window.all, cost + window.cost_usd)
            });
        let has_hour = self.past.len() >= HOUR - 1 && answers >= LEAST_ANSWERS;
        Window {
            all: served.total(),
            without_ai: served.degraded + served.lost,
            stale: served.stale,
            cost_usd,
            cost_an_hour: has_hour.then_some(cost),
            first_words_ms: latencies.within(0.95).filter(|_| has_percentile),
        }
    }

    fn judge(&self, metric: Figure, now: &Window) -> Found {
        if self.past.len() < rule::LEAST_WINDOWS {
            return UNKNOWN;
        }
        let check = |count_of: fn(&Window) -> u64| {
            let pooled = |sum: Share, window: &Window| Share {
                of_kind: sum.of_kind + count_of(window),
                all: sum.all + window.all,
            };
            let past = self.past.iter().fold(Share::default(), pooled);
            let current = pooled(Share::default(), now);
            let recent = self
                .past
                .iter()
                .rev()
                .take(LATELY - 1)
                .fold(current, pooled);
            // One window shows a jump; several together show a smaller or rarer change.
            let [single, pooled] = [current, recent].map(|share| rule::share(share, past));
            if single.verdict > pooled.verdict {
                single
            } else {
                pooled
            }
        };
        match metric {
            Figure::Degraded => check(|window| window.without_ai),
            Figure::Stale => check(|window| window.stale),
            Figure::Cost => {
                // Hours that overlap the current one are no baseline for it.
                let previous = self.past.iter().rev().skip(HOUR - 1);
                let past = previous.filter_map(|window| window.cost_an_hour);
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

fn words(metric: Figure, usual: Option<f64>, now: &Window) -> String {
    let ratio_text = |part: u64| {
        let usual = usual.map_or(String::new(), |usual| {
            format!("Usual is {:.1} %; now ", usual * 100.0)
        });
        format!(
            "{usual}it is {part} of {} in {WINDOW_MINUTES} min.",
            now.all
        )
    };
    match metric {
        Figure::Degraded => ratio_text(now.without_ai),
        Figure::Stale => ratio_text(now.stale),
        Figure::Cost => amount_words(usual, now.cost_an_hour, |usd| format!("${usd:.2} an hour")),
        Figure::FirstToken => amount_words(usual, now.first_words_ms, |ms| {
            format!("{:.1} s (95 % stay within)", ms / 1_000.0)
        }),
    }
}

fn amount_words(usual: Option<f64>, now: Option<f64>, format: impl Fn(f64) -> String) -> String {
    let now = now.map_or_else(|| "not known".to_owned(), &format);
    usual.map_or_else(
        || format!("It is {now}."),
        |usual| format!("Usual is {}; now it is {now}.", format(usual)),
    )
}
