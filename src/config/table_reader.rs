//! Reads a TOML document key by key and reports every problem with its line and key.
//!
//! Each key is read into a variable that already holds its default. An invalid value leaves the
//! default, adds a problem, and reading continues. Keys that are never read are reported as
//! unknown. Secrets are resolved immediately and never repeated in a message.

use super::diagnostics::{Diagnostics, Environment, join_with_or, nearest, quoted};
use super::parse::value::{self, ParseResult};
use super::secret::{self, Secret};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

pub(crate) struct TableReader<'r, 'd, 'e> {
    pub(super) reader: &'r mut Diagnostics<'e>,
    /// The dotted key of the table. Empty for the document itself.
    pub(super) path: String,
    pub(super) line: usize,
    entries: &'d DeTable<'d>,
    known_keys: Vec<&'static str>,
}

impl<'r, 'd, 'e> TableReader<'r, 'd, 'e> {
    /// Runs `read` on a table, then reports the keys that it did not ask for.
    pub(super) fn run<T>(
        reader: &'r mut Diagnostics<'e>,
        path: String,
        line: usize,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut table = Self {
            reader,
            path,
            line,
            entries,
            known_keys: Vec::new(),
        };
        let result = read(&mut table);
        for (name, _) in entries.iter() {
            if table.known_keys.iter().any(|asked| asked == name.get_ref()) {
                continue;
            }
            let what = match nearest(name.get_ref(), &table.known_keys) {
                Some(near) => format!("no such key; did you mean {near}?"),
                None => {
                    let names = join_with_or(&table.known_keys);
                    format!("no such key; here may stand {names}")
                }
            };
            table.add_problem(name.get_ref(), what);
        }
        result
    }

    fn key_path(&self, key: &str) -> String {
        join_key(&self.path, key)
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Adds a problem with a key. If the key is missing, uses the line of the table.
    pub(crate) fn add_problem(&mut self, key: &str, what: impl Into<String>) {
        let line = self.line_of_key(key);
        let path = self.key_path(key);
        self.reader.add_problem(Some(line), &path, what);
    }

    /// Adds a warning about a key. If the key is missing, uses the line of the table.
    pub(super) fn add_warning(&mut self, key: &str, what: impl Into<String>) {
        let line = self.line_of_key(key);
        let path = self.key_path(key);
        self.reader.add_warning(Some(line), &path, what);
    }

    fn line_of_key(&self, key: &str) -> usize {
        let found = self.entries.get_key_value(key);
        found.map_or(self.line, |(name, _)| {
            self.reader.line_at(name.span().start)
        })
    }

    /// Reports a missing key. `what` says what to write.
    pub(crate) fn require(&mut self, key: &'static str, what: &str) {
        if !self.contains(key) {
            self.add_problem(key, format!("missing; {what}"));
        }
    }

    /// Reports a key that is only valid in the global section `table`.
    pub(super) fn reject_local(&mut self, key: &'static str, table: &str) {
        if self.contains(key) {
            self.known_keys.push(key);
            self.add_problem(
                key,
                format!("is the same for all providers; write it in {table}"),
            );
        }
    }

    pub(crate) fn lookup(&mut self, key: &'static str) -> Option<&'d DeValue<'d>> {
        self.known_keys.push(key);
        self.entries.get(key).map(|value| value.get_ref())
    }

    /// The items of a list, each with its key and line. Reports another type.
    fn list_items(
        &mut self,
        key: &'static str,
        value: &'d DeValue<'d>,
    ) -> Option<Vec<(String, usize, &'d DeValue<'d>)>> {
        let Some(items) = value.as_array() else {
            self.add_problem(key, value::type_mismatch(value, "a list in [brackets]"));
            return None;
        };
        let path = self.key_path(key);
        let items = items.iter().enumerate().map(|(at, item)| {
            let line = self.reader.line_at(item.span().start);
            (format!("{path}[{at}]"), line, item.get_ref())
        });
        Some(items.collect())
    }

    fn mark_written(&mut self, key: &str) {
        let line = self.line_of_key(key);
        self.reader.key_lines.insert(self.key_path(key), line);
    }

    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        into: &mut T,
        parse: impl FnOnce(&DeValue<'_>) -> ParseResult<T>,
    ) {
        match self.lookup(key).map(parse) {
            Some(Ok(read)) => {
                self.mark_written(key);
                *into = read;
            }
            Some(Err(what)) => self.add_problem(key, what),
            None => {}
        }
    }

    /// Reads a required key. `None` if it is missing or invalid, which is reported. `hint` says what
    /// to write.
    pub(super) fn read_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&DeValue<'_>) -> ParseResult<T>,
    ) -> Option<T> {
        let mut read = None;
        self.require(key, hint);
        self.read(key, &mut read, |value| parse(value).map(Some));
        read
    }

    /// Reads a list. Each invalid item is reported separately.
    pub(super) fn read_list<T>(
        &mut self,
        key: &'static str,
        into: &mut Vec<T>,
        parse: impl Fn(&DeValue<'_>) -> ParseResult<T>,
    ) {
        let Some(value) = self.lookup(key) else {
            return;
        };
        let Some(items) = self.list_items(key, value) else {
            return;
        };
        into.clear();
        for (path, line, item) in items {
            match parse(item) {
                Ok(read) => into.push(read),
                Err(what) => self.reader.add_problem(Some(line), &path, what),
            }
        }
        self.mark_written(key);
    }

    /// Reads a non-empty list, or a single value as a list of one.
    pub(crate) fn read_one_or_many<T>(
        &mut self,
        key: &'static str,
        into: &mut Vec<T>,
        parse: impl Fn(&DeValue<'_>) -> ParseResult<T>,
    ) {
        match self.entries.get(key).map(|value| value.get_ref()) {
            Some(DeValue::Array(items)) if items.is_empty() => {
                self.known_keys.push(key);
                self.add_problem(key, "an empty list; at least one value is needed");
            }
            Some(DeValue::Array(_)) | None => self.read_list(key, into, parse),
            Some(_) => self.read(key, into, |value| Ok(vec![parse(value)?])),
        }
    }

    /// Reads a secret. An empty text means none.
    pub(super) fn read_secret(&mut self, key: &'static str, into: &mut Option<Secret>) {
        self.read_checked_secret(key, into, |_| Ok(()));
    }

    /// Reads a secret and validates it. The message of `check` must not repeat the secret.
    pub(super) fn read_checked_secret(
        &mut self,
        key: &'static str,
        into: &mut Option<Secret>,
        check: impl FnOnce(&str) -> ParseResult<()>,
    ) {
        let env = self.reader.env;
        self.read(key, into, |value| {
            let secret = resolve(value, env)?;
            if let Some(secret) = &secret {
                check(secret.expose())?;
            }
            Ok(secret)
        });
    }

    pub(super) fn read_secrets(&mut self, key: &'static str, into: &mut Vec<Secret>) {
        let env = self.reader.env;
        self.read_list(key, into, |value| {
            resolve(value, env)?.ok_or_else(|| "an empty key; leave it out".to_owned())
        });
    }

    /// Reads a table of names and secrets, such as request headers. `check` validates and
    /// normalises each name.
    pub(super) fn read_named_secrets(
        &mut self,
        key: &'static str,
        into: &mut Vec<(String, Secret)>,
        check: impl Fn(&str) -> ParseResult<String>,
    ) {
        let expected = "a table, such as { name = \"value\" },";
        let Some(entries) = self.lookup_table(key, expected) else {
            return;
        };
        for (name, value) in entries.iter() {
            let name_text = name.get_ref();
            let read = check(name_text)
                .and_then(|name| Ok((name, resolve(value.get_ref(), self.reader.env)?)));
            match read {
                Ok((name, secret)) => into.push((name, secret.unwrap_or_else(|| Secret::new("")))),
                Err(what) => {
                    let line = self.reader.line_at(name.span().start);
                    let path = join_key(&self.key_path(key), name_text);
                    self.reader.add_problem(Some(line), &path, what);
                }
            }
        }
        self.mark_written(key);
    }

    /// Reads a minimum and a maximum duration. If only one is written, the other is adjusted to it.
    pub(super) fn read_min_max(
        &mut self,
        (low_key, low): (&'static str, &mut Duration),
        (high_key, high): (&'static str, &mut Duration),
    ) {
        self.read(low_key, low, value::positive_duration);
        self.read(high_key, high, value::positive_duration);
        if *low <= *high {
            return;
        }
        match (self.contains(low_key), self.contains(high_key)) {
            (true, true) => self.add_problem(
                high_key,
                format!("shorter than {low_key}; it must be at least as long"),
            ),
            (false, true) => *low = *high,
            _ => *high = *low,
        }
    }

    pub(super) fn read_table(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut TableReader<'_, 'd, 'e>),
    ) {
        if let Some(entries) = self.lookup_table(key, "a table") {
            let path = self.key_path(key);
            let line = self.line_of_key(key);
            TableReader::run(self.reader, path, line, entries, read);
        }
    }

    fn lookup_table(&mut self, key: &'static str, expected: &str) -> Option<&'d DeTable<'d>> {
        let value = self.lookup(key)?;
        let table = value.as_table();
        if table.is_none() {
            self.add_problem(key, value::type_mismatch(value, expected));
        }
        table
    }

    pub(crate) fn read_tables(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut TableReader<'_, 'd, 'e>),
    ) {
        let Some(value) = self.lookup(key) else {
            return;
        };
        if value.is_table() {
            let what =
                format!("a single table; write [[{key}]], in double brackets, for each of them");
            self.add_problem(key, what);
            return;
        }
        for (path, line, item) in self.list_items(key, value).unwrap_or_default() {
            if let Some(entries) = item.as_table() {
                self.reader.key_lines.insert(path.clone(), line);
                TableReader::run(self.reader, path, line, entries, &mut read);
            } else {
                let what = value::type_mismatch(item, "a table");
                self.reader.add_problem(Some(line), &path, what);
            }
        }
    }
}

fn resolve(value: &DeValue<'_>, env: Environment<'_>) -> ParseResult<Option<Secret>> {
    let expected = "a secret as text (\"env:NAME\", \"file:PATH\" or itself)";
    secret::resolve(value::string(value, expected)?, env)
}

/// Joins a dotted path and a key. Quotes a key that is not a bare key.
fn join_key(path: &str, key: &str) -> String {
    let is_bare_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_bare = !key.is_empty() && key.bytes().all(is_bare_char);
    let key = if is_bare { key.to_owned() } else { quoted(key) };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
