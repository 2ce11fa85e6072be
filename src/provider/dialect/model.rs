//! What a dialect must know of the provider that it speaks to.

use std::borrow::Cow;

use crate::chat::Ask;
use secrecy::{ExposeSecret as _, SecretString};

/// A model at a provider. It has no `Debug`: the key and the headers are secrets.
#[derive(Clone, Default)]
pub struct Model {
    /// Where the provider is. Some dialects choose their form by it; nothing here connects to it.
    pub base_url: String,
    /// The model's name; at Azure the deployment's.
    pub model: String,
    /// The key, where one is needed.
    pub key: Option<SecretString>,
    /// The API's version; empty for the dialect's default.
    pub api_version: String,
    /// The temperature, where one is set.
    pub temperature: Option<f64>,
    /// More request headers. One that the dialect sends too replaces the dialect's.
    pub headers: Vec<(String, String)>,
    /// The most tokens that the model can hold; 0 for unknown.
    pub context_tokens: u32,
    /// How a started answer is given to it, where the dialect has several ways.
    pub prefill: Prefill,
}

/// How a provider is given the beginning of an answer that it is to go on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefill {
    /// As the last message, the assistant's.
    #[default]
    Plain,
    /// Likewise, with vLLM's two parameters.
    Vllm,
    /// Likewise, marked as a prefix (DeepSeek, Mistral).
    Prefix,
}

impl Model {
    /// The key without white space around it (a file's last line end); none where it is empty.
    pub(super) fn key(&self) -> Option<&str> {
        let key = self.key.as_ref()?.expose_secret().trim();
        (!key.is_empty()).then_some(key)
    }

    /// The key as a bearer token's header value.
    pub(super) fn bearer(&self) -> Option<String> {
        self.key().map(|key| format!("Bearer {key}"))
    }

    /// The dialect's headers, those without a value left out, and the configured ones.
    pub(super) fn headers<const N: usize>(
        &self,
        own: [(&'static str, Option<String>); N],
    ) -> Vec<(Cow<'static, str>, String)> {
        let mut all: Vec<(Cow<'static, str>, String)> = Vec::new();
        for (name, value) in own {
            all.extend(value.map(|value| (Cow::Borrowed(name), value)));
        }
        for (name, value) in &self.headers {
            all.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            all.push((Cow::Owned(name.clone()), value.clone()));
        }
        all
    }

    /// The API's version, or `default`.
    pub(super) fn version<'a>(&'a self, default: &'a str) -> &'a str {
        if self.api_version.is_empty() {
            default
        } else {
            &self.api_version
        }
    }

    /// The temperature of an ask, or the configured one, as JSON can say it.
    pub(super) fn temperature(&self, ask: &Ask) -> Option<f64> {
        ask.temperature
            .or(self.temperature)
            .filter(|value| value.is_finite())
    }

    /// The base URL without slashes at its end.
    pub(super) fn base(&self) -> &str {
        self.base_url.trim_end_matches('/')
    }
}

/// `text` as a part of a URL's path or query: all but unreserved characters and `/` in percent form (RFC 3986, section 2).
pub(super) fn escaped(text: &str) -> String {
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
