//! The sinks that are configured: where they are, and how they want to be told.

use crate::ops::alerts::post::{Form, Poster};
use crate::ops::alerts::sign::Signer;
use crate::ops::alerts::sink::Kind;
use crate::settings::{AlertSettings, Secret, fingerprint};

/// Where a sink is, and how it wants to be told.
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

    /// What delivers there. None is said in the log; the configuration was checked before.
    pub(super) fn poster(&self) -> Option<Poster> {
        let signer = || {
            self.secret
                .as_ref()
                .and_then(|secret| Signer::new(secret.expose()))
        };
        let form = match self.kind {
            Kind::Slack => Form::Slack,
            Kind::Webhook => Form::Json(signer()),
        };
        let poster = Poster::new(&self.url, form);
        poster
            .inspect_err(|why| {
                tracing::error!(sink = self.kind.words(), why, "alerts are not sent there")
            })
            .ok()
    }
}

/// A name of the sinks that are told: the same for all instances that tell the same.
pub(super) fn name(settings: &AlertSettings) -> String {
    let urls = [&settings.slack_webhook, &settings.webhook];
    fingerprint(urls.into_iter().flatten().map(Secret::expose))
}

/// The sinks that are configured.
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
