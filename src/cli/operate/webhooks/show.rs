//! Webhooks as people read them.

use serde_json::Value;

use super::super::super::print;
use super::super::call::{Caller, Failure, PageArgs, cell, gather, show};
use super::super::table::{Align, cut};

/// How much of a URL, of the event types and of a reason a list shows.
const SHOWN_CHARS: usize = 50;

pub(super) async fn list(caller: &Caller, page: &PageArgs) -> Result<(), Failure> {
    let list = gather(caller, "/webhooks", &[], page).await?;
    let columns = ["NAME", "STATUS", "SOURCE", "EVENTS", "URL", "REASON"].map(|name| (name, Align::Left));
    show(&list, page, &columns, |webhook| {
        let short = |pointer| cut(&cell(webhook, pointer), SHOWN_CHARS);
        vec![
            cell(webhook, "name"),
            cell(webhook, "status"),
            cell(webhook, "source"),
            short("events"),
            short("url"),
            short("reason"),
        ]
    });
    Ok(())
}

/// A document, a line a field.
pub(super) fn document(document: &Value, as_json: bool) {
    if as_json {
        print::line(&document.to_string());
        return;
    }
    for line in lines(document) {
        print::line(&line);
    }
}

fn lines(document: &Value) -> Vec<String> {
    let fields: Vec<(&String, &Value)> =
        document.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).collect();
    let width = fields.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let line = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        print::plain(&format!("{key:<width$}  {value}"))
    };
    fields.into_iter().map(line).collect()
}

/// What became of a test.
pub(super) fn tested(tested: &Value, webhook: &str) {
    let word = |pointer| print::plain(&cell(tested, pointer));
    let webhook = print::plain(webhook);
    if tested.get("subscribed").and_then(Value::as_bool) == Some(false) {
        print::note(&format!("{webhook} does not subscribe to {}; it is sent all the same", word("event")));
    }
    print::note(&format!("{} is on its way to {webhook}", word("delivery")));
    let status = tested.get("http_status").and_then(Value::as_i64).map(|status| format!("HTTP {status}"));
    let error = tested.get("error").and_then(Value::as_str).map(print::plain);
    let why = error.or(status).unwrap_or_default();
    print::line(&match tested.get("status").and_then(Value::as_str) {
        None => "it has not been tried in time; `walhook status` shows what is in its way".to_owned(),
        Some("retrying") => {
            format!("the first attempt failed: {why}; it is retried on the webhook's schedule")
        }
        Some(status) => format!("{}: {why}", print::plain(status)),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_reads_a_line_a_field() {
        let document =
            json!({"name": "crm", "filter": null, "events": ["orders.*"], "url": "https://a/\u{7}"});
        assert_eq!(lines(&document), ["name    crm", "events  [\"orders.*\"]", "url     https://a/\u{fffd}"]);
    }
}
