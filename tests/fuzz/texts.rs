//! What must hold of any text as a condition, a configuration, or the headers of a signed request.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;
use walhook::catalog::{conditions_complaint, template_complaint};
use walhook::config::{Checks, Place, Sources, load};
use walhook::domain::{
    BodyShape, Cell, Change, Column, Compression, Flow, Format, OldRow, Operation, Ordering, Relation,
    ReplicaIdentity, RetryPolicy, Tuple, ValueKind, Webhook, WebhookSource, limits,
};
use walhook::matcher::{Condition, Matcher};
use walhook::pgoutput::write_json;
use walhook::sign::{SIGNATURE, Signer, verify};

/// The columns of the rows that conditions are asked about: name, kind, value.
const COLUMNS: [(&str, ValueKind, &str); 7] = [
    ("id", ValueKind::Integer, "7"),
    ("status", ValueKind::Text, "paid"),
    ("total", ValueKind::Numeric, "120.50"),
    ("paid", ValueKind::Bool, "t"),
    ("at", ValueKind::TimestampTz, "2026-11-21 20:21:29.123456+00"),
    ("meta", ValueKind::Json, r#"{"a": [1, {"b": "x"}], "big": 18446744073709551615}"#),
    ("note", ValueKind::Text, "é\"\n"),
];

static CHANGE: LazyLock<Change> = LazyLock::new(|| {
    let column = |(name, kind, _): &(&str, ValueKind, &str)| Column {
        name: (*name).into(),
        type_oid: 25,
        type_name: None,
        type_modifier: -1,
        in_identity: true,
        kind: kind.clone(),
    };
    let row =
        || Tuple(COLUMNS.iter().map(|(.., text)| Cell::Text(Bytes::from_static(text.as_bytes()))).collect());
    let relation = Relation {
        id: 1,
        schema: "public".into(),
        name: "orders".into(),
        identity: ReplicaIdentity::Full,
        columns: COLUMNS.iter().map(column).collect(),
    };
    Change {
        relation: Arc::new(relation),
        operation: Operation::Update,
        new: Some(row()),
        old: Some(OldRow::Full(row())),
        sequence: 1,
    }
});

fn webhook(name: &str, filter: String) -> Arc<Webhook> {
    Arc::new(Webhook {
        name: name.into(),
        source: WebhookSource::Toml,
        tenant: None,
        url: "http://localhost/".parse().expect("a URL"),
        secrets: Vec::new(),
        events: vec!["orders.updated".to_owned()],
        filter: Some(filter),
        headers: HeaderMap::new(),
        body: BodyShape::Format(Format::Standard),
        compression: Compression::default(),
        timeout: Duration::from_secs(1),
        concurrency: 1,
        ordering: Ordering::Row,
        retry: RetryPolicy::default(),
        sla: std::time::Duration::from_secs(5),
        reach: walhook::domain::Reach::default(),
        flow: Flow::default(),
        batch: None,
    })
}

/// What webhooks with these filters are owed, and which filters failed.
fn asked(filters: &[&str]) -> Option<(BTreeSet<usize>, usize)> {
    let webhooks: Vec<_> = filters
        .iter()
        .enumerate()
        .map(|(at, filter)| webhook(&at.to_string(), (*filter).to_owned()))
        .collect();
    let matcher = Matcher::build(&[], &[], &webhooks).ok()?;
    let json = |kind: &ValueKind, text: &[u8], out: &mut Vec<u8>| {
        write_json(kind, text, out);
    };
    let owing = matcher.interest(&CHANGE.relation).owed(&CHANGE, json);
    for failure in &owing.failures {
        assert!(!failure.reason.contains("interpreter failed"), "{}", failure.reason);
    }
    Some((owing.deliveries.iter().map(|owed| owed.webhook).collect(), owing.failures.len()))
}

/// Any text as a condition: it is refused with a place in it, or it has one answer on a row, which parentheses do not
/// change, and of which `!` is the other.
pub fn condition(text: &str) {
    let known = match Condition::compile(text) {
        Err(error) => {
            assert!(!error.message.is_empty());
            if let Some((line, column)) = error.position {
                let lines: Vec<&str> = text.split('\n').collect();
                let length = lines.get(line.saturating_sub(1)).map(|line| line.chars().count());
                assert!(line >= 1 && column >= 1, "{line}:{column}");
                assert!(length.is_some_and(|length| column <= length + 1), "{line}:{column} of {text:?}");
            }
            return;
        }
        Ok(condition) => condition,
    };
    assert_eq!(known.source(), text);
    let (within, without) = (format!("({text}\n)"), format!("!({text}\n)"));
    if within.len() > limits::CONDITION_BYTES || without.len() > limits::CONDITION_BYTES {
        return;
    }
    let (owed, failed) = asked(&[text, &within]).expect("in parentheses it is a condition too");
    assert!(owed.len() != 1, "parentheses changed the answer");
    // A level deeper, `!` may be one too many.
    if let Some((both, failed_too)) = asked(&[text, &without])
        && failed + failed_too == 0
    {
        assert_eq!(both.len(), 1, "neither it nor its opposite holds, or both");
    }
}

/// Any text as a configuration file at `file`: it loads, or every problem has a place in the file and words, the same
/// ones each time, and none shows one of `secrets`.
pub fn config(file: &Path, text: &str, secrets: &[&str]) {
    std::fs::write(file, text).expect("a file");
    let sources = Sources { path: Some(file.to_owned()), environment: Vec::new() };
    let checks = Checks {
        condition: &conditions_complaint,
        template: &template_complaint,
        connection: &|_| Ok(()),
        reach: &walhook::catalog::reach_complaint,
        stored: walhook::config::StoredTemplates::NONE,
    };
    let Err(problems) = load(&sources, &checks) else { return };
    assert!(!problems.0.is_empty(), "refused without a reason");
    let lines = text.split('\n').count();
    for problem in &problems.0 {
        assert!(!problem.message.is_empty());
        if let Place::File { at: Some((line, column)), .. } = &problem.place {
            assert!((1..=lines).contains(line) && *column >= 1, "{line}:{column} of {lines} lines");
        }
    }
    let told = problems.to_string();
    for secret in secrets {
        assert!(!told.contains(secret), "a secret is shown: {told}");
    }
    assert_eq!(load(&sources, &checks).err().map(|problems| problems.to_string()), Some(told));
}

/// The body of [`signed`].
pub const BODY: &[u8] = b"{}";

fn secrets() -> [SecretString; 1] {
    [SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
}

/// A request that was signed: id, timestamp, signature.
pub fn signed() -> [Vec<u8>; 3] {
    let signer = Signer::new(&secrets()).expect("a key");
    let (id, seconds) = ("dlv_0001", 1_700_000_000);
    let headers = signer.headers(id, seconds, BODY);
    let (_, signature) = headers.iter().find(|(name, _)| *name == SIGNATURE).expect("a signature");
    [id.as_bytes().to_vec(), seconds.to_string().into_bytes(), signature.as_bytes().to_vec()]
}

/// Any three texts as the headers of a request with any body: it is believed exactly where it says what was signed and
/// has that signature among its first ones.
pub fn signature([id, timestamp, signatures]: [&[u8]; 3], body: &[u8]) {
    let [its_id, its_timestamp, its_signature] = signed();
    let mut headers = HeaderMap::new();
    let mut is_text = true;
    for (name, text) in
        [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signatures)]
    {
        is_text &= HeaderValue::from_bytes(text).is_ok_and(|value| {
            let is_text = value.to_str().is_ok();
            headers.insert(name, value);
            is_text
        });
    }
    let same = (id, timestamp, body) == (&its_id, &its_timestamp, BODY);
    let mut entries = signatures.split(|byte| *byte == b' ').take(limits::SIGNATURES);
    let is_signed = is_text && same && entries.any(|entry| entry == its_signature);
    let believed = verify(&secrets(), &headers, body, 1_700_000_060, Duration::from_secs(300));
    assert_eq!(believed.is_ok(), is_signed, "{believed:?}");
}
