//! The service's clocks.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::domain::Timestamp;

/// Monotonic time for limits, wall time for display and storage.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp::from_system_time(SystemTime::now())
    }

    /// Converts a monotonic time to wall time, by the present difference of the two clocks.
    pub fn wall_at(&self, moment: Duration) -> Timestamp {
        self.wall()
            .saturating_add(moment.saturating_sub(self.now()))
    }

    /// Converts a wall time to monotonic time; the past becomes the present.
    pub fn monotonic(&self, at: Timestamp) -> Duration {
        self.now().saturating_add(at.since(self.wall()))
    }
}
