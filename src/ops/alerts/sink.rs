//! Delivers the queue of one sink, in order, retrying each alert until it is delivered or dropped.

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

/// Attempts per alert. With the delays between them they take about five minutes.
const TRIES: u32 = 8;

const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(2),
    max: Duration::from_secs(120),
};

/// Lower bound of a delay: a tiny jitter would hammer a sink that has just failed.
const LEAST: Duration = Duration::from_millis(250);

/// The status page reports dropped alerts for this long.
const LOSS_TOLD: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Slack,
    Webhook,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Slack, Self::Webhook];

    pub const fn words(self) -> &'static str {
        match self {
            Self::Slack => "Slack",
            Self::Webhook => "the webhook",
        }
    }

    pub const fn note(self) -> &'static str {
        match self {
            Self::Slack => "alerts/slack",
            Self::Webhook => "alerts/webhook",
        }
    }
}

/// A destination of alerts with its queue.
pub struct Sink {
    kind: Kind,
    line: Mutex<Line>,
    came: Notify,
    failing: Mutex<Option<Undelivered>>,
}

#[derive(Clone)]
pub struct Sending {
    /// Keeps what the sink received.
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    /// Returns a random number in 0..1, for jitter.
    pub chance: fn() -> f64,
}

impl Sink {
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

    /// Moves the queue, with what the sink received, to the successor.
    pub fn handed_over(&self) -> Line {
        std::mem::take(&mut *self.line()).resumed()
    }

    /// The alerts that the sink received and that are not over.
    pub fn known(&self) -> Vec<Known> {
        self.line().known()
    }

    pub fn learn(&self, known: Known) {
        self.line().learn(known);
    }

    pub fn forget(&self, cause: &Cause, level: Level) {
        self.line().forget(cause, level);
    }

    /// Queues an alert. Never waits.
    pub fn push(&self, alert: Envelope, now: At) {
        self.line().push(alert, now);
        self.came.notify_one();
    }

    /// Pops the next alert as if it had been delivered.
    #[cfg(test)]
    pub fn drawn(&self) -> Option<super::Alert> {
        let mut line = self.line();
        let next = line.take()?;
        line.delivered(&next);
        Some(next.alert)
    }

    pub async fn run(&self, poster: Poster, sending: Sending) {
        loop {
            // A separate statement, so that the lock is released before the await.
            let next = self.line().take();
            match next {
                Some(alert) => self.send(&alert, &poster, &sending).await,
                None => self.came.notified().await,
            }
        }
    }

    async fn send(&self, alert: &Envelope, poster: &Poster, sending: &Sending) {
        for attempt in 1..=TRIES {
            let Err(error) = poster.post(alert, sending.clock.wall()).await else {
                *self.failing() = None;
                self.line().delivered(alert);
                return self.keep(sending);
            };
            let is_new_error = self.failing().replace(error) != Some(error);
            if is_new_error {
                tracing::warn!(sink = self.kind.words(), why = %error, "alert delivery failed");
            }
            if attempt == TRIES || !error.passes() {
                break;
            }
            tokio::time::sleep(BACKOFF.wait(attempt - 1, (sending.chance)()).max(LEAST)).await;
        }
        tracing::error!(
            sink = self.kind.words(),
            event = alert.alert.event,
            "alert dropped"
        );
        self.line().given_up(alert, sending.clock.wall());
        self.keep(sending);
    }

    /// Saves what the sink received, so that a restart repeats no alert and loses no recovery.
    fn keep(&self, sending: &Sending) {
        let known = serde_json::to_string(&self.line().known()).unwrap_or_default();
        // The write is queued when the call returns. After a crash an alert may be sent twice.
        drop(sending.store.write_note(self.kind.note().to_owned(), known));
    }

    /// The sink's problems for the status page, in sentences without its address.
    pub fn problems(&self, now: At) -> Vec<String> {
        let words = self.kind.words();
        let failing = *self.failing();
        let (waiting, (dropped, dropped_at)) = {
            let line = self.line();
            (line.len(), line.lost())
        };
        let failing = failing.map(|error| {
            let waiting = if waiting > 0 {
                format!(" ({waiting} more wait)")
            } else {
                String::new()
            };
            format!("Alerts do not reach {words}: {error}{waiting}.")
        });
        let is_recent = dropped_at.is_some_and(|at| now.since(at) < LOSS_TOLD);
        let dropped = is_recent.then(|| match dropped {
            1 => format!("An alert to {words} was lost."),
            dropped => format!("{dropped} alerts to {words} were lost."),
        });
        failing.into_iter().chain(dropped).collect()
    }
}
