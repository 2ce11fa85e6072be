//! The configured sinks: starts them and loads what they received.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::{AlertSettings, Secret, fingerprint};
use crate::ops::alerts::queue::{AlertQueue, DeliveredState};
use crate::ops::alerts::sink::{Sink, SinkContext, SinkKind};
use crate::ops::alerts::webhook::{PayloadFormat, WebhookClient, WebhookSigner};
use crate::store::Store;

/// The first poll is delayed at most this long by loading what was sent before a restart.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct SinkConfig {
    pub(super) kind: SinkKind,
    pub(super) url: Secret,
    pub(super) secret: Option<Secret>,
}

impl SinkConfig {
    fn has_same_target(&self, other: &Self) -> bool {
        self.kind == other.kind && self.url == other.url && self.secret == other.secret
    }

    /// Creates the HTTP client. Logs the error and returns `None` if that fails, which a valid
    /// configuration does not cause.
    fn webhook_client(&self) -> Option<WebhookClient> {
        let signer = || {
            self.secret
                .as_ref()
                .and_then(|secret| WebhookSigner::new(secret.expose()))
        };
        let format = match self.kind {
            SinkKind::Slack => PayloadFormat::Slack,
            SinkKind::Webhook => PayloadFormat::Json(signer()),
        };
        let client = WebhookClient::new(&self.url, format);
        client
            .inspect_err(|error| {
                tracing::error!(
                    sink = self.kind.display_name(),
                    why = error,
                    "failed to set up alert sink"
                )
            })
            .ok()
    }
}

/// A fingerprint of the configured sinks, the same for all instances that have the same sinks.
pub(super) fn sinks_fingerprint(settings: &AlertSettings) -> String {
    let urls = [&settings.slack_webhook, &settings.webhook];
    fingerprint(urls.into_iter().flatten().map(Secret::expose))
}

fn configured_sinks(settings: &AlertSettings) -> impl Iterator<Item = SinkConfig> + use<> {
    let slack = settings.slack_webhook.clone().map(|url| SinkConfig {
        kind: SinkKind::Slack,
        url,
        secret: None,
    });
    let secret = settings.webhook_secret.clone();
    let webhook = settings.webhook.clone().map(|url| SinkConfig {
        kind: SinkKind::Webhook,
        url,
        secret,
    });
    slack.into_iter().chain(webhook)
}

/// A sink and the task that delivers to it. Dropping it stops the task.
pub(super) struct RunningSink {
    pub(super) sink: Arc<Sink>,
    pub(super) config: SinkConfig,
    pub(super) task: JoinHandle<()>,
}

impl Drop for RunningSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the configured sinks. Sinks whose target is unchanged continue, all others stop.
///
/// `initial_queue` returns the queue of a sink kind that had no sink before.
pub(super) fn start_sinks(
    mut previous: Vec<RunningSink>,
    settings: &AlertSettings,
    context: &SinkContext,
    mut initial_queue: impl FnMut(SinkKind) -> AlertQueue,
) -> Vec<RunningSink> {
    let mut running = Vec::new();
    for config in configured_sinks(settings) {
        let same = previous
            .iter()
            .position(|earlier| earlier.config.has_same_target(&config));
        if let Some(same) = same {
            running.push(previous.swap_remove(same));
            continue;
        }
        let Some(client) = config.webhook_client() else {
            continue;
        };
        let earlier = previous
            .iter()
            .find(|earlier| earlier.config.kind == config.kind);
        let queue = earlier.map_or_else(
            || initial_queue(config.kind),
            |earlier| earlier.sink.take_queue(),
        );
        let sink = Arc::new(Sink::new(config.kind, queue));
        let context = context.clone();
        let delivering = Arc::clone(&sink);
        let task = actix::spawn(async move { delivering.run(client, context).await });
        running.push(RunningSink { sink, config, task });
    }
    running
}

/// Loads what a sink received before a restart. Empty if the store cannot tell.
pub(super) async fn load_delivered(store: &dyn Store, kind: SinkKind) -> Vec<DeliveredState> {
    let read =
        tokio::time::timeout(LOAD_TIMEOUT, store.note(kind.document_name().to_owned())).await;
    let text = read.ok().and_then(Result::ok).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// The alerts that every sink received. An alert missing at one sink is sent again, and the queues
/// of the others skip it.
pub(super) fn delivered_everywhere(sinks: &[Arc<Sink>]) -> Vec<DeliveredState> {
    let delivered: Vec<Vec<DeliveredState>> =
        sinks.iter().map(|sink| sink.delivered_states()).collect();
    let Some((first, others)) = delivered.split_first() else {
        return Vec::new();
    };
    let lowest = |state: &DeliveredState| {
        let level = |known: &Vec<DeliveredState>| {
            known
                .iter()
                .find(|other| other.subject == state.subject)
                .map_or(0, |other| other.severity)
        };
        let level = others
            .iter()
            .map(level)
            .fold(state.severity, std::cmp::Ord::min);
        (level > 0).then(|| DeliveredState {
            severity: level,
            ..state.clone()
        })
    };
    first.iter().filter_map(lowest).collect()
}
