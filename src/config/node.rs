//! The readers: a value that knows its path, and a table that knows which keys were asked of it.
//!
//! A reader answers `None` for what is absent and for what is wrong, and has then reported the latter; so a section
//! reads on, and every problem is found in one run. A load fails when anything was reported.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::document::Document;
use super::path::Path;
use super::problem::Fault;
use super::toml_file::parse_value;
use super::units;

/// A value and where it stands.
pub(super) struct Node<'d> {
    pub doc: &'d Document<'d>,
    pub path: Path,
    pub value: Value,
}

/// A table that is being read: keys are taken out, and what is left in the end is unknown.
pub(super) struct Table<'d> {
    pub doc: &'d Document<'d>,
    pub path: Path,
    entries: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl<'d> Node<'d> {
    pub fn refuse(&self, fault: impl Into<Fault>) {
        self.doc.report(&self.path, fault.into());
    }

    fn mistyped<T>(&self, expected: &str) -> Option<T> {
        let found = match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a table",
        };
        self.refuse(format!("expected {expected}, found {found}"));
        None
    }

    /// A text that `parse` accepts; `expected` says which, for other types than text.
    pub fn parse<T>(self, expected: &str, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        let Value::String(text) = &self.value else { return self.mistyped(expected) };
        parse(text).map_err(|fault| self.refuse(fault)).ok()
    }

    /// One of the words, as what it stands for.
    pub fn word<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let expected = format!("one of {}", all.join(", "));
        self.parse(&expected, |text| {
            let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
            found.ok_or_else(|| {
                Fault::new(format!("expected {expected}, found \"{}\"", text.escape_debug()))
                    .nearest(text, words.iter().map(|(word, _)| *word))
            })
        })
    }

    pub fn boolean(self) -> Option<bool> {
        match &self.value {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) if self.doc.is_variable(&self.path) => {
                let truth = text.trim().parse().ok();
                truth.or_else(|| self.mistyped("true or false"))
            }
            _ => self.mistyped("true or false"),
        }
    }

    pub fn integer(self, range: RangeInclusive<u32>) -> Option<u32> {
        let (low, high) = (*range.start(), *range.end());
        let expected = format!("a whole number from {low} to {high}");
        let number = match &self.value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) if self.doc.is_variable(&self.path) => text.trim().parse().ok(),
            _ => return self.mistyped(&expected),
        };
        let within = number.and_then(|number| u32::try_from(number).ok()).filter(|n| range.contains(n));
        if within.is_none() {
            self.refuse(format!("expected {expected}, found {}", self.value));
        }
        within
    }

    pub fn fraction(self, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = match &self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if self.doc.is_variable(&self.path) => text.trim().parse().ok(),
            _ => return self.mistyped(&expected),
        };
        let within = number.filter(|number| range.contains(number));
        if within.is_none() {
            self.refuse(format!("expected {expected}, found {}", self.value));
        }
        within
    }

    pub fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.parse("a duration such as \"5s\"", |text| {
            let span = units::duration(text)?;
            within(&range, span, text, units::show_duration)
        })
    }

    pub fn size(self, range: RangeInclusive<usize>) -> Option<usize> {
        self.parse("a size such as \"64KiB\"", |text| {
            let bytes = units::size(text)?;
            within(&range, bytes, text, units::show_size)
        })
    }

    /// The elements of a list of at most `limit`. A variable holds it as TOML or JSON writes it.
    pub fn list(mut self, limit: usize) -> Option<Vec<Node<'d>>> {
        self.unfold();
        let Value::Array(items) = self.value else { return self.mistyped("a list such as [\"a\", \"b\"]") };
        if items.len() > limit {
            let fault = Fault::new(format!("expected at most {limit} elements, found {}", items.len()));
            self.doc.report(&self.path, fault);
            return None;
        }
        let element = |(index, value)| Node { doc: self.doc, path: self.path.index(index), value };
        Some(items.into_iter().enumerate().map(element).collect())
    }

    /// The elements of a list of tables (`[[webhooks]]`).
    pub fn tables(mut self, limit: usize) -> Option<Vec<Node<'d>>> {
        self.unfold();
        if self.value.is_object() {
            let fault = Fault::new("expected a list of tables, found one table");
            self.refuse(fault.hint(format!("Write [[{0}]] in the place of [{0}].", self.path)));
            return None;
        }
        self.list(limit)
    }

    /// A list, or one value in the place of a list of one.
    pub fn list_or_one(mut self, limit: usize) -> Option<Vec<Node<'d>>> {
        self.unfold();
        if self.value.is_array() { self.list(limit) } else { Some(vec![self]) }
    }

    /// Whether a variable's text is that of a list or a table.
    pub fn holds_list(&self) -> bool {
        let text = self.value.as_str().unwrap_or_default().trim_start();
        self.doc.is_variable(&self.path) && text.starts_with(['[', '{'])
    }

    /// A table. A variable holds it as TOML or JSON writes it.
    pub fn table(mut self) -> Option<Table<'d>> {
        self.unfold();
        let Value::Object(entries) = self.value else { return self.mistyped("a table") };
        Some(Table::new(self.doc, self.path, entries))
    }

    /// Parses the text of a variable where a list or a table is wanted.
    fn unfold(&mut self) {
        if let Value::String(text) = &self.value
            && self.doc.is_variable(&self.path)
            && text.trim_start().starts_with(['[', '{'])
        {
            let parsed = parse_value(text).or_else(|| serde_json::from_str(text).ok());
            self.value = parsed.unwrap_or_else(|| self.value.take());
        }
    }
}

impl<'d> Table<'d> {
    pub fn new(doc: &'d Document<'d>, path: Path, entries: Map<String, Value>) -> Self {
        Self { doc, path, entries, asked: Vec::new() }
    }

    /// Names keys that could be here, for who has mistyped one.
    pub fn mention(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// Whether a key is there that nobody has read yet.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes a key that says `false`; a variable and a row of the database say it as text.
    pub fn take_false(&mut self, key: &'static str) -> bool {
        let says_so = self.entries.get(key).is_some_and(|value| {
            *value == Value::Bool(false) || value.as_str().is_some_and(|text| text.trim() == "false")
        });
        says_so && self.take(key).is_some()
    }

    /// Reads a key, where it is there.
    pub fn get<T>(&mut self, key: &'static str, read: impl FnOnce(Node<'d>) -> Option<T>) -> Option<T> {
        self.take(key).and_then(read)
    }

    /// Reads a key that must be there; `expected` says what it would hold.
    pub fn require<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(Node<'d>) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key);
        if node.is_none() {
            let fault = Fault::new("a required key is missing").detail(format!("{key} is {expected}."));
            self.doc.report(&self.path.key(key), fault);
        }
        node.and_then(read)
    }

    /// Reads a table; where it is absent, as an empty one.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(Table<'d>) -> T) -> Option<T> {
        let (doc, path) = (self.doc, self.path.key(key));
        let node = self.take(key).unwrap_or(Node { doc, path, value: Value::Object(Map::new()) });
        node.table().map(read)
    }

    pub fn take(&mut self, key: &'static str) -> Option<Node<'d>> {
        let path = self.path.key(key);
        self.doc.know(&path);
        self.asked.push(key);
        self.entries.shift_remove(key).map(|value| Node { doc: self.doc, path, value })
    }

    /// The entries of a table whose keys are names of the operator's choice.
    pub fn names(self) -> Vec<(String, Node<'d>)> {
        let entry = |(name, value): (String, Value)| {
            let path = self.path.name(&name);
            (name, Node { doc: self.doc, path, value })
        };
        self.entries.into_iter().map(entry).collect()
    }

    pub fn refuse(&self, fault: impl Into<Fault>) {
        self.doc.report(&self.path, fault.into());
    }

    /// Ends the reading: what nobody asked for is unknown.
    pub fn finish(self) {
        for name in self.entries.keys() {
            self.doc.unknown(&self.path.key(name), name, &self.asked);
        }
    }
}

fn within<T: PartialOrd + Copy>(
    range: &RangeInclusive<T>,
    value: T,
    written: &str,
    show: fn(T) -> String,
) -> Result<T, Fault> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (show(*range.start()), show(*range.end()));
    Err(Fault::new(format!("expected {low} to {high}, found {}", written.trim())))
}
