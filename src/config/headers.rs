//! `headers = { … }`: what a webhook adds to each of its requests.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::node::Node;
use super::problem::Fault;

const HEADERS: usize = 100;
/// Headers that are walhook's own or the connection's.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
];

/// Reads headers. Every value is marked sensitive: it may be a key, and no log shows it.
pub(super) fn read(node: Node<'_>) -> Option<HeaderMap> {
    let (doc, path) = (node.doc, node.path.clone());
    let entries = node.table()?.names();
    if entries.len() > HEADERS {
        doc.report(&path, Fault::new(format!("expected at most {HEADERS} headers, found {}", entries.len())));
    }
    let mut headers = HeaderMap::new();
    for (name, node) in entries {
        let name = match header_name(&name) {
            Ok(name) => name,
            Err(fault) => {
                node.refuse(fault);
                continue;
            }
        };
        if headers.contains_key(&name) {
            node.refuse("this header is set twice; capitals make no difference in its name");
        }
        let mut value = None;
        node.checked_secret(|text| {
            value = Some(header_value(text)?);
            Ok(())
        });
        headers.extend(value.map(|value| (name, value)));
    }
    Some(headers)
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, Fault> {
    let name: HeaderName = text.parse().map_err(|_| {
        Fault::new("not a valid name of a header")
            .detail("A name has letters, digits and ! # $ % & ' * + - . ^ _ ` | ~")
    })?;
    let lower = name.as_str();
    if lower.starts_with("webhook-") || lower.starts_with("x-webhook-") || RESERVED.contains(&lower) {
        return Err(Fault::new("this header is set by walhook itself"));
    }
    if lower == "content-type" {
        return Err(Fault::new("content-type comes with the body")
            .hint("For another one, use a template and set its content_type."));
    }
    Ok(name)
}

pub(super) fn header_value(text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Fault::new("not a valid value of a header: it holds a line end or another control character")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
