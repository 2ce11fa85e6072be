//! Delivers the queue of one sink, in order, retrying each alert until it is delivered or dropped.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::queue::{AlertQueue, DeliveredState, QueuedAlert};
use super::rules::{AlertSeverity, AlertSubject};
use super::webhook::{DeliveryError, WebhookClient};
use crate::domain::Timestamp;
use crate::provider::backoff::Backoff;
use crate::provider::clock::Clock;
use crate::store::Store;

/// Attempts per alert. With the delays between them they take about five minutes.
const MAX_ATTEMPTS: u32 = 8;

const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(2),
    max: Duration::from_secs(120),
};

/// Lower bound of a delay: a tiny jitter would hammer a sink that has just failed.
const MIN_DELAY: Duration = Duration::from_millis(250);

/// The status page reports dropped alerts for this long.
const DROP_REPORT_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Slack,
    Webhook,
}

impl SinkKind {
    pub const ALL: [Self; 2] = [Self::Slack, Self::Webhook];

    pub const fn display_name(self) -> &'static str {
        match self {
            Self::Slack => "Slack",
            Self::Webhook => "the webhook",
        }
    }

    pub const fn document_name(self) -> &'static str {
        match self {
            Self::Slack => "alerts/slack",
            Self::Webhook => "alerts/webhook",
        }
    }
}

/// A destination of alerts with its queue.
pub struct Sink {
    kind: SinkKind,
    queue: Mutex<AlertQueue>,
    queued: Notify,
    last_error: Mutex<Option<DeliveryError>>,
}

#[derive(Clone)]
pub struct SinkContext {
    /// Keeps what the sink received.
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    /// Returns a random number in 0..1, for jitter.
    pub random_unit: fn() -> f64,
}

impl Sink {
    pub fn new(kind: SinkKind, line: AlertQueue) -> Self {
        Self {
            kind,
            queue: Mutex::new(line),
            queued: Notify::new(),
            last_error: Mutex::new(None),
        }
    }

    /// Moves the queue, with what the sink received, to the successor.
    pub fn take_queue(&self) -> AlertQueue {
        std::mem::take(&mut *self.queue.lock()).requeue()
    }

    /// The alerts that the sink received and that are not over.
    pub fn delivered_states(&self) -> Vec<DeliveredState> {
        self.queue.lock().delivered_states()
    }

    pub fn mark_sent_elsewhere(&self, known: DeliveredState) {
        self.queue.lock().mark_received(known);
    }

    pub fn mark_cleared(&self, cause: &AlertSubject, level: AlertSeverity) {
        self.queue.lock().mark_cleared(cause, level);
    }

    /// Queues an alert. Never waits.
    pub fn push(&self, alert: QueuedAlert, now: Timestamp) {
        self.queue.lock().push(alert, now);
        self.queued.notify_one();
    }

    /// Pops the next alert as if it had been delivered.
    #[cfg(test)]
    pub fn pop_delivered(&self) -> Option<super::Alert> {
        let mut line = self.queue.lock();
        let next = line.pop()?;
        line.mark_delivered(&next);
        Some(next.alert)
    }

    pub async fn run(&self, poster: WebhookClient, sending: SinkContext) {
        loop {
            // A separate statement, so that the lock is released before the await.
            let next = self.queue.lock().pop();
            match next {
                Some(alert) => self.deliver(&alert, &poster, &sending).await,
                None => self.queued.notified().await,
            }
        }
    }

    async fn deliver(&self, alert: &QueuedAlert, poster: &WebhookClient, sending: &SinkContext) {
        for attempt in 1..=MAX_ATTEMPTS {
            let Err(error) = poster.deliver(alert, sending.clock.wall()).await else {
                *self.last_error.lock() = None;
                self.queue.lock().mark_delivered(alert);
                return self.save(sending);
            };
            let is_new_error = self.last_error.lock().replace(error) != Some(error);
            if is_new_error {
                tracing::warn!(sink = self.kind.display_name(), why = %error, "alert delivery failed");
            }
            if attempt == MAX_ATTEMPTS || !error.is_retryable() {
                break;
            }
            tokio::time::sleep(
                BACKOFF
                    .delay(attempt - 1, (sending.random_unit)())
                    .max(MIN_DELAY),
            )
            .await;
        }
        tracing::error!(
            sink = self.kind.display_name(),
            event = alert.alert.event,
            "alert dropped"
        );
        self.queue.lock().drop_failed(alert, sending.clock.wall());
        self.save(sending);
    }

    /// Saves what the sink received, so that a restart repeats no alert and loses no recovery.
    fn save(&self, sending: &SinkContext) {
        let known =
            serde_json::to_string(&self.queue.lock().delivered_states()).unwrap_or_default();
        // The write is queued when the call returns. After a crash an alert may be sent twice.
        drop(
            sending
                .store
                .write_note(self.kind.document_name().to_owned(), known),
        );
    }

    /// The sink's problems for the status page, in sentences without its address.
    pub fn problems(&self, now: Timestamp) -> Vec<String> {
        let words = self.kind.display_name();
        let failing = *self.last_error.lock();
        let (waiting, (dropped, dropped_at)) = {
            let line = self.queue.lock();
            (line.waiting_count(), line.dropped())
        };
        let failing = failing.map(|error| {
            let waiting = match waiting {
                0 => String::new(),
                _ => format!(" ({waiting} more wait)"),
            };
            format!("Alerts do not reach {words}: {error}{waiting}.")
        });
        let is_recent = dropped_at.is_some_and(|at| now.since(at) < DROP_REPORT_WINDOW);
        let dropped = is_recent.then(|| match dropped {
            1 => format!("An alert to {words} was lost."),
            dropped => format!("{dropped} alerts to {words} were lost."),
        });
        failing.into_iter().chain(dropped).collect()
    }
}
