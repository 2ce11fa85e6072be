//! Secrets: keys and tokens, in a type that cannot be printed by accident.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::Read;

/// A key or token. It has no `Display` and no `Serialize`, its `Debug` is `***`, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Keeps `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Secret {
    /// Whether another says the same. For comparing what is configured with what was: it takes the time that it takes, so what a caller gives is not
    /// compared by this.
    pub fn is(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// A name for these texts together, secrets among them, which tells none of them: 16 hexadecimal digits of a hash of each with its length before it.
pub fn fingerprint<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let whole = parts.into_iter().fold(Sha256::new(), |hash, part| {
        hash.chain_update(part.len().to_be_bytes())
            .chain_update(part.as_bytes())
    });
    whole
        .finalize()
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

/// Turns what the configuration wrote into the secret: `env:NAME`, `file:PATH` or the literal itself; an empty text is no
/// secret. White space around what a file or a variable holds is dropped, since editors and shells add it.
///
/// # Errors
/// Says what is missing; never what a literal, a variable or a file holds.
pub(super) fn resolve(
    written: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if written.is_empty() {
        return Ok(None);
    }
    let text = if let Some(name) = written.strip_prefix("env:") {
        from_environment(name.trim(), env)?
    } else if let Some(path) = written.strip_prefix("file:") {
        from_file(path.trim())?
    } else {
        written.to_owned()
    };
    if text.chars().any(char::is_control) {
        return Err("the secret has a line break or another control character in it".to_owned());
    }
    Ok(Some(Secret::new(text)))
}

fn from_environment(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(
            "\"env:\" needs the name of a variable after it, such as \"env:OPENAI_API_KEY\""
                .to_owned(),
        );
    }
    match env(name).map(|value| value.trim().to_owned()) {
        None => Err(format!(
            "the environment variable {name} is not set; set it, or write \"file:PATH\""
        )),
        Some(value) if value.is_empty() => {
            Err(format!("the environment variable {name} is empty; set it"))
        }
        Some(value) => Ok(value),
    }
}

fn from_file(path: &str) -> Result<String, String> {
    /// More than any key or token has, and little enough for a wrong path to do no harm.
    const LONGEST: u64 = 64 * 1024;
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
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
    fn a_fingerprint_tells_its_parts_apart_and_none_of_them() {
        let of = |parts: &[&str]| fingerprint(parts.iter().copied());
        assert_eq!(of(&["canary", "b"]), of(&["canary", "b"]));
        for other in [
            &["canaryb"][..],
            &["canary", "b", ""],
            &["b", "canary"],
            &["c", "anaryb"],
        ] {
            assert_ne!(of(&["canary", "b"]), of(other), "{other:?}");
        }
        assert!(
            of(&["canary"]).len() == 16
                && of(&["canary"]).bytes().all(|byte| byte.is_ascii_hexdigit())
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
    fn each_form_is_resolved() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "from-file").unwrap();
        let from_file = format!("file:{}", file.path().display());
        for (written, expected) in [
            ("", None),
            ("literal", Some("literal")),
            ("env:KEY", Some("sk-canary")),
            (from_file.as_str(), Some("from-file")),
        ] {
            let secret = resolve(written, &env).unwrap();
            assert_eq!(secret.as_ref().map(Secret::expose), expected, "{written}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_says_why() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = format!("file:{}", empty.path().display());
        for (written, part) in [
            ("env:NONE", "NONE is not set"),
            ("env:BLANK", "BLANK is empty"),
            ("env:LINES", "line break"),
            ("env:", "needs the name"),
            ("file:/no/such/file", "/no/such/file cannot be read"),
            (empty.as_str(), "is empty"),
        ] {
            let what = resolve(written, &env).unwrap_err();
            assert!(what.contains(part), "{written}: {what}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Some(Secret::new("canary"))), "Some(***)");
    }
}
