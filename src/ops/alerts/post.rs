//! One try to deliver one alert.
//!
//! A single POST: no redirect is followed, the answer's body is not read, and all of it takes 8 s at most.

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

/// The longest that one try may take.
pub const LIMIT: Duration = Duration::from_secs(8);

/// The longest that its connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Why an alert was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// No connection, or it broke.
    #[error("it cannot be reached")]
    Unreachable,
    /// No answer.
    #[error("it does not answer within 8 s")]
    Late,
    /// See [`PrivateAddress`].
    #[error("its public name leads to a private address, which is not called")]
    Private,
    /// It answered with a redirect.
    #[error("it redirects elsewhere, which is not followed")]
    Redirected,
    /// It answered with this status.
    #[error("it answers with status {0}")]
    Refused(u16),
}

impl Undelivered {
    /// Whether another try may come out otherwise.
    pub fn passes(self) -> bool {
        match self {
            Self::Unreachable | Self::Late => true,
            Self::Private | Self::Redirected => false,
            Self::Refused(status) => status >= 500 || matches!(status, 408 | 409 | 425 | 429),
        }
    }
}

/// Whether that is why there was no connection.
pub fn is_private(error: &reqwest::Error) -> bool {
    std::iter::successors(error.source(), |&cause| cause.source())
        .any(|cause| cause.is::<PrivateAddress>())
}

/// How a sink wants it.
pub enum Form {
    /// As Slack's incoming webhooks do.
    Slack,
    /// As JSON, signed where there is a secret.
    Json(Option<Signer>),
}

/// Delivers to one address.
pub struct Poster {
    client: Client,
    url: Url,
    form: Form,
}

impl Poster {
    /// To this address.
    ///
    /// # Errors
    /// It is no URL, or TLS cannot be set up; in words without the address, which may be a secret.
    pub fn new(address: &Secret, form: Form) -> Result<Self, &'static str> {
        let url = Url::parse(address.expose()).map_err(|_| "an address for alerts is no URL")?;
        let host = url.host_str().unwrap_or_default();
        let resolver = Arc::new(Resolver::to(host));
        let here = transport::is_loopback(&url);
        let client = transport::client(CONNECT, |builder| {
            let builder = builder.dns_resolver(Arc::clone(&resolver));
            if here { builder.no_proxy() } else { builder }
        });
        Ok(Self {
            client: client.map_err(|_| "no HTTP client can be made for alerts")?,
            url,
            form,
        })
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn post(&self, envelope: &Envelope, now: At) -> Result<(), Undelivered> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json");
        let request = match &self.form {
            Form::Slack => request.body(envelope.alert.for_slack()),
            Form::Json(signer) => {
                let body = serde_json::to_string(&envelope.alert).unwrap_or_default();
                let timestamp = now.0 / 1_000;
                let mut request = request
                    .header("webhook-id", &envelope.id)
                    .header("webhook-timestamp", timestamp);
                if let Some(signer) = signer {
                    request = request.header(
                        "webhook-signature",
                        signer.sign(&envelope.id, timestamp, &body),
                    );
                }
                request.body(body)
            }
        };
        let answered = tokio::time::timeout(LIMIT, request.send()).await;
        let answer = answered
            .map_err(|_| Undelivered::Late)?
            .map_err(|error| why(&error))?;
        // Its body is nobody's business: the connection is closed with it unread.
        match answer.status() {
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
    fn only_what_may_pass_is_tried_again() {
        for passing in [
            Undelivered::Unreachable,
            Undelivered::Late,
            Undelivered::Refused(500),
            Undelivered::Refused(429),
        ] {
            assert!(passing.passes(), "{passing}");
        }
        for lasting in [
            Undelivered::Private,
            Undelivered::Redirected,
            Undelivered::Refused(404),
        ] {
            assert!(!lasting.passes(), "{lasting}");
        }
    }
}
