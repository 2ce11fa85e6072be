//! Webhook signatures as in Standard Webhooks: `v1,` and the base64 HMAC-SHA256 of
//! `id.timestamp.body`. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::config::webhook_key;

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

#[cfg(test)]
mod tests {
    use super::*;

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
