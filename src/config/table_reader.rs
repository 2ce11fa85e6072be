//! Reads a TOML document key by key and reports every problem with its line and key.
//!
//! Each key is read into a variable that already holds its default. An invalid value leaves the
//! default, adds a problem, and reading continues. Keys that are never read are reported as
//! unknown.

use super::diagnostics::{join_with_or, nearest, quoted};
use super::parse::value::{self, ParseResult};
use super::reader::{Diagnostics, KeyPosition};
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

impl<'d, 'e> TableReader<'_, 'd, 'e> {
    pub(super) fn read_document<'r, T>(
        reader: &'r mut Diagnostics<'e>,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut TableReader<'r, 'd, 'e>) -> T,
    ) -> T {
        let table = TableReader {
            reader,
            path: String::new(),
            line: 1,
            entries,
            known_keys: Vec::new(),
        };
        table.finish(read)
    }

    /// Runs `read`, then reports the keys that it did not ask for.
    fn finish<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let result = read(&mut self);
        for (name, _) in self.entries.iter() {
            if self.known_keys.iter().any(|asked| asked == name.get_ref()) {
                continue;
            }
            let line = self.reader.line_at(name.span().start);
            let what = match nearest(name.get_ref(), &self.known_keys) {
                Some(near) => format!("no such key; did you mean {near}?"),
                None => format!(
                    "no such key; here may stand {}",
                    join_with_or(&self.known_keys)
                ),
            };
            self.reader
                .add_problem(Some(line), &join_key(&self.path, name.get_ref()), what);
        }
        result
    }

    pub(super) fn key_path(&self, key: &str) -> String {
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

    pub(super) fn line_of_key(&self, key: &str) -> usize {
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

    pub(super) fn list_items(
        &mut self,
        key: &'static str,
        value: &'d DeValue<'d>,
    ) -> Option<Vec<ListItem<'d>>> {
        let Some(items) = value.as_array() else {
            self.add_problem(key, value::type_mismatch(value, "a list in [brackets]"));
            return None;
        };
        let path = self.key_path(key);
        let items = items.iter().enumerate().map(|(at, item)| ListItem {
            key: format!("{path}[{at}]"),
            line: self.reader.line_at(item.span().start),
            value: item.get_ref(),
        });
        Some(items.collect())
    }

    pub(super) fn mark_written(&mut self, key: &str) {
        let key_path = self.key_path(key);
        let line = self.line_of_key(key);
        self.reader.key_positions.push(KeyPosition {
            key: key_path,
            line,
        });
    }

    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        into: &mut T,
        parse: impl FnOnce(&DeValue<'_>) -> ParseResult<T>,
    ) {
        let Some(value) = self.lookup(key) else {
            return;
        };
        match parse(value) {
            Ok(read) => {
                self.mark_written(key);
                *into = read;
            }
            Err(what) => self.add_problem(key, what),
        }
    }

    /// Reads a list. Each invalid item is reported separately.
    pub(super) fn read_list<T: PartialEq>(
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
        let mut list = Vec::new();
        for item in items {
            match parse(item.value) {
                Ok(read) => list.push(read),
                Err(what) => self.reader.add_problem(Some(item.line), &item.key, what),
            }
        }
        self.mark_written(key);
        *into = list;
    }

    /// Reads a non-empty list, or a single value as a list of one.
    pub(crate) fn read_one_or_many<T: PartialEq>(
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
            Some(_) => self.read(key, into, |value| parse(value).map(|item| vec![item])),
        }
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
        let Some(value) = self.lookup(key) else {
            return;
        };
        let Some(entries) = value.as_table() else {
            self.add_problem(key, value::type_mismatch(value, "a table"));
            return;
        };
        let path = self.key_path(key);
        let line = self.line_of_key(key);
        TableReader {
            reader: self.reader,
            path,
            line,
            entries,
            known_keys: Vec::new(),
        }
        .finish(read);
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
            self.add_problem(
                key,
                format!("a single table; write [[{key}]], in double brackets, for each of them"),
            );
            return;
        }
        for item in self.list_items(key, value).unwrap_or_default() {
            let Some(entries) = item.value.as_table() else {
                self.reader.add_problem(
                    Some(item.line),
                    &item.key,
                    value::type_mismatch(item.value, "a table"),
                );
                continue;
            };
            self.reader.key_positions.push(KeyPosition {
                key: item.key.clone(),
                line: item.line,
            });
            let path = item.key;
            let line = item.line;
            TableReader {
                reader: self.reader,
                path,
                line,
                entries,
                known_keys: Vec::new(),
            }
            .finish(&mut read);
        }
    }
}

pub(super) struct ListItem<'d> {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: &'d DeValue<'d>,
}

/// Joins a dotted path and a key. Quotes a key that is not a bare key.
pub(super) fn join_key(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let key = if is_bare { key.to_owned() } else { quoted(key) };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
