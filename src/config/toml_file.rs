//! The file: TOML text → a tree of values, and where each of them stands in the text.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::path::Path;

/// Where a key and its value stand, in bytes from the start of the text.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// A parsed file.
#[derive(Debug)]
pub(super) struct TomlFile {
    pub tree: Map<String, Value>,
    /// By the text of a path.
    pub spots: HashMap<String, Spot>,
}

/// What the parser refused. Holds none of the text: there may be a secret in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub message: String,
    pub offset: Option<usize>,
}

/// Parses `text` (TOML 1.0).
pub(super) fn parse(text: &str) -> Result<TomlFile, SyntaxError> {
    let root = DeTable::parse(text).map_err(|error| SyntaxError {
        message: error.message().replace('\n', ", "),
        offset: error.span().map(|span| span.start),
    })?;
    let mut spots = HashMap::new();
    let tree = table(root.get_ref(), &Path::default(), &mut spots);
    Ok(TomlFile { tree, spots })
}

/// Parses one value as TOML writes it (`["a", "b"]`), as an environment variable holds it.
pub(super) fn parse_value(text: &str) -> Option<Value> {
    let parsed = DeValue::parse(text.trim()).ok()?;
    Some(value(&parsed, &Path::default(), &mut HashMap::new()))
}

/// The line and the column of an offset, both from 1; columns count characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn table(entries: &DeTable<'_>, path: &Path, spots: &mut HashMap<String, Spot>) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, entry) in entries {
        let here = path.key(key.get_ref());
        spots.insert(here.to_string(), Spot { key: key.span(), value: entry.span() });
        map.insert(key.get_ref().to_string(), value(entry, &here, spots));
    }
    map
}

fn value(of: &Spanned<DeValue<'_>>, path: &Path, spots: &mut HashMap<String, Spot>) -> Value {
    match of.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Float(float) => number(float.as_str().parse().ok()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Number(integer.into()),
            Err(_) => number(integer.as_str().parse().ok()),
        },
        DeValue::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let here = path.index(index);
                spots.insert(here.to_string(), Spot { key: item.span(), value: item.span() });
                list.push(value(item, &here, spots));
            }
            Value::Array(list)
        }
        DeValue::Table(entries) => Value::Object(table(entries, path, spots)),
    }
}

/// JSON has no NaN and no infinity, and no key wants one: they become null, which every reader refuses.
fn number(float: Option<f64>) -> Value {
    float.and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_key_is_found_again_in_the_text() {
        let text = "[a]\nb = 1\n\n[[c]]\nd = 'é'\ne = [1, 'x']\n[[c]]\nd = 2\n";
        let file = parse(text).unwrap();
        assert_eq!(
            Value::Object(file.tree),
            json!({"a": {"b": 1}, "c": [{"d": "é", "e": [1, "x"]}, {"d": 2}]})
        );
        let at = |path: &str| line_and_column(text, file.spots[path].key.start);
        assert_eq!(at("a.b"), (2, 1));
        assert_eq!(at("c[0].d"), (5, 1));
        assert_eq!(at("c[0].e[1]"), (6, 9));
        assert_eq!(at("c[1]").0, 7);
        assert_eq!(at("c[1].d"), (8, 1));
    }

    #[test]
    fn a_syntax_error_has_a_place_and_shows_nothing_of_the_text() {
        let error = parse("a = 1\nsecret = \"hunter2\nb = 2").unwrap_err();
        assert_eq!(error.offset.map(|at| line_and_column("a = 1\nsecret = \"hunter2\nb = 2", at).0), Some(2));
        assert!(!error.message.contains("hunter2"));
    }
}
