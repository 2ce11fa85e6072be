//! What the service is to reach.

use crate::spread::{Spread, short};

/// One goal and what was measured of it.
pub struct Goal {
    pub name: &'static str,
    bound: Bound,
    pub measured: Spread,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub fn new(name: &'static str, bound: Bound, measured: Spread) -> Self {
        Self {
            name,
            bound,
            measured,
        }
    }

    pub fn wanted(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {}", short(bound)),
            Bound::AtMost(bound) => format!("at most {}", short(bound)),
        }
    }

    /// By the median.
    pub fn reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured.median() >= bound,
            Bound::AtMost(bound) => self.measured.median() <= bound,
        }
    }
}
