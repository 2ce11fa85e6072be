//! Removes keys from provider messages, because some repeat the key that they reject.

use secrecy::ExposeSecret;

use crate::provider::dialect::config::ModelConfig;

/// Replaces a key. Redacting twice changes nothing.
const MASK: &str = "***";

const KEY_PREFIXES: [&str; 7] = ["sk-", "sk_", "pk-", "AIza", "gsk_", "xai-", "hf_"];

/// The minimum length of a secret. Shorter ones are placeholders such as "x", and masking them
/// would garble every word.
const MIN_SECRET_LEN: usize = 4;

/// Masks the provider's key, the values of its configured headers, and anything that looks like a
/// key.
pub(crate) fn redact(text: &str, model: &ModelConfig) -> String {
    let mut text = text.to_owned();
    let key = model.key.as_ref().map(ExposeSecret::expose_secret);
    let values = model.headers.iter().map(|(_, value)| value.as_str());
    // A provider repeats the token of an `authorization` header without the scheme before it.
    let tokens = values
        .clone()
        .filter_map(|value| value.trim().split_once(' '))
        .map(|(_, token)| token);
    for secret in key.into_iter().chain(values).chain(tokens).map(str::trim) {
        if secret.len() >= MIN_SECRET_LEN {
            text = text.replace(secret, MASK);
        }
    }
    mask_lookalikes(&text)
}

fn mask_lookalikes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut bearer = false;
    while !rest.is_empty() {
        let length = rest.find(|c| !is_key_char(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let masked = !word.is_empty() && (bearer || has_key_prefix(word));
        out.push_str(if masked { MASK } else { word });
        let gap = after.find(is_key_char).unwrap_or(after.len());
        let (between, after) = after.split_at(gap);
        out.push_str(between);
        bearer = word.eq_ignore_ascii_case("bearer");
        rest = after;
    }
    out
}

fn has_key_prefix(word: &str) -> bool {
    let starts = |prefix: &str| word.len() > prefix.len() + 3 && word.starts_with(prefix);
    KEY_PREFIXES.into_iter().any(starts)
}

/// `true` for characters of keys. The asterisk occurs in partly masked ones.
fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_masked_and_words_are_not() {
        let model = ModelConfig {
            key: Some("canary/key=1\n".into()),
            headers: vec![
                ("x-proxy-key".into(), "p4ssage-word".into()),
                ("proxy-authorization".into(), "Basic dXNlcjpwYXNz".into()),
            ],
            ..ModelConfig::default()
        };
        for (message, redacted) in [
            (
                "Incorrect API key provided: canary/key=1.",
                "Incorrect API key provided: ***.",
            ),
            ("p4ssage-word is refused", "*** is refused"),
            (
                "not 'Basic dXNlcjpwYXNz', and not dXNlcjpwYXNz",
                "not '***', and not ***",
            ),
            ("key sk-proj-abc***xyz; see docs", "key ***; see docs"),
            ("url?key=AIzaSyA1234567&alt=sse", "url?key=***&alt=sse"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("'bearer' \"tok_1\" refused", "'bearer' \"***\" refused"),
            (
                "task-force asks: risk-free? sk-",
                "task-force asks: risk-free? sk-",
            ),
            ("ключ sk-äbc не годится", "ключ sk-äbc не годится"),
            ("", ""),
        ] {
            assert_eq!(redact(message, &model), redacted);
        }
    }

    #[test]
    fn placeholder_key_masks_nothing() {
        let model = ModelConfig {
            key: Some("x".into()),
            ..ModelConfig::default()
        };
        assert_eq!(redact("max exceeded", &model), "max exceeded");
    }
}
