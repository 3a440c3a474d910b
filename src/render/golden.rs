//! Every format for every operation, as `examples/formats` shows it to people: byte for byte.

use super::tests::{change, event, row, text, write};
use super::*;
use crate::domain::{Cell, Event, Format, OldRow, Operation, TableRules, Tuple};

/// Quotes, a line end, markup, an emoji, and what XML and headers must escape.
const AWKWARD: &str = "5 < 6 & \"so\"\n</script> 100% \u{1F980}";

/// The operations, each with its event's type and its data.
fn samples() -> Vec<(&'static str, String, Vec<u8>)> {
    let full = |status, note: &str| Some(OldRow::Full(row(status, text(note))));
    let new = |status, note: &str| Some(row(status, text(note)));
    let changes = [
        ("orders.created", change(Operation::Insert, new("paid", AWKWARD), None)),
        ("orders.updated", change(Operation::Update, new("shipped", AWKWARD), full("paid", AWKWARD))),
        ("orders.deleted", {
            let key = Tuple(vec![text("7"), Cell::Null, Cell::Null, Cell::Null]);
            change(Operation::Delete, None, Some(OldRow::Key(key)))
        }),
        ("orders.truncated", change(Operation::Truncate, None, None)),
        ("orders.created", {
            let row = Tuple(vec![text("7"), Cell::Null, Cell::Unchanged, text("null")]);
            change(Operation::Snapshot, Some(row), None)
        }),
    ];
    let data = |change| {
        let mut data = Vec::new();
        write_data(&change, &TableRules::default(), write, &mut data);
        data
    };
    let mut samples: Vec<_> = changes
        .into_iter()
        .map(|(kind, change)| (kind, change.operation.as_str().to_owned(), data(change)))
        .collect();
    let mut message = Vec::new();
    write_message_data(br#"{"key":7,"parcels":[1,2],"fragile":true,"weight":1.50}"#, &mut message);
    samples.push(("bestellung.gepackt/größe", "message".to_owned(), message));
    let mut notice = Vec::new();
    let told =
        br#"{"webhook":"crm","state":"disabled","reason":"HTTP 410","waiting":{"pending":0,"held":12}}"#;
    write_notice_data(told, &mut notice);
    samples.push(("webhook.disabled", "notice".to_owned(), notice));
    samples
}

/// A format's requests, one after another, as an editor's HTTP client writes them.
fn page(format: Format) -> String {
    let renderer = Templates::default().renderer(&BodyShape::Format(format)).unwrap();
    let mut page = String::new();
    for (event_type, operation, data) in samples() {
        let event = Event { event_type: event_type.into(), ..event() };
        let made = renderer.render(&event, &data, "crm", 64 * 1024).unwrap();
        let headers = made.headers.map(|lines| format!("{lines}\n")).unwrap_or_default();
        let body = String::from_utf8(made.body.to_vec()).unwrap();
        let content_type = renderer.content_type();
        page.extend([format!("### {operation}\ncontent-type: {content_type}\n{headers}\n{body}\n\n")]);
    }
    page
}

#[test]
fn every_format_makes_of_every_operation_what_the_examples_show() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/formats");
    let mut listed: Vec<String> = Vec::new();
    for (name, version, format) in Format::VERSIONS {
        let file = if version == 1 { format!("{name}.http") } else { format!("{name}-{version}.http") };
        let golden = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert_eq!(page(format), golden, "{file}");
        listed.push(file);
    }
    let there = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string());
    let known = |name: String| name == "README.md" || listed.contains(&name);
    assert!(there.map(Result::unwrap).all(known));
}

#[test]
fn i4_headers_beside_a_body_are_what_the_binding_allows() {
    let renderer = Templates::default().renderer(&BodyShape::Format(Format::CloudeventsBinary)).unwrap();
    for (event_type, _, data) in samples() {
        let event = Event { event_type: event_type.into(), database: "a\" \r\n%é".into(), ..event() };
        let made = renderer.render(&event, &data, "crm", 64 * 1024).unwrap();
        assert_eq!(made, renderer.render(&event, &data, "crm", 64 * 1024).unwrap());
        let headers = made.headers.unwrap();
        let lines: Vec<_> = headers.lines().map(|line| line.split_once(": ").unwrap()).collect();
        let of = |name: &str| lines.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        assert_eq!((of("ce-specversion"), of("ce-id")), (Some("1.0"), Some("evt_1")));
        // The database's name is percent-encoded once in the reference, and its percent signs once more in the header.
        assert_eq!(of("ce-source"), Some("/walhook/a%2522%2520%250D%250A%2525%25C3%25A9"));
        assert_eq!(of("ce-time"), Some("2026-11-21T20:21:29.120000Z"));
        assert!(lines.iter().all(|(_, value)| value.bytes().all(|b| (b'!'..=b'~').contains(&b))));
        assert_eq!(made.body, data);
    }
}

#[test]
fn a_form_reads_back_with_another_parser_as_the_values_that_went_in() {
    let renderer = Templates::default().renderer(&BodyShape::Format(Format::Form)).unwrap();
    let (event_type, _, data) = samples().swap_remove(1);
    let event = Event { event_type: event_type.into(), ..event() };
    let made = renderer.render(&event, &data, "crm", 64 * 1024).unwrap();
    let read: Vec<(String, String)> = url::form_urlencoded::parse(&made.body).into_owned().collect();
    let of = |name: &str| read.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(of("data[record][note]"), Some(AWKWARD));
    assert_eq!(of("data[record][id]"), Some("7"));
    assert_eq!(of("data[changed][]"), Some("status"));
    assert_eq!(of("data[record][extra]"), Some(r#"{"tags":["a","b"],"n":1.0}"#));
    assert_eq!(of("metadata[lsn]"), Some("0/1A2B3C8"));
}
