//! A problem document in words, as the other commands tell what is wrong: primary, every wrong field, hint.

use serde_json::Value;

use super::super::super::print::plain;

/// The words; nothing where it is no problem document.
pub(super) fn words(problem: &Value) -> Option<String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(lines);
    let detail = text(problem, "detail").or_else(|| text(problem, "title"))?;
    problem.get("status").and_then(Value::as_u64)?;
    let errors = problem.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let hint = text(problem, "hint");
    let mut words = String::new();
    if let [one] = errors {
        words.push_str(&wrong(one, ""));
    } else {
        words.push_str(&detail);
        for one in errors {
            words.push_str("\n  ");
            words.push_str(&wrong(one, "  "));
        }
    }
    if let Some(hint) = hint {
        words.extend(["\n  hint: ", &hint]);
    }
    Some(words)
}

/// `retry.schedule: expected a list`, and below what to do about it.
fn wrong(error: &Value, indent: &str) -> String {
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(lines);
    let pointer = text("pointer").map(|pointer| {
        let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
        parts.collect::<Vec<_>>().join(".")
    });
    let place = pointer.or_else(|| text("parameter")).filter(|place| !place.is_empty());
    let detail = text("detail").unwrap_or_default();
    let mut words = place.map_or_else(|| detail.clone(), |place| format!("{place}: {detail}"));
    if let Some(hint) = text("hint") {
        words.extend(["\n", indent, "  hint: ", &hint]);
    }
    words
}

/// Without what a terminal would obey, but for the ends of lines.
fn lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_wrong_field_is_told_with_its_remedy() {
        let problem = json!({
            "type": "urn:walhook:problem:invalid", "title": "The request cannot be used", "status": 422,
            "detail": "2 fields are wrong",
            "errors": [
                {"pointer": "/retry/schedule", "detail": "expected a list", "hint": "Write [\"5s\"]."},
                {"pointer": "/headers/a~1b", "detail": "no header has such a name"},
            ],
        });
        let expect = "2 fields are wrong\n  retry.schedule: expected a list\n    hint: Write [\"5s\"].\n  \
                      headers.a/b: no header has such a name";
        assert_eq!(words(&problem).as_deref(), Some(expect));
    }

    #[test]
    fn one_wrong_field_is_the_message_and_nothing_moves_the_cursor() {
        let problem = json!({
            "title": "A parameter cannot be used", "status": 400, "detail": "expected a table",
            "errors": [{"parameter": "table", "detail": "expected a table\u{1b}[2J"}],
        });
        assert_eq!(words(&problem).as_deref(), Some("table: expected a table\u{fffd}[2J"));
        let problem = json!({"title": "There is nothing here", "status": 404, "detail": "there is no webhook \"cmr\"",
            "hint": "Perhaps you meant \"crm\"."});
        assert_eq!(
            words(&problem).as_deref(),
            Some("there is no webhook \"cmr\"\n  hint: Perhaps you meant \"crm\".")
        );
        for strange in [json!(null), json!({"error": "no"}), json!({"detail": "Not Found"}), json!([1])] {
            assert_eq!(words(&strange), None, "{strange}");
        }
    }
}
