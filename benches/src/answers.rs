//! Arrival times and counts of the tokens which the load receives.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use crate::script::Script;

/// The timing of one answer.
pub struct AnswerTiming {
    started: Instant,
    last: Instant,
    reads: usize,
    tokens: usize,
    pub first: Option<Duration>,
    /// The times between two reads with tokens. Tokens within one read have no gap.
    pub gaps: Vec<Duration>,
    /// The time until the last read.
    pub took: Duration,
}

impl AnswerTiming {
    /// Starts the clock, when the question is sent.
    pub fn begin() -> Self {
        let started = Instant::now();
        Self {
            started,
            last: started,
            reads: 0,
            tokens: 0,
            first: None,
            gaps: Vec::new(),
            took: Duration::ZERO,
        }
    }

    pub fn reads(&self) -> usize {
        self.reads
    }

    /// Records a read with this many tokens.
    pub fn read(&mut self, tokens: usize, now: Instant) {
        self.reads += 1;
        self.took = now - self.started;
        if tokens == 0 {
            return;
        }
        match self.first {
            None => self.first = Some(now - self.started),
            Some(_) => self.gaps.push(now - self.last),
        }
        self.last = now;
        self.tokens += tokens;
    }

    /// Records a snapshot with this many tokens in total, which a slow reader gets instead of the
    /// single tokens.
    pub fn caught_up(&mut self, tokens: usize, now: Instant) {
        let new = tokens.saturating_sub(self.tokens);
        self.read(new, now);
    }

    /// Fails if a token is missing.
    pub fn require_tokens(self, script: Script) -> anyhow::Result<Self> {
        ensure!(
            self.tokens == script.tokens,
            "{} tokens received of {}",
            self.tokens,
            script.tokens
        );
        Ok(self)
    }
}

/// The timings of all answers of one load.
#[derive(Default)]
pub struct LoadResult {
    pub firsts: Vec<Duration>,
    pub gaps: Vec<Duration>,
    pub totals: Vec<Duration>,
    pub tokens: usize,
}

impl LoadResult {
    pub fn add(&mut self, timing: AnswerTiming) {
        self.tokens += timing.tokens;
        self.firsts.extend(timing.first);
        self.gaps.extend(timing.gaps);
        self.totals.push(timing.took);
    }

    pub fn merge(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.firsts.extend(other.firsts);
        self.gaps.extend(other.gaps);
        self.totals.extend(other.totals);
    }
}
