//! The sinks that the configuration defines.

use crate::ops::alerts::post::{Form, Poster};
use crate::ops::alerts::sign::Signer;
use crate::ops::alerts::sink::Kind;
use crate::settings::{AlertSettings, Secret, fingerprint};

pub(super) struct Address {
    pub(super) kind: Kind,
    pub(super) url: Secret,
    pub(super) secret: Option<Secret>,
}

impl Address {
    pub(super) fn is(&self, other: &Self) -> bool {
        let secrets = match (&self.secret, &other.secret) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.kind == other.kind && self.url.is(&other.url) && secrets
    }

    /// Creates the HTTP client. Logs the error and returns `None` if that fails, which a valid
    /// configuration does not cause.
    pub(super) fn poster(&self) -> Option<Poster> {
        let signer = || {
            self.secret
                .as_ref()
                .and_then(|secret| Signer::new(secret.expose()))
        };
        let format = match self.kind {
            Kind::Slack => Form::Slack,
            Kind::Webhook => Form::Json(signer()),
        };
        let client = Poster::new(&self.url, format);
        client
            .inspect_err(|error| {
                tracing::error!(
                    sink = self.kind.words(),
                    why = error,
                    "failed to set up alert sink"
                )
            })
            .ok()
    }
}

/// A fingerprint of the configured sinks, the same for all instances that have the same sinks.
pub(super) fn name(settings: &AlertSettings) -> String {
    let urls = [&settings.slack_webhook, &settings.webhook];
    fingerprint(urls.into_iter().flatten().map(Secret::expose))
}

pub(super) fn addresses(settings: &AlertSettings) -> impl Iterator<Item = Address> + use<> {
    let slack = settings.slack_webhook.clone().map(|url| Address {
        kind: Kind::Slack,
        url,
        secret: None,
    });
    let secret = settings.webhook_secret.clone();
    let webhook = settings.webhook.clone().map(|url| Address {
        kind: Kind::Webhook,
        url,
        secret,
    });
    slack.into_iter().chain(webhook)
}
