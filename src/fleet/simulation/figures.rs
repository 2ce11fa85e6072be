//! What is counted while it is played.

use std::time::Duration;

/// The figures of one scene.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Visitors' calls to the provider while it was down.
    pub calls: u64,
    /// Of these, those of the first ten seconds.
    pub calls_at_first: u64,
    /// Probes while it was down, and until all had found it well.
    pub probes: u64,
    /// Probes under way at once, at most.
    pub most_probes_at_once: u64,
    /// Breakers that opened while it was down, not counting those that were told to.
    pub opened: u64,
    /// Messages between the instances.
    pub news: u64,
    /// From when it was well until the first breaker closed, and the last.
    pub closed_first: Option<Duration>,
    pub closed_last: Option<Duration>,
    /// The most calls of visitors in any second after that, and what is usual.
    pub calls_a_second: Vec<u64>,
    pub usual: u64,
    /// Turns in all, those whose first attempt failed, those that nobody answered.
    pub turns: u64,
    pub delayed: u64,
    pub lost: u64,
}

impl Figures {
    /// The seconds from the first breaker that closed until the provider had nine tenths of its usual load.
    fn ramp(&self) -> usize {
        let first = self
            .calls_a_second
            .iter()
            .position(|calls| *calls > 0)
            .unwrap_or_default();
        let full = self
            .calls_a_second
            .iter()
            .position(|calls| calls * 10 >= self.usual * 9);
        full.map_or(0, |full| full + 1 - first)
    }

    /// As a row of the document's table.
    pub fn row(&self, what: &str, how: &str) -> String {
        let seconds = |time: Option<Duration>| {
            time.map_or("never".into(), |time| format!("{:.1}", time.as_secs_f64()))
        };
        let Self {
            calls,
            calls_at_first,
            probes,
            news,
            turns,
            delayed,
            lost,
            ..
        } = self;
        let (first, last, ramp) = (
            seconds(self.closed_first),
            seconds(self.closed_last),
            self.ramp(),
        );
        format!(
            "| {what} | {how} | {calls} | {calls_at_first} | {probes} | {news} | {delayed} of {turns} | {first} | {last} | {ramp} | {lost} |"
        )
    }
}
