//! Statistics of a simulation.

use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct SimulationStats {
    /// Visitors' calls to the preferred provider during the outage.
    pub calls: u64,
    /// The calls of the outage's first ten seconds.
    pub early_calls: u64,
    /// Probes during the outage, and until all instances had recovered.
    pub probes: u64,
    pub max_concurrent_probes: u64,
    /// Breakers that opened during the outage on their own observations.
    pub opened: u64,
    pub messages: u64,
    /// From the end of the outage until the first and the last breaker closed.
    pub closed_first: Option<Duration>,
    pub closed_last: Option<Duration>,
    /// Visitors' calls in each second after the outage, and the usual rate.
    pub calls_per_second: Vec<u64>,
    pub normal_calls_per_second: u64,
    /// All turns, those whose first attempt failed, and those without an answer.
    pub turns: u64,
    pub delayed: u64,
    pub unanswered: u64,
}

impl SimulationStats {
    /// Seconds from the first closed breaker until the provider had 90 % of its usual load.
    fn ramp_seconds(&self) -> usize {
        let first = self
            .calls_per_second
            .iter()
            .position(|calls| *calls > 0)
            .unwrap_or_default();
        let full = self
            .calls_per_second
            .iter()
            .position(|calls| calls * 10 >= self.normal_calls_per_second * 9);
        full.map_or(0, |full| full + 1 - first)
    }

    pub fn table_row(&self, failure: &str, mode: &str) -> String {
        let seconds = |time: Option<Duration>| {
            time.map_or("never".into(), |time| format!("{:.1}", time.as_secs_f64()))
        };
        let Self {
            calls,
            early_calls: calls_at_first,
            probes,
            messages: news,
            turns,
            delayed,
            unanswered: lost,
            ..
        } = self;
        let first = seconds(self.closed_first);
        let last = seconds(self.closed_last);
        let ramp = self.ramp_seconds();
        format!(
            "| {failure} | {mode} | {calls} | {calls_at_first} | {probes} | {news} | {delayed} of {turns} | {first} | {last} | {ramp} | {lost} |"
        )
    }
}
