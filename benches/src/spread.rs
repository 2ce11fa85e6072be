//! What several rounds came to.

use std::fmt;
use std::time::Duration;

/// The values of all rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn at(&self, share: f64) -> f64 {
        quantile(&self.0, share)
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// Each round's value against the same round's of another.
    pub fn against(&self, other: &Self, how: impl Fn(f64, f64) -> f64) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(one, other)| how(*one, *other))
                .collect(),
        )
    }

    pub fn times(&self, other: &Self) -> Self {
        self.against(other, |one, other| one / other)
    }

    pub fn minus(&self, other: &Self) -> Self {
        self.against(other, |one, other| one - other)
    }
}

/// The median, with the least and the most.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("");
        }
        let [least, most] = [self.at(0.0), self.at(1.0)].map(short);
        write!(f, "{} ({least} to {most})", short(self.median()))
    }
}

/// A number with three digits that say something.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => {
            let whole = format!("{:.0}", value.abs());
            let mut grouped = String::new();
            for (n, digit) in whole.chars().enumerate() {
                if n > 0 && (whole.len() - n) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            if value < 0.0 {
                format!("-{grouped}")
            } else {
                grouped
            }
        }
    }
}

/// The value below which this share lies: 0.5 is the median. Not a number where there is none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let at = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The same of times, in milliseconds.
pub fn millis(times: &[Duration], share: f64) -> f64 {
    let values: Vec<_> = times
        .iter()
        .map(|time| time.as_secs_f64() * 1000.0)
        .collect();
    quantile(&values, share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_order_and_told_shortly() {
        let spread = Spread(vec![3.0, 1.0, 2.0]);
        assert_eq!(spread.to_string(), "2.00 (1.00 to 3.00)");
        assert_eq!(spread.times(&Spread(vec![1.0, 1.0, 4.0])).median(), 1.0);
        assert_eq!(short(-12345.6), "-12,346");
        assert_eq!(short(999.6), "1,000");
        assert!(quantile(&[], 0.5).is_nan());
        assert_eq!(
            quantile(&(0..=100).map(f64::from).collect::<Vec<_>>(), 0.99),
            99.0
        );
    }
}
