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

use self::rule::{Judgement, RangeVerdict, RatioSample, UNKNOWN};
use super::alerts::rules::{AlertCondition, AlertSubject, AnomalyMetric};
use crate::turn::answer_counts::{AnswerCounts, LatencyHistogram};

pub const WINDOW_MINUTES: u64 = 5;

/// The number of past windows kept as the baseline: one week.
pub const MAX_WINDOWS: usize = 7 * 24 * 12;

const WINDOWS_PER_HOUR: usize = 12;

/// The ratio of this many windows together is checked as well: a quarter of an hour.
const POOLED_WINDOWS: usize = 3;

const MIN_FIRST_TOKENS: u64 = 50;

/// The minimum number of answers in an hour for a cost per hour.
const MIN_ANSWERS: u64 = 20;

/// The consecutive unusual windows after which an amount is out of range.
const MIN_UNUSUAL_WINDOWS: u32 = 2;

/// The consecutive usual windows after which a metric is in range again.
const MIN_USUAL_WINDOWS: u32 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsWindow {
    /// All messages, answered or not.
    #[serde(rename = "n")]
    total: u64,
    #[serde(rename = "d")]
    without_ai: u64,
    /// Messages answered from the stale cache.
    #[serde(rename = "s")]
    stale: u64,
    #[serde(rename = "c")]
    cost_usd: f64,
    /// Cost of the hour that ends with this window. `None` if it has too few answers.
    #[serde(rename = "h")]
    hourly_cost_usd: Option<f64>,
    /// The 95th percentile of the time to first token. `None` if there were too few.
    #[serde(rename = "p")]
    first_token_p95_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct AnomalyState {
    is_out_of_range: bool,
    unusual_windows: u32,
    usual_windows: u32,
}

impl AnomalyState {
    fn observe(&mut self, verdict: RangeVerdict, min_unusual: u32) {
        let in_a_row = |before, wanted| if verdict == wanted { before + 1 } else { 0 };
        self.unusual_windows = in_a_row(self.unusual_windows, RangeVerdict::Unusual);
        self.usual_windows = in_a_row(self.usual_windows, RangeVerdict::Usual);
        self.is_out_of_range = if self.is_out_of_range {
            self.usual_windows < MIN_USUAL_WINDOWS
        } else {
            self.unusual_windows >= min_unusual
        };
    }
}

/// The baseline, and the state of each metric. About 150 KB with a full week.
#[derive(Debug, Default)]
pub struct AnomalyDetector {
    /// The windows of the baseline, oldest first.
    past: VecDeque<StatsWindow>,
    /// First-token latencies of the last hour, one histogram per window, oldest first.
    recent_latencies: VecDeque<LatencyHistogram>,
    states: [AnomalyState; 4],
}

impl AnomalyDetector {
    /// Restores the saved windows, oldest first. Only the newest week is kept.
    pub fn restore(past: Vec<StatsWindow>) -> Self {
        let surplus = past.len().saturating_sub(MAX_WINDOWS);
        Self {
            past: past.into_iter().skip(surplus).collect(),
            ..Self::default()
        }
    }

    pub fn past(&self) -> impl Iterator<Item = &StatsWindow> {
        self.past.iter()
    }

    /// Adds a window to the baseline and returns the condition of each metric.
    pub fn close_window(&mut self, served: &AnswerCounts, cost_usd: f64) -> [AlertCondition; 4] {
        let now = self.build_window(served, cost_usd);
        let judged = AnomalyMetric::ALL.map(|metric| (metric, self.evaluate(metric, &now)));
        self.past.push_back(now);
        if self.past.len() > MAX_WINDOWS {
            self.past.pop_front();
        }
        let mut standings = self.states.iter_mut();
        judged.map(|(metric, judgement)| {
            let min_unusual = match metric {
                AnomalyMetric::Degraded | AnomalyMetric::Stale => 1,
                AnomalyMetric::Cost | AnomalyMetric::FirstToken => MIN_UNUSUAL_WINDOWS,
            };
            let is_out = standings.next().is_some_and(|standing| {
                standing.observe(judgement.verdict, min_unusual);
                standing.is_out_of_range
            });
            let description = describe(metric, judgement.baseline, &now);
            AlertCondition {
                subject: AlertSubject::Warning(metric),
                severity: u8::from(is_out),
                reason: is_out.then(|| format!("{}: {description}", metric.name())),
                description,
                // Windows with a drill are discarded before they get here.
                is_drill: false,
            }
        })
    }

    fn build_window(&mut self, served: &AnswerCounts, cost_usd: f64) -> StatsWindow {
        self.recent_latencies.push_back(served.first_token_latency);
        if self.recent_latencies.len() > WINDOWS_PER_HOUR {
            self.recent_latencies.pop_front();
        }
        // The newest windows that together have enough samples, at most an hour of them.
        let mut latencies = LatencyHistogram::default();
        for window in self.recent_latencies.iter().rev() {
            latencies = latencies.merged(window);
            if latencies.count() >= MIN_FIRST_TOKENS {
                break;
            }
        }
        let has_percentile =
            latencies.count() >= MIN_FIRST_TOKENS && served.first_token_latency.count() > 0;
        let previous = self.past.iter().rev().take(WINDOWS_PER_HOUR - 1);
        let (answers, cost) = previous
            .fold((served.total(), cost_usd), |(answers, cost), window| {
                (answers + window.total, cost + window.cost_usd)
            });
        let has_hour = self.past.len() >= WINDOWS_PER_HOUR - 1 && answers >= MIN_ANSWERS;
        StatsWindow {
            total: served.total(),
            without_ai: served.degraded + served.lost,
            stale: served.stale,
            cost_usd,
            hourly_cost_usd: has_hour.then_some(cost),
            first_token_p95_ms: latencies.quantile_ms(0.95).filter(|_| has_percentile),
        }
    }

    fn evaluate(&self, metric: AnomalyMetric, now: &StatsWindow) -> Judgement {
        if self.past.len() < rule::MIN_WINDOWS {
            return UNKNOWN;
        }
        let check = |count_of: fn(&StatsWindow) -> u64| {
            let pooled = |sum: RatioSample, window: &StatsWindow| RatioSample {
                count: sum.count + count_of(window),
                total: sum.total + window.total,
            };
            let past = self.past.iter().fold(RatioSample::default(), pooled);
            let current = pooled(RatioSample::default(), now);
            let recent = self
                .past
                .iter()
                .rev()
                .take(POOLED_WINDOWS - 1)
                .fold(current, pooled);
            // One window shows a jump; several together show a smaller or rarer change.
            let [single, pooled] = [current, recent].map(|share| rule::check_ratio(share, past));
            if single.verdict > pooled.verdict {
                single
            } else {
                pooled
            }
        };
        match metric {
            AnomalyMetric::Degraded => check(|window| window.without_ai),
            AnomalyMetric::Stale => check(|window| window.stale),
            AnomalyMetric::Cost => {
                // Hours that overlap the current one are no baseline for it.
                let previous = self.past.iter().rev().skip(WINDOWS_PER_HOUR - 1);
                let past = previous.filter_map(|window| window.hourly_cost_usd);
                now.hourly_cost_usd
                    .map_or(UNKNOWN, |cost| rule::check_amount(cost, past))
            }
            AnomalyMetric::FirstToken => {
                let past = self
                    .past
                    .iter()
                    .filter_map(|window| window.first_token_p95_ms);
                now.first_token_p95_ms
                    .map_or(UNKNOWN, |ms| rule::check_amount(ms, past))
            }
        }
    }
}

fn describe(metric: AnomalyMetric, usual: Option<f64>, now: &StatsWindow) -> String {
    let ratio_text = |part: u64| {
        let usual = usual.map_or(String::new(), |usual| {
            format!("Usual is {:.1} %; now ", usual * 100.0)
        });
        format!(
            "{usual}it is {part} of {} in {WINDOW_MINUTES} min.",
            now.total
        )
    };
    match metric {
        AnomalyMetric::Degraded => ratio_text(now.without_ai),
        AnomalyMetric::Stale => ratio_text(now.stale),
        AnomalyMetric::Cost => describe_amount(usual, now.hourly_cost_usd, |usd| {
            format!("${usd:.2} an hour")
        }),
        AnomalyMetric::FirstToken => describe_amount(usual, now.first_token_p95_ms, |ms| {
            format!("{:.1} s (95 % stay within)", ms / 1_000.0)
        }),
    }
}

fn describe_amount(usual: Option<f64>, now: Option<f64>, format: impl Fn(f64) -> String) -> String {
    let now = now.map_or_else(|| "not known".to_owned(), &format);
    usual.map_or_else(
        || format!("It is {now}."),
        |usual| format!("Usual is {}; now it is {now}.", format(usual)),
    )
}
