//! Sends what waits for one sink, one after the other, each as often as it takes, or until it is given up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::cause::{Cause, Level};
use super::line::{Envelope, Known, Line};
use super::post::{Poster, Undelivered};
use crate::chat::At;
use crate::provider::backend::Clock;
use crate::router::backoff::Backoff;
use crate::store::Store;

/// How often one alert is tried. With the waits between, that is over about five minutes.
const TRIES: u32 = 8;

/// The waits between tries.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(2),
    max: Duration::from_secs(120),
};

/// The least of such a wait: a jitter of almost nothing would hammer a sink that has just failed.
const LEAST: Duration = Duration::from_millis(250);

/// How long the status tells that alerts were lost.
const LOSS_TOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Where alerts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Slack.
    Slack,
    /// The webhook of the operator's own.
    Webhook,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Slack, Self::Webhook];

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Slack => "Slack",
            Self::Webhook => "the webhook",
        }
    }

    /// The note in the store of what it was told.
    pub const fn note(self) -> &'static str {
        match self {
            Self::Slack => "alerts/slack",
            Self::Webhook => "alerts/webhook",
        }
    }
}

/// One place where alerts go.
pub struct Sink {
    kind: Kind,
    line: Mutex<Line>,
    came: Notify,
    failing: Mutex<Option<Undelivered>>,
}

/// What sending needs besides.
#[derive(Clone)]
pub struct Sending {
    /// Where it is noted what the sink was told.
    pub store: Arc<dyn Store>,
    /// The clocks.
    pub clock: Clock,
    /// A random number in 0..1.
    pub chance: fn() -> f64,
}

impl Sink {
    /// One before which this waits.
    pub fn new(kind: Kind, line: Line) -> Self {
        Self {
            kind,
            line: Mutex::new(line),
            came: Notify::new(),
            failing: Mutex::new(None),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failing(&self) -> MutexGuard<'_, Option<Undelivered>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what waits, and what it knows, to its successor.
    pub fn handed_over(&self) -> Line {
        std::mem::take(&mut *self.line()).resumed()
    }

    /// What it was told last of what is not well.
    pub fn known(&self) -> Vec<Known> {
        self.line().known()
    }

    /// Another instance told it this, and is gone.
    pub fn learn(&self, known: Known) {
        self.line().learn(known);
    }

    /// Another instance tells it that this is no worse than `level` now.
    pub fn forget(&self, cause: &Cause, level: Level) {
        self.line().forget(cause, level);
    }

    /// Takes one more alert. Never waits.
    pub fn push(&self, envelope: Envelope, now: At) {
        self.line().push(envelope, now);
        self.came.notify_one();
    }

    /// Takes the next out of the line, as if it had been delivered.
    #[cfg(test)]
    pub fn drawn(&self) -> Option<super::Alert> {
        let mut line = self.line();
        let next = line.take()?;
        line.delivered(&next);
        Some(next.alert)
    }

    /// Sends what comes, for ever.
    pub async fn run(&self, poster: Poster, sending: Sending) {
        loop {
            // Apart, so that the lock is not held over what follows.
            let next = self.line().take();
            match next {
                Some(envelope) => self.send(&envelope, &poster, &sending).await,
                None => self.came.notified().await,
            }
        }
    }

    async fn send(&self, envelope: &Envelope, poster: &Poster, sending: &Sending) {
        for tried in 1..=TRIES {
            let Err(why) = poster.post(envelope, sending.clock.wall()).await else {
                *self.failing() = None;
                self.line().delivered(envelope);
                return self.keep(sending);
            };
            let first = self.failing().replace(why) != Some(why);
            if first {
                tracing::warn!(sink = self.kind.words(), why = %why, "an alert was not taken");
            }
            if tried == TRIES || !why.passes() {
                break;
            }
            tokio::time::sleep(BACKOFF.wait(tried - 1, (sending.chance)()).max(LEAST)).await;
        }
        tracing::error!(
            sink = self.kind.words(),
            event = envelope.alert.event,
            "an alert was given up"
        );
        self.line().given_up(envelope, sending.clock.wall());
        self.keep(sending);
    }

    /// Notes what the sink knows, so that a restart neither tells it again nor forgets to tell that it is over.
    fn keep(&self, sending: &Sending) {
        let known = serde_json::to_string(&self.line().known()).unwrap_or_default();
        // On its way when the call returns. What is lost by a crash is told twice.
        drop(sending.store.write_note(self.kind.note().to_owned(), known));
    }

    /// What is wrong with it, in sentences without its address.
    pub fn problems(&self, now: At) -> Vec<String> {
        let (words, failing) = (self.kind.words(), *self.failing());
        let (waiting, (lost, lost_at)) = {
            let line = self.line();
            (line.len(), line.lost())
        };
        let failing = failing.map(|why| {
            let waiting = if waiting > 0 {
                format!(" ({waiting} more wait)")
            } else {
                String::new()
            };
            format!("Alerts do not reach {words}: {why}{waiting}.")
        });
        let recently = lost_at.is_some_and(|at| now.since(at) < LOSS_TOLD);
        let lost = recently.then(|| match lost {
            1 => format!("An alert to {words} was lost."),
            lost => format!("{lost} alerts to {words} were lost."),
        });
        failing.into_iter().chain(lost).collect()
    }
}
