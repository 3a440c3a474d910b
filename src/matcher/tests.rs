//! Matching from the outside: rules, events and webhooks in, deliveries out.

use bytes::Bytes;

use super::*;
use crate::domain::{
    BodyShape, Cell, Change, Column, Compression, Flow, Format, Mask, OldRow, Ordering, ReplicaIdentity,
    RetryPolicy, Tuple, ValueKind, WebhookSource,
};

pub(super) fn webhook(name: &str, events: &[&str], filter: Option<&str>) -> Arc<Webhook> {
    Arc::new(Webhook {
        name: name.into(),
        source: WebhookSource::Toml,
        tenant: crate::domain::tenant_of(name).map(Into::into),
        url: "http://localhost/".parse().unwrap(),
        secrets: Vec::new(),
        events: events.iter().map(ToString::to_string).collect(),
        filter: filter.map(str::to_owned),
        headers: http::HeaderMap::new(),
        body: BodyShape::Format(Format::Standard),
        compression: Compression::default(),
        timeout: std::time::Duration::from_secs(1),
        concurrency: 1,
        ordering: Ordering::Row,
        retry: RetryPolicy::default(),
        sla: std::time::Duration::from_secs(5),
        reach: crate::domain::Reach::default(),
        flow: Flow::default(),
        batch: None,
    })
}

fn rule(table: &str, event: Option<&str>) -> TableRule {
    TableRule {
        schema: "public".to_owned(),
        table: table.to_owned(),
        event: event.map(str::to_owned),
        ..TableRule::default()
    }
}

fn completed(when: &str) -> NamedEvent {
    NamedEvent {
        description: None,
        event_type: "order.completed".into(),
        schema: "public".to_owned(),
        table: "orders".to_owned(),
        on: vec![Operation::Update],
        when: Some(when.to_owned()),
        public: false,
    }
}

type Described = (&'static str, fn() -> ValueKind, i32);

const KINDS: [Described; 10] = [
    ("id", || ValueKind::Integer, -1),
    ("status", || ValueKind::Text, -1),
    ("total", || ValueKind::Numeric, (12 << 16) + 2 + 4),
    ("count", || ValueKind::Numeric, (12 << 16) + 4),
    ("paid", || ValueKind::Bool, -1),
    ("at", || ValueKind::TimestampTz, -1),
    ("local", || ValueKind::Timestamp, -1),
    ("tags", || ValueKind::Array(Box::new(ValueKind::Text), b','), -1),
    ("extra", || ValueKind::Json, -1),
    ("big", || ValueKind::Text, -1),
];

fn relation(schema: &str, table: &str) -> Arc<Relation> {
    let column = |(name, kind, type_modifier): &Described| Column {
        name: (*name).into(),
        type_oid: 0,
        type_name: None,
        type_modifier: *type_modifier,
        in_identity: *name == "id",
        kind: kind(),
    };
    Arc::new(Relation {
        id: 1,
        schema: schema.into(),
        name: table.into(),
        identity: ReplicaIdentity::Default,
        columns: KINDS.iter().map(column).collect(),
    })
}

fn row(status: &str) -> Tuple {
    let text = |value: &str| Cell::Text(Bytes::copy_from_slice(value.as_bytes()));
    Tuple(vec![
        text("7"),
        text(status),
        text("120.50"),
        text("9007199254740993"),
        text("t"),
        text("2026-11-21 20:21:29.123456+00"),
        text("2026-11-21 20:21:29"),
        text(r#"["red","blue"]"#),
        text(r#"{"a":{"b":[1,2.5,"x"]},"big":18446744073709551615}"#),
        Cell::Unchanged,
    ])
}

fn update(old: Option<OldRow>) -> Change {
    Change {
        relation: relation("public", "orders"),
        operation: Operation::Update,
        new: Some(row("shipped")),
        old,
        sequence: 1,
    }
}

/// Values of these tests are JSON already where they must be.
pub(super) fn json(_: &ValueKind, text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
}

fn owed(matcher: &Matcher, change: &Change) -> Vec<(String, usize)> {
    let owing = matcher.interest(&change.relation).owed(change, json);
    owing.deliveries.into_iter().map(|owed| (owed.event_type.to_string(), owed.webhook)).collect()
}

#[test]
fn a_change_reaches_the_webhooks_whose_patterns_match_its_types() {
    let webhooks = [
        webhook("exact", &["order.updated", "order.*"], None),
        webhook("other", &["orders.updated", "order.created"], None),
        webhook("all", &["*"], None),
        webhook("named", &["order.completed"], None),
    ];
    let events = [completed("record.status == 'shipped' && old.status != 'shipped'")];
    let matcher = Matcher::build(&[rule("orders", Some("order"))], &events, &webhooks).unwrap();
    let change = update(Some(OldRow::Full(row("paid"))));
    let expect = [
        ("order.updated", 0),
        ("order.updated", 2),
        ("order.completed", 0),
        ("order.completed", 2),
        ("order.completed", 3),
    ];
    assert_eq!(owed(&matcher, &change), expect.map(|(t, w)| (t.to_owned(), w)));
    let unchanged = update(Some(OldRow::Full(row("shipped"))));
    assert_eq!(owed(&matcher, &unchanged).len(), 2);
    let insert = Change { operation: Operation::Insert, old: None, ..change };
    assert_eq!(owed(&matcher, &insert).iter().map(|o| o.1).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn outside_public_the_schema_is_part_of_the_type() {
    let matcher = Matcher::build(&[], &[], &[webhook("a", &["shop.orders.updated"], None)]).unwrap();
    let mut change = update(None);
    assert_eq!(owed(&matcher, &change), []);
    change.relation = relation("shop", "orders");
    assert_eq!(owed(&matcher, &change).len(), 1);
}

/// Asks one condition about an update from `paid` to `shipped`.
fn ask(condition: &str, old: Option<OldRow>) -> (bool, Vec<String>) {
    let matcher = Matcher::build(&[], &[], &[webhook("a", &["orders.*"], Some(condition))])
        .unwrap_or_else(|errors| panic!("{condition}: {errors:?}"));
    let change = update(old);
    let owing = matcher.interest(&change.relation).owed(&change, json);
    (owing.deliveries.len() == 1, owing.failures.into_iter().map(|failure| failure.reason).collect())
}

#[test]
fn conditions_compare_values_by_their_type() {
    for condition in [
        "record.total > 100 && record.total < 121 && record.total == 120.5",
        "record.count == 9007199254740993 && record.count + 1 > 9007199254740993",
        "record.id in [1, 7] && record.paid && record.status.startsWith('ship')",
        "record.at > timestamp('2026-11-21T20:21:29Z') && record.at < timestamp('2026-11-22T00:00:00+02:00')",
        "record.at - record.local < duration('1s') && record.local + duration('1h') > record.at",
        "record.at.getFullYear() == 2026 && record.at.getMonth() == 10 && record.at.getDayOfWeek() == 6",
        "'red' in record.tags && size(record.tags) == 2 && record.tags[1] == 'blue'",
        "record.extra.a.b[1] == 2.5 && has(record.extra.a) && !has(record.extra.c)",
        "record.extra.big > 9223372036854775807",
        "old.status == 'paid' && 'status' in changed && changed == ['status']",
        "operation == 'update' && schema == 'public' && table == 'orders' && type == 'orders.updated'",
        "!has(record.big) && record != null && old != null && has(record.status)",
        "record['status'].matches('^sh.*d$') && string(record.id) == '7'",
    ] {
        assert_eq!(ask(condition, Some(OldRow::Full(row("paid")))), (true, vec![]), "{condition}");
    }
}

#[test]
fn what_was_not_sent_is_missing_and_what_was_not_sent_at_all_is_null() {
    assert_eq!(ask("old == null && changed == null", None), (true, vec![]));
    let key = OldRow::Key(Tuple(vec![Cell::Text(Bytes::from_static(b"6")), Cell::Null]));
    assert_eq!(ask("old.id == 6 && !has(old.status) && changed == null", Some(key.clone())), (true, vec![]));
    let missing = |column: &str| (false, vec![format!("the row has no column {column}, or it was not sent")]);
    assert_eq!(ask("old.status == 'paid'", Some(key)), missing("status"));
    assert_eq!(ask("record.big == 'x'", None), missing("big"));
    assert_eq!(ask("record.nosuch == 'x'", None), missing("nosuch"));
}

#[test]
fn a_condition_that_fails_does_not_match_and_tells_no_value() {
    for condition in [
        "record.status > 5",
        "record.status",
        "record.total / 0.0 > 1.0 && record.status - 1 == 2",
        "1 / 0 == 1",
        "int(record.status) == 1",
        "record.tags[7] == 'x'",
    ] {
        let (matched, reasons) = ask(condition, None);
        assert!(!matched && reasons.len() == 1, "{condition}: {reasons:?}");
        assert!(!reasons[0].contains("shipped") && !reasons[0].contains("120"), "{reasons:?}");
    }
}

#[test]
fn the_deepest_condition_allowed_runs_on_an_ordinary_stack() {
    let chain = format!("record.id{} > 0", " + 1".repeat(crate::domain::limits::CONDITION_DEPTH - 2));
    let wide = ["record.id == 7"; 100].join(" && ");
    let lists = format!("{}1{} != []", "[".repeat(18), "]".repeat(18));
    for condition in [chain, wide, lists] {
        let asked = std::thread::Builder::new().stack_size(1024 * 1024).spawn(move || ask(&condition, None));
        assert_eq!(asked.unwrap().join().unwrap(), (true, vec![]));
    }
}

#[test]
fn excluded_columns_are_absent_and_masked_ones_masked_in_conditions() {
    let rule = TableRule {
        exclude: vec!["status".to_owned()],
        mask: vec![("total".to_owned(), Mask::Redact)],
        ..rule("orders", None)
    };
    let filter = "!has(record.status) && record.total == '[redacted]' && !('status' in changed)";
    let matcher = Matcher::build(&[rule], &[], &[webhook("a", &["*"], Some(filter))]).unwrap();
    assert_eq!(owed(&matcher, &update(Some(OldRow::Full(row("paid"))))).len(), 1);
}

#[test]
fn every_bad_condition_is_told_by_its_place() {
    let webhooks = [webhook("a", &["*"], Some("recrod.x")), webhook("b", &["*"], Some("1 +"))];
    let errors = Matcher::build(&[], &[completed("nope")], &webhooks).unwrap_err();
    let places: Vec<_> = errors.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["events.order.completed.when", "webhooks.a.filter", "webhooks.b.filter"]);
}

#[test]
fn two_named_events_of_one_type_owe_one_delivery() {
    let events = [completed("true"), completed("record.id == 7")];
    let matcher = Matcher::build(&[], &events, &[webhook("a", &["order.completed"], None)]).unwrap();
    assert_eq!(owed(&matcher, &update(None)), [("order.completed".to_owned(), 0)]);
}

#[test]
fn webhooks_that_do_not_match_cost_a_change_nothing() {
    let many = |n: usize| {
        let mut webhooks: Vec<_> = (0..n)
            .map(|i| {
                webhook(&format!("w{i}"), &[&format!("table{i}.*"), "nothing.created"], Some("record.id > 0"))
            })
            .collect();
        webhooks.push(webhook("mine", &["orders.*"], Some("record.id == 7")));
        let matcher = Matcher::build(&[], &[], &webhooks).unwrap();
        let change = update(None);
        let interest = matcher.interest(&change.relation);
        assert_eq!(interest.owed(&change, json).deliveries.len(), 1);
        interest.candidates()
    };
    assert_eq!(many(10_000), many(10));
}

#[test]
fn a_table_nobody_wants_has_an_empty_interest() {
    let matcher = Matcher::build(&[], &[], &[webhook("a", &["orders.created"], None)]).unwrap();
    assert!(matcher.interest(&relation("public", "people")).is_empty());
    let interest = matcher.interest(&relation("public", "orders"));
    assert!(interest.wants(Operation::Insert) && !interest.wants(Operation::Update));
    assert!(interest.wants(Operation::Snapshot) && !interest.wants(Operation::Message));
}

#[test]
fn wants_tells_operations_and_whether_the_table_is_meant() {
    let check = |patterns: &[&str], expect: (bool, bool, bool, bool, bool)| {
        let events = [completed("true")];
        let matcher = Matcher::build(&[], &events, &[webhook("a", patterns, None)]).unwrap();
        let wants = matcher.wants("public", "orders");
        let got = (wants.insert, wants.update, wants.delete, wants.truncate, wants.explicit);
        assert_eq!(got, expect, "{patterns:?}");
    };
    check(&["orders.created"], (true, false, false, false, true));
    check(&["orders.*"], (true, true, true, true, true));
    check(&["*"], (true, true, true, true, false));
    check(&["*.deleted"], (false, false, true, false, false));
    check(&["order.completed"], (false, true, false, false, true));
    check(&["people.*"], (false, false, false, false, false));
}

#[test]
fn types_of_a_table_are_its_own_and_the_named() {
    let matcher = Matcher::build(&[rule("orders", Some("order"))], &[completed("true")], &[]).unwrap();
    let types: Vec<_> =
        matcher.types_of("public", "orders").into_iter().map(|t| t.event_type.to_string()).collect();
    let expect = [
        "order.created",
        "order.updated",
        "order.deleted",
        "order.truncated",
        "order.schema_changed",
        "order.completed",
    ];
    assert_eq!(types, expect);
    assert_eq!(matcher.conditions_on("public", "orders").len(), 1);
}

#[test]
fn a_tables_new_shape_is_wanted_only_by_who_asks_for_it_and_takes_no_updates_of_the_table() {
    let hook = |events: &[&str]| webhook("crm", events, None);
    let wants = |events: &[&str]| {
        let matcher = Matcher::build(&[], &[], &[hook(events)]).unwrap();
        let of_shape = matcher.interest(&relation("public", "orders")).wants(Operation::Schema);
        (matcher.wants_shapes(), of_shape, matcher.wants("public", "orders").update)
    };
    assert_eq!(wants(&["*"]), (false, false, true));
    assert_eq!(wants(&["orders.schema_changed"]), (true, true, false));
    assert_eq!(wants(&["items.schema_changed"]), (true, false, false));
    let matcher = Matcher::build(&[], &[], &[hook(&["*.schema_changed"])]).unwrap();
    let wants = matcher.wants("public", "orders");
    assert!(wants.insert && !wants.update && !wants.delete && !wants.explicit);
}
