//! What of a declaration may be seen (invariant I12), and how what was seen is written back.
//!
//! Receivers put keys into URLs, headers and much else, so what may be shown is listed, not what may not. Everything else
//! reads `***`. Whoever writes back what was read leaves those in, and what is stored stays.

use serde_json::{Map, Value};
use url::Url;

/// What stands for a value that is not shown.
pub const MASK: &str = "***";

/// Keys whose values are keys and tokens in part: of these only what is named is shown.
const SHOWN_WITHIN: [(&str, &[&str]); 3] =
    [("auth", &["kind", "algorithm", "name"]), ("tls", &["min_version"]), ("headers", &[])];

/// A declaration as it may be seen.
pub fn masked(row: &Map<String, Value>) -> Map<String, Value> {
    let shown = |(key, value): (&String, &Value)| {
        let within = SHOWN_WITHIN.iter().find(|(name, _)| name == key).map(|(_, shown)| *shown);
        let value = match (key.as_str(), within) {
            ("secret", _) => Value::from(MASK),
            ("url", _) => value.as_str().map_or_else(|| MASK.into(), |url| shown_url(url).into()),
            (_, Some(shown)) => hidden(value, shown),
            _ => value.clone(),
        };
        (key.clone(), value)
    };
    row.iter().map(shown).collect()
}

/// A URL without the values of its query.
fn shown_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    if url.query().is_some() {
        let names: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        let query = names.iter().map(|name| {
            let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            format!("{name}={MASK}")
        });
        let query = query.collect::<Vec<_>>().join("&");
        url.set_query(Some(&query));
    }
    url.into()
}

fn hidden(value: &Value, shown: &[&str]) -> Value {
    match value {
        Value::Object(map) => {
            let one = |(key, value): (&String, &Value)| {
                let value = if shown.contains(&key.as_str()) { value.clone() } else { hidden(value, &[]) };
                (key.clone(), value)
            };
            map.iter().map(one).collect()
        }
        _ => MASK.into(),
    }
}

/// Puts what is stored into the place of what was not shown: wherever `given` says what was shown of it.
pub fn unmask(given: &mut Value, shown: &Value, stored: &Value) {
    if given == shown {
        *given = stored.clone();
        return;
    }
    if let (Value::Object(given), Value::Object(shown), Value::Object(stored)) = (given, shown, stored) {
        for (key, value) in given {
            if let (Some(shown), Some(stored)) = (shown.get(key), stored.get(key)) {
                unmask(value, shown, stored);
            }
        }
    }
}

/// JSON pointers of masks that stand for nothing.
pub fn left_over(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text == MASK => found.push(at.to_owned()),
        Value::Object(map) => {
            for (key, value) in map {
                left_over(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                left_over(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Lays a change over a document (RFC 7396, JSON Merge Patch): a null removes a key.
pub fn merge(document: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *document = patch;
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(into) = document else { return };
    for (key, value) in patch {
        if value.is_null() {
            into.shift_remove(&key);
        } else {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Map<String, Value> {
        let row = json!({
            "name": "crm", "url": "https://h.example/a?key=geheim&x=1", "secret": ["one", "two"],
            "events": ["*"], "headers": {"X-Key": "geheim"}, "metadata": {"team": "a"},
            "auth": {"kind": "jwt", "algorithm": "HS256", "key": "geheim", "claims": {"a": "geheim"}},
            "tls": {"key": "geheim", "min_version": "1.3"}, "retry": {"jitter": 0.5},
        });
        row.as_object().unwrap().clone()
    }

    #[test]
    fn i12_what_is_shown_of_a_declaration_has_no_secret() {
        let shown = Value::Object(masked(&row()));
        assert!(!shown.to_string().contains("geheim"), "{shown}");
        assert_eq!(shown["url"], "https://h.example/a?key=***&x=***");
        assert_eq!(shown["secret"], MASK);
        assert_eq!(shown["auth"]["kind"], "jwt");
        assert_eq!(shown["tls"]["min_version"], "1.3");
        assert_eq!((&shown["metadata"]["team"], &shown["retry"]["jitter"]), (&json!("a"), &json!(0.5)));
    }

    #[test]
    fn what_was_read_can_be_written_back() {
        let stored = Value::Object(row());
        let shown = Value::Object(masked(&row()));
        let mut given = shown.clone();
        given["events"] = json!(["orders.*"]);
        given["headers"]["X-New"] = json!("new");
        unmask(&mut given, &shown, &stored);
        let mut expect = stored.clone();
        expect["events"] = json!(["orders.*"]);
        expect["headers"]["X-New"] = json!("new");
        assert_eq!(given, expect);
        let mut left = Vec::new();
        left_over(&given, "", &mut left);
        assert!(left.is_empty(), "{left:?}");
        left_over(&json!({"headers": {"a/b": MASK}, "secret": ["x", MASK]}), "", &mut left);
        assert_eq!(left, ["/headers/a~1b", "/secret/1"]);
    }

    #[test]
    fn a_patch_merges_as_rfc_7396_has_it() {
        // From the table in appendix A of the RFC.
        for (original, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut document = original;
            merge(&mut document, patch);
            assert_eq!(document, result);
        }
    }
}
