//! The provider settings that a dialect needs.

use std::borrow::Cow;

use crate::domain::ChatRequest;
use secrecy::{ExposeSecret as _, SecretString};

/// A model at a provider. Not `Debug`, because the key and the headers are secrets.
#[derive(Clone, Default)]
pub struct ModelConfig {
    /// Some dialects choose their paths or parameters by it. No connection is made from here.
    pub base_url: String,
    /// On Azure the name of the deployment.
    pub name: String,
    pub key: Option<SecretString>,
    /// Empty for the dialect's default.
    pub api_version: String,
    pub temperature: Option<f64>,
    /// Additional request headers. They replace headers of the same name set by the dialect.
    pub headers: Vec<(String, String)>,
    /// The size of the model's context in tokens, 0 if unknown.
    pub context_tokens: u32,
    pub prefill: Prefill,
}

/// The way in which a provider is asked to continue a partial answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefill {
    /// The partial answer is the last message, with the assistant's role.
    #[default]
    Plain,
    /// As `Plain`, with vLLM's parameters `continue_final_message` and `add_generation_prompt`.
    Vllm,
    /// As `Plain`, with the message marked as a prefix (DeepSeek, Mistral).
    Prefix,
}

impl ModelConfig {
    /// The key without surrounding white space, such as a file's final newline. `None` if empty.
    pub(super) fn key(&self) -> Option<&str> {
        let key = self.key.as_ref()?.expose_secret().trim();
        (!key.is_empty()).then_some(key)
    }

    pub(super) fn bearer_header(&self) -> Option<String> {
        self.key().map(|key| format!("Bearer {key}"))
    }

    /// Merges the dialect's headers, without those that have no value, and the configured ones.
    pub(super) fn headers<const N: usize>(
        &self,
        own: [(&'static str, Option<String>); N],
    ) -> Vec<(Cow<'static, str>, String)> {
        let mut headers: Vec<(Cow<'static, str>, String)> = Vec::new();
        for (name, value) in own {
            headers.extend(value.map(|value| (Cow::Borrowed(name), value)));
        }
        for (name, value) in &self.headers {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            headers.push((Cow::Owned(name.clone()), value.clone()));
        }
        headers
    }

    pub(super) fn api_version_or<'a>(&'a self, default: &'a str) -> &'a str {
        if self.api_version.is_empty() {
            default
        } else {
            &self.api_version
        }
    }

    /// The request's temperature, or the configured one. `None` if JSON cannot represent it.
    pub(super) fn temperature(&self, request: &ChatRequest) -> Option<f64> {
        request
            .temperature
            .or(self.temperature)
            .filter(|value| value.is_finite())
    }

    pub(super) fn trimmed_base_url(&self) -> &str {
        self.base_url.trim_end_matches('/')
    }
}

/// Percent-encodes `text` for a URL's path or query: all bytes except the unreserved characters
/// and `/` (RFC 3986, section 2).
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
