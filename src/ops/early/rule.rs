//! When a figure is out of its usual range. Pure.
//!
//! **Shares** (answers without an AI, old saved answers): `k` of the `n` answers of a window, or of three together, against the pooled past, whose rate is taken as
//! `p = (K + 1) / (N + 2)` (Laplace's rule of succession, so that a past without one is no certainty). The chance of `k` or more at that rate is at
//! most `exp(-n · KL(k/n ‖ p))` (Chernoff, 1952; Hoeffding, 1963), and unusual is what has a chance of less than `e^-14`, a millionth, is at least
//! three answers, twice the usual and a percent point more than it.
//!
//! **Amounts** (USD an hour, time to first words): on their logarithms, unusual is what lies more than five robust deviations over the median of
//! the past (1.4826 times the median absolute deviation; Hampel, 1974, Leys et al., 2013), and over one and a half times what 95 % of the past
//! stayed within, so that a daily peak is usual; in two windows running.
//!
//! Between unusual and usual lies a stretch that changes nothing, so that a figure at the edge does not flicker.

/// Windows of the past without which nothing is usual yet: three hours.
pub const LEAST_WINDOWS: usize = 36;

/// Amounts of the past without which no amount is usual yet: half a day of windows, since those that follow each other are alike.
const LEAST_AMOUNTS: usize = 144;

/// Amounts of the past that are looked at, at most: of a longer past every second, third and so on.
const LOOKED_AT: usize = 250;

/// Answers of the past without which no share is usual yet.
const LEAST_ANSWERS: u64 = 200;

/// Fewer of a kind are no share.
const LEAST_OF_A_KIND: u64 = 3;

/// How unlikely an unusual share is: the negative natural logarithm of its chance.
const UNLIKELY: f64 = 14.0;

/// Robust deviations over the median.
const DEVIATIONS: f64 = 5.0;

/// From the median absolute deviation to the standard deviation of a normal distribution.
const TO_DEVIATION: f64 = 1.4826;

/// Times what nearly all of the past stayed within.
const OVER_MOST: f64 = 1.5;

/// What nearly all is.
const MOST: f64 = 0.95;

/// What a window says of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// In the usual range, or nothing is known.
    Usual,
    /// Neither.
    Unclear,
    /// Out of it.
    Unusual,
}

/// What is found, with what is usual where that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The verdict.
    pub verdict: Verdict,
    /// The usual share, or the median amount.
    pub usual: Option<f64>,
}

/// Nothing is known, so nothing is unusual.
pub const UNKNOWN: Found = Found {
    verdict: Verdict::Usual,
    usual: None,
};

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Of the kind.
    pub of_kind: u64,
    /// All.
    pub all: u64,
}

/// A share of this window against that of the past.
pub fn share(now: Share, past: Share) -> Found {
    if past.all < LEAST_ANSWERS {
        return UNKNOWN;
    }
    let usual = ratio(past.of_kind + 1, past.all + 2);
    let found = |verdict| Found {
        verdict,
        usual: Some(ratio(past.of_kind, past.all)),
    };
    if now.of_kind < LEAST_OF_A_KIND || now.all == 0 {
        return found(Verdict::Usual);
    }
    let seen = ratio(now.of_kind, now.all);
    if seen < 2.0 * usual || seen < usual + 0.01 {
        return found(Verdict::Usual);
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let unlikely = now.all as f64 * divergence(seen, usual);
    found(match unlikely {
        much if much >= UNLIKELY => Verdict::Unusual,
        some if some >= UNLIKELY / 2.0 => Verdict::Unclear,
        _ => Verdict::Usual,
    })
}

/// The Kullback-Leibler divergence of a coin that falls `seen` from one that falls `usual`, both within 0 and 1, `usual` strictly.
fn divergence(seen: f64, usual: f64) -> f64 {
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

/// An amount of this window, greater than zero, against those of the past.
pub fn amount(now: f64, past: impl Iterator<Item = f64>) -> Found {
    let past: Vec<f64> = past.filter(|one| *one > 0.0).collect();
    if past.len() < LEAST_AMOUNTS || now <= 0.0 {
        return UNKNOWN;
    }
    let every = past.len() / LOOKED_AT + 1;
    let mut past: Vec<f64> = past.into_iter().step_by(every).map(f64::ln).collect();
    past.sort_by(f64::total_cmp);
    let median = at(&past, 0.5);
    let most = at(&past, MOST);
    let mut apart: Vec<f64> = past.iter().map(|one| (one - median).abs()).collect();
    apart.sort_by(f64::total_cmp);
    let deviation = TO_DEVIATION * at(&apart, 0.5);
    let limit = (median + DEVIATIONS * deviation).max(most + OVER_MOST.ln());
    let now = now.ln();
    let verdict = match now {
        now if now > limit => Verdict::Unusual,
        now if now > f64::midpoint(median, limit) => Verdict::Unclear,
        _ => Verdict::Usual,
    };
    Found {
        verdict,
        usual: Some(median.exp()),
    }
}

/// What this share of sorted values stays within.
fn at(sorted: &[f64], share: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a short list"
    )]
    let place = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(of_kind: u64, all: u64) -> Share {
        Share { of_kind, all }
    }

    #[test]
    fn a_share_is_unusual_by_how_unlikely_it_is() {
        let verdict = |now, past| share(now, past).verdict;
        // Nothing is usual yet.
        assert_eq!(share(of(50, 50), of(0, 199)), UNKNOWN);
        // A tenth where there was none in ten thousand.
        assert_eq!(verdict(of(4, 40), of(0, 10_000)), Verdict::Unusual);
        assert_eq!(
            verdict(of(3, 3), of(0, 10_000)),
            Verdict::Unusual,
            "few, and all of them"
        );
        assert_eq!(
            verdict(of(2, 2), of(0, 10_000)),
            Verdict::Usual,
            "two are none"
        );
        assert_eq!(
            verdict(of(3, 400), of(0, 10_000)),
            Verdict::Usual,
            "less than a percent point more"
        );
        // What is often so needs more.
        assert_eq!(verdict(of(10, 100), of(500, 10_000)), Verdict::Usual);
        assert_eq!(verdict(of(17, 100), of(500, 10_000)), Verdict::Unclear);
        assert_eq!(verdict(of(23, 100), of(500, 10_000)), Verdict::Unusual);
    }

    #[test]
    fn an_amount_is_unusual_far_over_all_that_was() {
        let past = || (0..200).map(|n| 100.0 + f64::from(n % 10));
        assert_eq!(amount(1_000.0, past().take(143)), UNKNOWN);
        assert_eq!(amount(110.0, past()).verdict, Verdict::Usual);
        assert_eq!(amount(140.0, past()).verdict, Verdict::Unclear);
        assert_eq!(amount(175.0, past()).verdict, Verdict::Unusual);
        let usual = amount(175.0, past()).usual.unwrap();
        assert!((usual - 105.0).abs() < 1.0, "{usual}");
        // A peak of two hours a day is usual, if it is as high as always.
        let peaks = || (0..240).map(|n| if n % 24 < 2 { 500.0 } else { 100.0 });
        assert_eq!(amount(550.0, peaks()).verdict, Verdict::Unclear);
        assert_eq!(amount(800.0, peaks()).verdict, Verdict::Unusual);
        assert_eq!(amount(0.0, past()), UNKNOWN);
    }

    #[test]
    fn a_steady_past_has_no_deviation_and_a_margin_all_the_same() {
        let past = || std::iter::repeat_n(10.0, 200);
        assert_eq!(amount(14.9, past()).verdict, Verdict::Unclear);
        assert_eq!(amount(15.1, past()).verdict, Verdict::Unusual);
    }
}
