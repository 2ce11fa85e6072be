//! What the load heard: when tokens came, and how many.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use crate::script::Script;

/// One answer.
pub struct Heard {
    begun: Instant,
    last: Instant,
    reads: usize,
    tokens: usize,
    pub first: Option<Duration>,
    /// From one read with tokens to the next; a token that came together with another waited for nothing.
    pub gaps: Vec<Duration>,
    /// To its end.
    pub took: Duration,
}

impl Heard {
    /// The question goes out now.
    pub fn begin() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            last: begun,
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

    /// So many tokens were read.
    pub fn read(&mut self, tokens: usize, now: Instant) {
        self.reads += 1;
        self.took = now - self.begun;
        if tokens == 0 {
            return;
        }
        match self.first {
            None => self.first = Some(now - self.begun),
            Some(_) => self.gaps.push(now - self.last),
        }
        self.last = now;
        self.tokens += tokens;
    }

    /// So many tokens stand now: who was too far behind was told them at once.
    pub fn caught_up(&mut self, tokens: usize, now: Instant) {
        let new = tokens.saturating_sub(self.tokens);
        self.read(new, now);
    }

    /// The same, if no token is missing.
    pub fn whole(self, script: Script) -> anyhow::Result<Self> {
        ensure!(
            self.tokens == script.tokens,
            "{} tokens came of {}",
            self.tokens,
            script.tokens
        );
        Ok(self)
    }
}

/// All answers of one load.
#[derive(Default)]
pub struct Answers {
    pub firsts: Vec<Duration>,
    pub gaps: Vec<Duration>,
    pub whole: Vec<Duration>,
    pub tokens: usize,
}

impl Answers {
    pub fn add(&mut self, heard: Heard) {
        self.tokens += heard.tokens;
        self.firsts.extend(heard.first);
        self.gaps.extend(heard.gaps);
        self.whole.push(heard.took);
    }

    pub fn merge(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.firsts.extend(other.firsts);
        self.gaps.extend(other.gaps);
        self.whole.extend(other.whole);
    }
}
