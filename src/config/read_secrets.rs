//! Reading of secrets. They are resolved immediately and never repeated in a message.

use super::parse::value::{self, ParseResult};
use super::secret::{self, Secret};
use super::table_reader::{TableReader, join_key};
use toml::de::DeValue;

impl TableReader<'_, '_, '_> {
    /// Reads a secret. An empty text means none.
    pub(super) fn read_secret(&mut self, key: &'static str, into: &mut Option<Secret>) {
        self.read_checked_secret(key, into, |_| Ok(()));
    }

    /// Reads a secret and validates it. The message of `check` must not repeat the secret.
    pub(super) fn read_checked_secret(
        &mut self,
        key: &'static str,
        into: &mut Option<Secret>,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) {
        let Some(value) = self.lookup(key) else {
            return;
        };
        let read = self.resolve(value).and_then(|secret| {
            secret
                .as_ref()
                .map_or(Ok(()), |secret| check(secret.expose()))?;
            Ok(secret)
        });
        match read {
            Ok(secret) => {
                self.mark_written(key);
                *into = secret;
            }
            Err(what) => self.add_problem(key, what),
        }
    }

    pub(super) fn read_secrets(&mut self, key: &'static str, into: &mut Vec<Secret>) {
        let Some(value) = self.lookup(key) else {
            return;
        };
        let Some(items) = self.list_items(key, value) else {
            return;
        };
        for item in items {
            match self.resolve(item.value) {
                Ok(Some(secret)) => into.push(secret),
                Ok(None) => self.reader.add_problem(
                    Some(item.line),
                    &item.key,
                    "an empty key; leave it out",
                ),
                Err(what) => self.reader.add_problem(Some(item.line), &item.key, what),
            }
        }
        self.mark_written(key);
    }

    /// Reads a table of names and secrets, such as request headers. `check` validates and
    /// normalises each name.
    pub(super) fn read_named_secrets(
        &mut self,
        key: &'static str,
        into: &mut Vec<(String, Secret)>,
        check: impl Fn(&str) -> ParseResult<String>,
    ) {
        let Some(value) = self.lookup(key) else {
            return;
        };
        let Some(entries) = value.as_table() else {
            self.add_problem(
                key,
                value::type_mismatch(value, "a table, such as { name = \"value\" },"),
            );
            return;
        };
        for (name, value) in entries.iter() {
            let line = self.reader.line_at(name.span().start);
            let path = join_key(&self.key_path(key), name.get_ref());
            let read =
                check(name.get_ref()).and_then(|name| Ok((name, self.resolve(value.get_ref())?)));
            match read {
                Ok((name, secret)) => into.push((name, secret.unwrap_or_else(|| Secret::new("")))),
                Err(what) => self.reader.add_problem(Some(line), &path, what),
            }
        }
        self.mark_written(key);
    }

    fn resolve(&self, value: &DeValue<'_>) -> ParseResult<Option<Secret>> {
        let text = value.as_str().ok_or_else(|| {
            value::type_mismatch(
                value,
                "a secret as text (\"env:NAME\", \"file:PATH\" or itself)",
            )
        })?;
        secret::resolve(text, self.reader.env)
    }
}
