//! Reads a TOML document key by key and reports every problem with its line and key.
//!
//! Each key is read into a variable that already holds its default. An invalid value leaves the
//! default, adds a problem, and reading continues. Keys that are never read are reported as
//! unknown.

use super::problem::{either, nearest, quoted};
use super::reader::{Reader, Written};
use super::value::{self, Parsed};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

pub(crate) struct Table<'r, 'd, 'e> {
    pub(super) reader: &'r mut Reader<'e>,
    /// The dotted key of the table. Empty for the document itself.
    pub(super) path: String,
    pub(super) line: usize,
    entries: &'d DeTable<'d>,
    asked: Vec<&'static str>,
}

impl<'d, 'e> Table<'_, 'd, 'e> {
    pub(super) fn root<'r, T>(
        reader: &'r mut Reader<'e>,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut Table<'r, 'd, 'e>) -> T,
    ) -> T {
        let table = Table {
            reader,
            path: String::new(),
            line: 1,
            entries,
            asked: Vec::new(),
        };
        table.whole(read)
    }

    /// Runs `read`, then reports the keys that it did not ask for.
    fn whole<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let result = read(&mut self);
        for (name, _) in self.entries.iter() {
            if self.asked.iter().any(|asked| asked == name.get_ref()) {
                continue;
            }
            let line = self.reader.line_at(name.span().start);
            let what = match nearest(name.get_ref(), &self.asked) {
                Some(near) => format!("no such key; did you mean {near}?"),
                None => format!("no such key; here may stand {}", either(&self.asked)),
            };
            self.reader
                .problem(Some(line), &join(&self.path, name.get_ref()), what);
        }
        result
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Adds a problem with a key. If the key is missing, uses the line of the table.
    pub(crate) fn problem(&mut self, key: &str, what: impl Into<String>) {
        let line = self.line_of(key);
        let path = self.path_of(key);
        self.reader.problem(Some(line), &path, what);
    }

    /// Adds a warning about a key. If the key is missing, uses the line of the table.
    pub(super) fn warning(&mut self, key: &str, what: impl Into<String>) {
        let line = self.line_of(key);
        let path = self.path_of(key);
        self.reader.warning(Some(line), &path, what);
    }

    pub(super) fn line_of(&self, key: &str) -> usize {
        let found = self.entries.get_key_value(key);
        found.map_or(self.line, |(name, _)| {
            self.reader.line_at(name.span().start)
        })
    }

    /// Reports a missing key. `what` says what to write.
    pub(crate) fn needs(&mut self, key: &'static str, what: &str) {
        if !self.has(key) {
            self.problem(key, format!("missing; {what}"));
        }
    }

    /// Reports a key that is only valid in the global section `table`.
    pub(super) fn only_global(&mut self, key: &'static str, table: &str) {
        if self.has(key) {
            self.asked.push(key);
            self.problem(
                key,
                format!("is the same for all providers; write it in {table}"),
            );
        }
    }

    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'d DeValue<'d>> {
        self.asked.push(key);
        self.entries.get(key).map(|value| value.get_ref())
    }

    pub(super) fn items(
        &mut self,
        key: &'static str,
        value: &'d DeValue<'d>,
    ) -> Option<Vec<Item<'d>>> {
        let Some(items) = value.as_array() else {
            self.problem(key, value::wrong(value, "a list in [brackets]"));
            return None;
        };
        let path = self.path_of(key);
        let items = items.iter().enumerate().map(|(at, item)| Item {
            key: format!("{path}[{at}]"),
            line: self.reader.line_at(item.span().start),
            value: item.get_ref(),
        });
        Some(items.collect())
    }

    pub(super) fn wrote(&mut self, key: &str) {
        let key_path = self.path_of(key);
        let line = self.line_of(key);
        self.reader.written.push(Written {
            key: key_path,
            line,
        });
    }

    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        into: &mut T,
        parse: impl FnOnce(&DeValue<'_>) -> Parsed<T>,
    ) {
        let Some(value) = self.value(key) else { return };
        match parse(value) {
            Ok(read) => {
                self.wrote(key);
                *into = read;
            }
            Err(what) => self.problem(key, what),
        }
    }

    /// Reads a list. Each invalid item is reported separately.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &'static str,
        into: &mut Vec<T>,
        parse: impl Fn(&DeValue<'_>) -> Parsed<T>,
    ) {
        let Some(value) = self.value(key) else { return };
        let Some(items) = self.items(key, value) else {
            return;
        };
        let mut list = Vec::new();
        for item in items {
            match parse(item.value) {
                Ok(read) => list.push(read),
                Err(what) => self.reader.problem(Some(item.line), &item.key, what),
            }
        }
        self.wrote(key);
        *into = list;
    }

    /// Reads a non-empty list, or a single value as a list of one.
    pub(crate) fn one_or_more<T: PartialEq>(
        &mut self,
        key: &'static str,
        into: &mut Vec<T>,
        parse: impl Fn(&DeValue<'_>) -> Parsed<T>,
    ) {
        match self.entries.get(key).map(|value| value.get_ref()) {
            Some(DeValue::Array(items)) if items.is_empty() => {
                self.asked.push(key);
                self.problem(key, "an empty list; at least one value is needed");
            }
            Some(DeValue::Array(_)) | None => self.list(key, into, parse),
            Some(_) => self.read(key, into, |value| parse(value).map(|item| vec![item])),
        }
    }

    /// Reads a minimum and a maximum duration. If only one is written, the other is adjusted to it.
    pub(super) fn bounded(
        &mut self,
        (low_key, low): (&'static str, &mut Duration),
        (high_key, high): (&'static str, &mut Duration),
    ) {
        self.read(low_key, low, value::span);
        self.read(high_key, high, value::span);
        if *low <= *high {
            return;
        }
        match (self.has(low_key), self.has(high_key)) {
            (true, true) => self.problem(
                high_key,
                format!("shorter than {low_key}; it must be at least as long"),
            ),
            (false, true) => *low = *high,
            _ => *high = *low,
        }
    }

    pub(super) fn table(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'_, 'd, 'e>)) {
        let Some(value) = self.value(key) else { return };
        let Some(entries) = value.as_table() else {
            self.problem(key, value::wrong(value, "a table"));
            return;
        };
        let path = self.path_of(key);
        let line = self.line_of(key);
        Table {
            reader: self.reader,
            path,
            line,
            entries,
            asked: Vec::new(),
        }
        .whole(read);
    }

    pub(crate) fn tables(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_, 'd, 'e>),
    ) {
        let Some(value) = self.value(key) else { return };
        if value.is_table() {
            self.problem(
                key,
                format!("a single table; write [[{key}]], in double brackets, for each of them"),
            );
            return;
        }
        for item in self.items(key, value).unwrap_or_default() {
            let Some(entries) = item.value.as_table() else {
                self.reader.problem(
                    Some(item.line),
                    &item.key,
                    value::wrong(item.value, "a table"),
                );
                continue;
            };
            self.reader.written.push(Written {
                key: item.key.clone(),
                line: item.line,
            });
            let path = item.key;
            let line = item.line;
            Table {
                reader: self.reader,
                path,
                line,
                entries,
                asked: Vec::new(),
            }
            .whole(&mut read);
        }
    }
}

pub(super) struct Item<'d> {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: &'d DeValue<'d>,
}

/// Joins a dotted path and a key. Quotes a key that is not a bare key.
pub(super) fn join(path: &str, key: &str) -> String {
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
