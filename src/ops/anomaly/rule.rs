//! Decides whether a metric is outside its usual range. Pure.
//!
//! **Ratios** (answers without an AI, stale cached answers): `k` of the `n` answers of one window,
//! or of three together, are compared with the pooled past, whose rate is estimated as
//! `p = (K + 1) / (N + 2)` (Laplace's rule of succession, so that a past without any occurrence is
//! no certainty). The probability of `k` or more at that rate is at most `exp(-n · KL(k/n ‖ p))`
//! (Chernoff, 1952; Hoeffding, 1963). A ratio is unusual if that is below `e^-14` (one in a
//! million), if there are at least three occurrences, and if it is both twice the usual rate and
//! one percentage point above it.
//!
//! **Amounts** (cost per hour, time to first token): on their logarithms, an amount is unusual if
//! it is more than five robust deviations above the median of the past (1.4826 times the median
//! absolute deviation; Hampel, 1974; Leys et al., 2013) and more than 1.5 times the 95th percentile
//! of the past, so that a daily peak is usual. Two windows in a row are needed.
//!
//! Between usual and unusual lies a band that changes nothing, so that a metric at the edge does
//! not flicker.

/// The minimum number of past windows for any judgement: three hours.
pub const MIN_WINDOWS: usize = 36;

/// The minimum number of past amounts: half a day of windows, since neighbouring ones are alike.
const MIN_AMOUNTS: usize = 144;

/// At most this many past amounts are used; of a longer past every second, third and so on.
const MAX_SAMPLES: usize = 250;

const MIN_PAST_ANSWERS: u64 = 200;

/// Fewer occurrences in a window are never unusual.
const MIN_OCCURRENCES: u64 = 3;

/// The negative natural logarithm of the probability below which a ratio is unusual.
const MIN_SURPRISE: f64 = 14.0;

/// Robust deviations above the median.
const MAX_DEVIATIONS: f64 = 5.0;

/// Converts a median absolute deviation to the standard deviation of a normal distribution.
const MAD_TO_STDDEV: f64 = 1.4826;

/// Multiple of the past's `HIGH_QUANTILE` that a daily peak may reach.
const PEAK_FACTOR: f64 = 1.5;

const HIGH_QUANTILE: f64 = 0.95;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RangeVerdict {
    /// In the usual range, or there is no baseline yet.
    Usual,
    /// Between usual and unusual; changes nothing.
    Unclear,
    Unusual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    pub verdict: RangeVerdict,
    /// The usual ratio or the median amount. `None` without a baseline.
    pub baseline: Option<f64>,
}

pub const UNKNOWN: Judgement = Judgement {
    verdict: RangeVerdict::Usual,
    baseline: None,
};

/// `count` occurrences among `total` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatioSample {
    pub count: u64,
    pub total: u64,
}

/// Compares the ratio of the current window with that of the past.
pub fn check_ratio(now: RatioSample, past: RatioSample) -> Judgement {
    if past.total < MIN_PAST_ANSWERS {
        return UNKNOWN;
    }
    let usual = ratio(past.count + 1, past.total + 2);
    let judgement = |verdict| Judgement {
        verdict,
        baseline: Some(ratio(past.count, past.total)),
    };
    if now.count < MIN_OCCURRENCES || now.total == 0 {
        return judgement(RangeVerdict::Usual);
    }
    let current = ratio(now.count, now.total);
    if current < 2.0 * usual || current < usual + 0.01 {
        return judgement(RangeVerdict::Usual);
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let surprise = now.total as f64 * kl_divergence(current, usual);
    judgement(match surprise {
        surprise if surprise >= MIN_SURPRISE => RangeVerdict::Unusual,
        surprise if surprise >= MIN_SURPRISE / 2.0 => RangeVerdict::Unclear,
        _ => RangeVerdict::Usual,
    })
}

/// The Kullback-Leibler divergence of a coin with probability `seen` from one with probability
/// `usual`. Both are within 0 and 1, `usual` strictly.
fn kl_divergence(seen: f64, usual: f64) -> f64 {
    let part = |seen: f64, usual: f64| {
        if seen > 0.0 {
            seen * (seen / usual).ln()
        } else {
            0.0
        }
    };
    part(seen, usual) + part(1.0 - seen, 1.0 - usual)
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let ratio = part as f64 / whole as f64;
    ratio
}

/// Compares the current amount with those of the past. Amounts of zero are ignored.
pub fn check_amount(now: f64, past: impl Iterator<Item = f64>) -> Judgement {
    let past: Vec<f64> = past.filter(|amount| *amount > 0.0).collect();
    if past.len() < MIN_AMOUNTS || now <= 0.0 {
        return UNKNOWN;
    }
    let step = past.len() / MAX_SAMPLES + 1;
    let mut past: Vec<f64> = past.into_iter().step_by(step).map(f64::ln).collect();
    past.sort_by(f64::total_cmp);
    let median = quantile(&past, 0.5);
    let peak = quantile(&past, HIGH_QUANTILE);
    let mut deviations: Vec<f64> = past.iter().map(|value| (value - median).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let deviation = MAD_TO_STDDEV * quantile(&deviations, 0.5);
    let limit = (median + MAX_DEVIATIONS * deviation).max(peak + PEAK_FACTOR.ln());
    let now = now.ln();
    let verdict = match now {
        now if now > limit => RangeVerdict::Unusual,
        now if now > f64::midpoint(median, limit) => RangeVerdict::Unclear,
        _ => RangeVerdict::Usual,
    };
    Judgement {
        verdict,
        baseline: Some(median.exp()),
    }
}

/// The value that this share of the sorted values does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index in a short list"
    )]
    let index = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(of_kind: u64, all: u64) -> RatioSample {
        RatioSample {
            count: of_kind,
            total: all,
        }
    }

    #[test]
    fn a_ratio_is_judged_by_its_improbability() {
        let verdict = |now, past| check_ratio(now, past).verdict;
        // No baseline yet.
        assert_eq!(check_ratio(sample(50, 50), sample(0, 199)), UNKNOWN);
        // A tenth, where there was none in ten thousand.
        assert_eq!(
            verdict(sample(4, 40), sample(0, 10_000)),
            RangeVerdict::Unusual
        );
        assert_eq!(
            verdict(sample(3, 3), sample(0, 10_000)),
            RangeVerdict::Unusual,
            "few, but all of them"
        );
        assert_eq!(
            verdict(sample(2, 2), sample(0, 10_000)),
            RangeVerdict::Usual,
            "two are too few"
        );
        assert_eq!(
            verdict(sample(3, 400), sample(0, 10_000)),
            RangeVerdict::Usual,
            "less than a percentage point more"
        );
        // A higher usual rate needs a larger excess.
        assert_eq!(
            verdict(sample(10, 100), sample(500, 10_000)),
            RangeVerdict::Usual
        );
        assert_eq!(
            verdict(sample(17, 100), sample(500, 10_000)),
            RangeVerdict::Unclear
        );
        assert_eq!(
            verdict(sample(23, 100), sample(500, 10_000)),
            RangeVerdict::Unusual
        );
    }

    #[test]
    fn an_amount_far_above_the_past_is_unusual() {
        let past = || (0..200).map(|n| 100.0 + f64::from(n % 10));
        assert_eq!(check_amount(1_000.0, past().take(143)), UNKNOWN);
        assert_eq!(check_amount(110.0, past()).verdict, RangeVerdict::Usual);
        assert_eq!(check_amount(140.0, past()).verdict, RangeVerdict::Unclear);
        assert_eq!(check_amount(175.0, past()).verdict, RangeVerdict::Unusual);
        let usual = check_amount(175.0, past()).baseline.unwrap();
        assert!((usual - 105.0).abs() < 1.0, "{usual}");
        // A daily peak of two hours is usual up to its usual height.
        let peaks = || (0..240).map(|n| if n % 24 < 2 { 500.0 } else { 100.0 });
        assert_eq!(check_amount(550.0, peaks()).verdict, RangeVerdict::Unclear);
        assert_eq!(check_amount(800.0, peaks()).verdict, RangeVerdict::Unusual);
        assert_eq!(check_amount(0.0, past()), UNKNOWN);
    }

    #[test]
    fn a_constant_past_still_leaves_a_margin() {
        let past = || std::iter::repeat_n(10.0, 200);
        assert_eq!(check_amount(14.9, past()).verdict, RangeVerdict::Unclear);
        assert_eq!(check_amount(15.1, past()).verdict, RangeVerdict::Unusual);
    }
}
