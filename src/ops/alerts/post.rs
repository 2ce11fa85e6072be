//! One attempt to deliver one alert.
//!
//! A single POST that takes at most 8 s. Redirects are not followed, and the body of the response
//! is not read.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};

use super::line::Envelope;
use super::sign::Signer;
use super::target::{PrivateAddress, Resolver};
use crate::chat::At;
use crate::provider::transport;
use crate::settings::Secret;

pub const LIMIT: Duration = Duration::from_secs(8);

const CONNECT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// No connection, or it broke.
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it does not answer within 8 s")]
    Late,
    #[error("its public name leads to a private address, which is not called")]
    Private,
    #[error("it redirects elsewhere, which is not followed")]
    Redirected,
    #[error("it answers with status {0}")]
    Refused(u16),
}

impl Undelivered {
    pub fn passes(self) -> bool {
        match self {
            Self::Unreachable | Self::Late => true,
            Self::Private | Self::Redirected => false,
            Self::Refused(status) => status >= 500 || matches!(status, 408 | 409 | 425 | 429),
        }
    }
}

/// Returns `true` if the request failed because of a [`PrivateAddress`].
pub fn is_private(error: &reqwest::Error) -> bool {
    std::iter::successors(error.source(), |&cause| cause.source())
        .any(|cause| cause.is::<PrivateAddress>())
}

pub enum Form {
    /// As Slack's incoming webhooks expect it.
    Slack,
    /// JSON, signed if there is a secret.
    Json(Option<Signer>),
}

/// Delivers alerts to one URL.
pub struct Poster {
    client: Client,
    url: Url,
    form: Form,
}

impl Poster {
    /// Fails if the URL is invalid or TLS cannot be set up. The error omits the URL, which may be a
    /// secret.
    pub fn new(address: &Secret, form: Form) -> Result<Self, &'static str> {
        let url = Url::parse(address.expose()).map_err(|_| "an address for alerts is no URL")?;
        let host = url.host_str().unwrap_or_default();
        let resolver = Arc::new(Resolver::to(host));
        let is_loopback = transport::is_loopback(&url);
        let client = transport::client(CONNECT, |builder| {
            let builder = builder.dns_resolver(Arc::clone(&resolver));
            if is_loopback {
                builder.no_proxy()
            } else {
                builder
            }
        });
        Ok(Self {
            client: client.map_err(|_| "no HTTP client can be made for alerts")?,
            url,
            form,
        })
    }

    pub async fn post(&self, alert: &Envelope, now: At) -> Result<(), Undelivered> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json");
        let request = match &self.form {
            Form::Slack => request.body(alert.alert.for_slack()),
            Form::Json(signer) => {
                let body = serde_json::to_string(&alert.alert).unwrap_or_default();
                let timestamp = now.0 / 1_000;
                let mut request = request
                    .header("webhook-id", &alert.id)
                    .header("webhook-timestamp", timestamp);
                if let Some(signer) = signer {
                    request = request.header(
                        "webhook-signature",
                        signer.sign(&alert.id, timestamp, &body),
                    );
                }
                request.body(body)
            }
        };
        let sent = tokio::time::timeout(LIMIT, request.send()).await;
        let response = sent
            .map_err(|_| Undelivered::Late)?
            .map_err(|error| why(&error))?;
        // The body is not needed: dropping the response closes the connection.
        match response.status() {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(Undelivered::Redirected),
            status => Err(Undelivered::Refused(StatusCode::as_u16(&status))),
        }
    }
}

fn why(error: &reqwest::Error) -> Undelivered {
    match error {
        error if is_private(error) => Undelivered::Private,
        error if error.is_timeout() => Undelivered::Late,
        _ => Undelivered::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_errors_are_retryable() {
        for temporary in [
            Undelivered::Unreachable,
            Undelivered::Late,
            Undelivered::Refused(500),
            Undelivered::Refused(429),
        ] {
            assert!(temporary.passes(), "{temporary}");
        }
        for permanent in [
            Undelivered::Private,
            Undelivered::Redirected,
            Undelivered::Refused(404),
        ] {
            assert!(!permanent.passes(), "{permanent}");
        }
    }
}
