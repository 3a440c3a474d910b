//! `secret`: what a webhook signs with. One secret, or a list of which all but the first may have an end.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::node::Node;
use super::problem::Fault;
use crate::domain::{SigningSecret, limits};

pub(super) fn read(node: Node<'_>) -> Option<Vec<SigningSecret>> {
    let (doc, path) = (node.doc, node.path.clone());
    let items = node.list_or_one(limits::SECRETS)?;
    if items.is_empty() {
        doc.report(
            &path,
            Fault::new("expected at least one secret, found none")
                .hint("Leave the key out for no signatures."),
        );
    }
    let secrets: Vec<SigningSecret> = items.into_iter().filter_map(secret).collect();
    if secrets.first().is_some_and(|first| first.until.is_some()) {
        let fault = Fault::new("the first secret is the current one and has no until")
            .hint("Put the secret that stays first, and those that end behind it.");
        doc.report(&path, fault);
    }
    Some(secrets)
}

/// A secret, with its end where it has one: `{ env = "NAME", until = "…" }`, `{ secret = "text", until = "…" }`.
fn secret(mut node: Node<'_>) -> Option<SigningSecret> {
    let until = match node.value.as_object_mut().and_then(|form| form.shift_remove("until")) {
        Some(value) => Some(end(Node { doc: node.doc, path: node.path.key("until"), value })?),
        None => None,
    };
    if let Value::Object(form) = &mut node.value
        && form.len() == 1
        && let Some(inner) = form.shift_remove("secret")
    {
        node.value = inner;
    }
    let text = node.checked_secret(signing_key)?;
    Some(SigningSecret { text, until })
}

/// A moment (RFC 3339), which says its distance from UTC.
fn end(node: Node<'_>) -> Option<Timestamp> {
    node.parse("a time, as a string", |text| {
        text.parse().map_err(|_| {
            Fault::new(format!("expected a time with its zone, found \"{}\"", text.escape_debug()))
                .detail("A time is written \"2026-12-01T00:00:00Z\" or \"2026-12-01T01:00:00+01:00\".")
        })
    })
}

/// Whether a secret can be a key (Standard Webhooks: `whsec_` and base64 for HMAC, `whsk_` and base64 for ed25519).
fn signing_key(text: &str) -> Result<(), Fault> {
    if text.starts_with("whpk_") {
        return Err(Fault::new(
            "this is a public key (whpk_…), for receivers; signing needs the private one (whsk_…)",
        ));
    }
    let Some((prefix, key)) = ["whsec_", "whsk_"].iter().find_map(|p| Some((p, text.strip_prefix(p)?)))
    else {
        return Ok(());
    };
    match BASE64_STANDARD.decode(key) {
        Ok(bytes) if !bytes.is_empty() => Ok(()),
        _ => Err(Fault::new(format!("what follows {prefix} is not base64"))
            .hint("Base64 comes in whole groups of four characters; see that none was lost.")),
    }
}
