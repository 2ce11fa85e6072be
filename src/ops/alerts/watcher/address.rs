//! The sinks that the configuration defines.

use crate::config::{AlertSettings, Secret, fingerprint};
use crate::ops::alerts::sign::WebhookSigner;
use crate::ops::alerts::sink::SinkKind;
use crate::ops::alerts::webhook::{PayloadFormat, WebhookClient};

pub(super) struct SinkConfig {
    pub(super) kind: SinkKind,
    pub(super) url: Secret,
    pub(super) secret: Option<Secret>,
}

impl SinkConfig {
    pub(super) fn has_same_target(&self, other: &Self) -> bool {
        self.kind == other.kind && self.url == other.url && self.secret == other.secret
    }

    /// Creates the HTTP client. Logs the error and returns `None` if that fails, which a valid
    /// configuration does not cause.
    pub(super) fn webhook_client(&self) -> Option<WebhookClient> {
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

pub(super) fn configured_sinks(
    settings: &AlertSettings,
) -> impl Iterator<Item = SinkConfig> + use<> {
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
