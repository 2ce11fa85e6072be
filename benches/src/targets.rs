//! Performance targets.

use crate::distribution::{Distribution, format_number};

/// A target with its measurement.
pub struct Target {
    pub name: &'static str,
    bound: Bound,
    pub measured: Distribution,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub fn new(name: &'static str, bound: Bound, measured: Distribution) -> Self {
        Self {
            name,
            bound,
            measured,
        }
    }

    pub fn describe_bound(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {}", format_number(bound)),
            Bound::AtMost(bound) => format!("at most {}", format_number(bound)),
        }
    }

    /// Compares the median with the bound.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured.median() >= bound,
            Bound::AtMost(bound) => self.measured.median() <= bound,
        }
    }
}
