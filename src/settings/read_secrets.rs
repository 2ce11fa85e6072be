//! Reading of secrets. They are resolved immediately and never repeated in a message.

use super::read::{Table, join};
use super::secret::{self, Secret};
use super::value::{self, Parsed};
use toml::de::DeValue;

impl Table<'_, '_, '_> {
    /// Reads a secret. An empty text means none.
    pub(super) fn secret(&mut self, key: &'static str, into: &mut Option<Secret>) {
        self.checked_secret(key, into, |_| Ok(()));
    }

    /// Reads a secret and validates it. The message of `check` must not repeat the secret.
    pub(super) fn checked_secret(
        &mut self,
        key: &'static str,
        into: &mut Option<Secret>,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) {
        let Some(value) = self.value(key) else { return };
        let read = self.resolve(value).and_then(|secret| {
            secret
                .as_ref()
                .map_or(Ok(()), |secret| check(secret.expose()))?;
            Ok(secret)
        });
        match read {
            Ok(secret) => {
                self.wrote(key);
                *into = secret;
            }
            Err(what) => self.problem(key, what),
        }
    }

    pub(super) fn secrets(&mut self, key: &'static str, into: &mut Vec<Secret>) {
        let Some(value) = self.value(key) else { return };
        let Some(items) = self.items(key, value) else {
            return;
        };
        for item in items {
            match self.resolve(item.value) {
                Ok(Some(secret)) => into.push(secret),
                Ok(None) => {
                    self.reader
                        .problem(Some(item.line), &item.key, "an empty key; leave it out")
                }
                Err(what) => self.reader.problem(Some(item.line), &item.key, what),
            }
        }
        self.wrote(key);
    }

    /// Reads a table of names and secrets, such as request headers. `check` validates and
    /// normalises each name.
    pub(super) fn named_secrets(
        &mut self,
        key: &'static str,
        into: &mut Vec<(String, Secret)>,
        check: impl Fn(&str) -> Parsed<String>,
    ) {
        let Some(value) = self.value(key) else { return };
        let Some(entries) = value.as_table() else {
            self.problem(
                key,
                value::wrong(value, "a table, such as { name = \"value\" },"),
            );
            return;
        };
        for (name, value) in entries.iter() {
            let line = self.reader.line_at(name.span().start);
            let path = join(&self.path_of(key), name.get_ref());
            let read =
                check(name.get_ref()).and_then(|name| Ok((name, self.resolve(value.get_ref())?)));
            match read {
                Ok((name, secret)) => into.push((name, secret.unwrap_or_else(|| Secret::new("")))),
                Err(what) => self.reader.problem(Some(line), &path, what),
            }
        }
        self.wrote(key);
    }

    fn resolve(&self, value: &DeValue<'_>) -> Parsed<Option<Secret>> {
        let text = value.as_str().ok_or_else(|| {
            value::wrong(
                value,
                "a secret as text (\"env:NAME\", \"file:PATH\" or itself)",
            )
        })?;
        secret::resolve(text, self.reader.env)
    }
}
