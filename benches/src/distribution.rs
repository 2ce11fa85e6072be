//! The distribution of a figure over several rounds.

use std::fmt;
use std::time::Duration;

/// The values of all rounds, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
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

    /// Combines each round's value with the other's value of the same round.
    pub fn zip_with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(a, b)| combine(*a, *b))
                .collect(),
        )
    }

    pub fn ratio_to(&self, other: &Self) -> Self {
        self.zip_with(other, |a, b| a / b)
    }

    pub fn difference_to(&self, other: &Self) -> Self {
        self.zip_with(other, |a, b| a - b)
    }
}

/// Shows the median with minimum and maximum.
impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("");
        }
        let [min, max] = [self.at(0.0), self.at(1.0)].map(format_number);
        write!(f, "{} ({min} to {max})", format_number(self.median()))
    }
}

/// Formats a number with about three significant digits.
pub fn format_number(value: f64) -> String {
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

/// Returns the quantile: a `share` of 0.5 is the median. `NaN` if there are no values.
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

/// Returns the quantile of durations in milliseconds.
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
    fn values_are_sorted_and_shortened() {
        let distribution = Distribution(vec![3.0, 1.0, 2.0]);
        assert_eq!(distribution.to_string(), "2.00 (1.00 to 3.00)");
        assert_eq!(
            distribution
                .ratio_to(&Distribution(vec![1.0, 1.0, 4.0]))
                .median(),
            1.0
        );
        assert_eq!(format_number(-12345.6), "-12,346");
        assert_eq!(format_number(999.6), "1,000");
        assert!(quantile(&[], 0.5).is_nan());
        assert_eq!(
            quantile(&(0..=100).map(f64::from).collect::<Vec<_>>(), 0.99),
            99.0
        );
    }
}
