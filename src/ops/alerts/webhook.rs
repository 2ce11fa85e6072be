//! One attempt to deliver one alert.
//!
//! A single POST that takes at most 8 s. Redirects are not followed, and the body of the response
//! is not read.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};
use sha2::Sha256;

use super::queue::QueuedAlert;
use super::ssrf_guard::{PrivateAddress, PublicOnlyResolver};
use crate::config::{Secret, webhook_key};
use crate::domain::Timestamp;
use crate::provider::http;

pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(8);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// No connection, or it broke.
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it does not answer within 8 s")]
    Timeout,
    #[error("its public name leads to a private address, which is not called")]
    PrivateAddress,
    #[error("it redirects elsewhere, which is not followed")]
    Redirected,
    #[error("it answers with status {0}")]
    Rejected(u16),
}

impl DeliveryError {
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Unreachable | Self::Timeout => true,
            Self::PrivateAddress | Self::Redirected => false,
            Self::Rejected(status) => status >= 500 || matches!(status, 408 | 409 | 425 | 429),
        }
    }
}

/// Returns `true` if the request failed because of a [`PrivateAddress`].
pub fn is_private_address(error: &reqwest::Error) -> bool {
    std::iter::successors(error.source(), |&cause| cause.source())
        .any(|cause| cause.is::<PrivateAddress>())
}

pub enum PayloadFormat {
    /// As Slack's incoming webhooks expect it.
    Slack,
    /// JSON, signed if there is a secret.
    Json(Option<WebhookSigner>),
}

/// Signs as in Standard Webhooks: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.
#[derive(Clone)]
pub struct WebhookSigner(Hmac<Sha256>);

impl WebhookSigner {
    /// Returns `None` if the secret starts with `whsec_` and the rest is not valid base64.
    pub fn new(secret: &str) -> Option<Self> {
        let key = webhook_key(secret)?;
        Hmac::new_from_slice(&key).ok().map(Self)
    }

    /// Returns the value of `webhook-signature`. `timestamp` is in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Delivers alerts to one URL.
pub struct WebhookClient {
    client: Client,
    url: Url,
    format: PayloadFormat,
}

impl WebhookClient {
    /// Fails if the URL is invalid or TLS cannot be set up. The error omits the URL, which may be a
    /// secret.
    pub fn new(address: &Secret, form: PayloadFormat) -> Result<Self, &'static str> {
        let url = Url::parse(address.expose()).map_err(|_| "an address for alerts is no URL")?;
        let host = url.host_str().unwrap_or_default();
        let resolver = Arc::new(PublicOnlyResolver::for_host(host));
        let is_loopback = http::is_loopback(&url);
        let client = http::build_client(CONNECT_TIMEOUT, |builder| {
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
            format: form,
        })
    }

    pub async fn deliver(&self, alert: &QueuedAlert, now: Timestamp) -> Result<(), DeliveryError> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json");
        let request = match &self.format {
            PayloadFormat::Slack => request.body(alert.alert.slack_body()),
            PayloadFormat::Json(signer) => {
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
        let sent = tokio::time::timeout(DELIVERY_TIMEOUT, request.send()).await;
        let response = sent
            .map_err(|_| DeliveryError::Timeout)?
            .map_err(|error| classify_error(&error))?;
        // The body is not needed: dropping the response closes the connection.
        match response.status() {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(DeliveryError::Redirected),
            status => Err(DeliveryError::Rejected(StatusCode::as_u16(&status))),
        }
    }
}

fn classify_error(error: &reqwest::Error) -> DeliveryError {
    match error {
        error if is_private_address(error) => DeliveryError::PrivateAddress,
        error if error.is_timeout() => DeliveryError::Timeout,
        _ => DeliveryError::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_errors_are_retryable() {
        for temporary in [
            DeliveryError::Unreachable,
            DeliveryError::Timeout,
            DeliveryError::Rejected(500),
            DeliveryError::Rejected(429),
        ] {
            assert!(temporary.is_retryable(), "{temporary}");
        }
        for permanent in [
            DeliveryError::PrivateAddress,
            DeliveryError::Redirected,
            DeliveryError::Rejected(404),
        ] {
            assert!(!permanent.is_retryable(), "{permanent}");
        }
    }

    /// From the test suite of the specification's own libraries.
    #[test]
    fn the_published_example_yields_the_published_signature() {
        let signer = WebhookSigner::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = signer.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            "{\"test\": 2432232314}",
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_without_prefix_is_the_key() {
        // printf 'id.5.body' | openssl dgst -sha256 -hmac secret -binary | base64
        let signature = WebhookSigner::new("secret").unwrap().sign("id", 5, "body");
        assert_eq!(signature, "v1,TuJ6TrGoDS5XVGV7IRhJVKNc3kRitLL8gwSdjPjHkh8=");
        assert!(WebhookSigner::new("whsec_not base64!").is_none());
    }
}
