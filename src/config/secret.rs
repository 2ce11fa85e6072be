//! Secrets such as keys and tokens, in a type that cannot be printed by accident.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::Read;

/// A key or token. Not `Display` or `Serialize`; `Debug` prints `***`; the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The plain text. Call it only where the secret is sent or compared.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Compares configured secrets. Not constant time, so unsuitable for input from clients.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// A short identifier of texts that may be secret: 16 hexadecimal digits.
///
/// Hashes each part together with its length, so that the boundaries between the parts count.
pub fn fingerprint<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Resolves a configured secret: `env:NAME`, `file:PATH` or the literal text. Empty means none.
///
/// White space around the content of a variable or file is removed, since shells and editors add
/// it.
///
/// # Errors
/// Returns what is missing, but never the content of a literal, a variable or a file.
pub(super) fn resolve(
    configured: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if configured.is_empty() {
        return Ok(None);
    }
    let text = if let Some(name) = configured.strip_prefix("env:") {
        read_env_secret(name.trim(), env)?
    } else if let Some(path) = configured.strip_prefix("file:") {
        read_secret_file(path.trim())?
    } else {
        configured.to_owned()
    };
    if text.chars().any(char::is_control) {
        return Err("the secret has a line break or another control character in it".to_owned());
    }
    Ok(Some(Secret::new(text)))
}

fn read_env_secret(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        let example = "such as \"env:OPENAI_API_KEY\"";
        return Err(format!(
            "\"env:\" needs the name of a variable after it, {example}"
        ));
    }
    let value = env(name).ok_or_else(|| {
        format!("the environment variable {name} is not set; set it, or write \"file:PATH\"")
    })?;
    match value.trim() {
        "" => Err(format!("the environment variable {name} is empty; set it")),
        value => Ok(value.to_owned()),
    }
}

fn read_secret_file(path: &str) -> Result<String, String> {
    /// Longer than any key or token. Limits the harm of a wrong path.
    const MAX_BYTES: u64 = 64 * 1024;
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("the secret file {path} cannot be read: {error}"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("the secret file {path} is empty"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn fingerprint_depends_on_each_part_and_reveals_none() {
        let fingerprint_of = |parts: &[&str]| fingerprint(parts.iter().copied());
        assert_eq!(
            fingerprint_of(&["canary", "b"]),
            fingerprint_of(&["canary", "b"])
        );
        for other in [
            &["canaryb"][..],
            &["canary", "b", ""],
            &["b", "canary"],
            &["c", "anaryb"],
        ] {
            assert_ne!(
                fingerprint_of(&["canary", "b"]),
                fingerprint_of(other),
                "{other:?}"
            );
        }
        assert!(
            fingerprint_of(&["canary"]).len() == 16
                && fingerprint_of(&["canary"])
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit())
        );
    }

    fn env(name: &str) -> Option<String> {
        match name {
            "KEY" => Some("sk-canary\n".to_owned()),
            "BLANK" => Some(" ".to_owned()),
            "LINES" => Some("a\nb".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn each_form_of_secret_is_resolved() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "from-file").unwrap();
        let from_file = format!("file:{}", file.path().display());
        for (configured, expected) in [
            ("", None),
            ("literal", Some("literal")),
            ("env:KEY", Some("sk-canary")),
            (from_file.as_str(), Some("from-file")),
        ] {
            let secret = resolve(configured, &env).unwrap();
            assert_eq!(
                secret.as_ref().map(Secret::expose),
                expected,
                "{configured}"
            );
        }
    }

    #[test]
    fn unresolvable_secrets_are_reported() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = format!("file:{}", empty.path().display());
        for (configured, part) in [
            ("env:NONE", "NONE is not set"),
            ("env:BLANK", "BLANK is empty"),
            ("env:LINES", "line break"),
            ("env:", "needs the name"),
            ("file:/no/such/file", "/no/such/file cannot be read"),
            (empty.as_str(), "is empty"),
        ] {
            let message = resolve(configured, &env).unwrap_err();
            assert!(message.contains(part), "{configured}: {message}");
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        assert_eq!(format!("{:?}", Some(Secret::new("canary"))), "Some(***)");
    }
}
