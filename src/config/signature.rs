//! `signature = "…"`, or a table: signatures that a receiver checks already, beside those of Standard Webhooks.

use http::HeaderName;

use super::headers::header_name;
use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{CustomSignature, Encoding, HashAlgorithm, SignatureScheme, SignedPart};

const PREFIX_BYTES: usize = 100;
const CONTENT_BYTES: usize = 1000;
const NAMES: [&str; 5] = ["standard", "github", "stripe", "shopify", "svix"];
const PARTS: [(&str, SignedPart); 4] = [
    ("body", SignedPart::Body),
    ("id", SignedPart::Id),
    ("timestamp", SignedPart::Timestamp),
    ("event", SignedPart::Event),
];

pub(super) fn read(node: Node<'_>) -> Option<SignatureScheme> {
    if node.value.is_object() {
        let mut table = node.table()?;
        let custom = custom(&mut table);
        table.finish();
        return custom.map(|custom| SignatureScheme::Custom(Box::new(custom)));
    }
    let all: Vec<_> = NAMES.iter().map(|name| format!("\"{name}\"")).collect();
    let expected = format!("one of {}, or a table", all.join(", "));
    node.parse(&expected, |text| match text {
        "standard" => Ok(SignatureScheme::Standard),
        "github" => Ok(SignatureScheme::Github),
        "stripe" => Ok(SignatureScheme::Stripe),
        "shopify" => Ok(SignatureScheme::Shopify),
        "svix" => Ok(SignatureScheme::Svix),
        other => Err(Fault::new(format!("expected {expected}, found \"{}\"", other.escape_debug()))
            .detail("A table is written { header = \"x-signature\", content = \"{timestamp}.{body}\" }.")
            .nearest(other, NAMES)),
    })
}

fn custom(table: &mut Table<'_>) -> Option<CustomSignature> {
    let algorithms =
        [("sha1", HashAlgorithm::Sha1), ("sha256", HashAlgorithm::Sha256), ("sha512", HashAlgorithm::Sha512)];
    let encodings = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
    let name = |node: Node<'_>| -> Option<HeaderName> {
        node.parse("the name of a header, as a string", header_name)
    };
    let header = table.require("header", "the name of the signature's header", name);
    let algorithm = table.get("algorithm", |node| node.word(&algorithms));
    let encoding = table.get("encoding", |node| node.word(&encodings));
    let prefix = table.get("prefix", |node| node.parse("a string", prefix));
    let content = table.get("content", |node| node.parse("what is signed, as a string", content));
    let timestamp_header = table.get("timestamp_header", name);
    if header.is_some() && header == timestamp_header {
        table.refuse("header and timestamp_header are the same header");
    }
    Some(CustomSignature {
        header: header?,
        algorithm: algorithm.unwrap_or(HashAlgorithm::Sha256),
        encoding: encoding.unwrap_or(Encoding::Hex),
        prefix: prefix.unwrap_or_default(),
        content: content.unwrap_or_else(|| vec![SignedPart::Body]),
        timestamp_header,
    })
}

fn prefix(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    if text.len() > PREFIX_BYTES || !text.chars().all(plain) || text.starts_with(' ') {
        return Err(Fault::new(format!("expected at most {PREFIX_BYTES} printable ASCII characters")));
    }
    Ok(text.to_owned())
}

/// Text with `{body}`, `{id}`, `{timestamp}`, `{event}` in it.
fn content(text: &str) -> Result<Vec<SignedPart>, Fault> {
    let detail = "What is signed is text with {body}, {id}, {timestamp} and {event} in it, such as \"{timestamp}.{body}\".";
    if text.len() > CONTENT_BYTES {
        return Err(Fault::new(format!("expected at most {CONTENT_BYTES} bytes")).detail(detail));
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(SignedPart::Literal(before.to_owned()));
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(Fault::new("a { is not closed").detail(detail));
        };
        let Some((_, part)) = PARTS.iter().find(|(known, _)| *known == name) else {
            return Err(Fault::new(format!("there is no {{{}}}", name.escape_debug()))
                .detail(detail)
                .nearest(name, PARTS.iter().map(|(name, _)| *name)));
        };
        parts.push(part.clone());
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(SignedPart::Literal(rest.to_owned()));
    }
    if !parts.contains(&SignedPart::Body) {
        return Err(
            Fault::new("{body} is not in it, so the signature would not cover the body").detail(detail)
        );
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_text_with_known_names_in_braces_and_has_the_body() {
        let literal = |text: &str| SignedPart::Literal(text.to_owned());
        assert_eq!(content("{body}"), Ok(vec![SignedPart::Body]));
        let slack = [literal("v0:"), SignedPart::Timestamp, literal(":"), SignedPart::Body];
        assert_eq!(content("v0:{timestamp}:{body}"), Ok(slack.to_vec()));
        let both = [SignedPart::Event, SignedPart::Body, literal("}")];
        assert_eq!(content("{event}{body}}"), Ok(both.to_vec()));
        let words = |text: &str| content(text).unwrap_err().message;
        assert_eq!(words("{timestmp}.{body}"), "there is no {timestmp}");
        assert_eq!(words("{body"), "a { is not closed");
        assert_eq!(words("{id}"), "{body} is not in it, so the signature would not cover the body");
    }
}
