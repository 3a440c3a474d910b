//! Tenants from the outside: no webhook is ever owed a row whose image is somebody else's.

use bytes::Bytes;
use proptest::prelude::*;

use super::tests::{json, webhook};
use super::*;
use crate::domain::{Cell, Change, Column, OldRow, ReplicaIdentity, TenantChange, Tuple, ValueKind};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// `id`, `owner` and `note`; every note says whose the row was when it was written.
fn relation(identity: ReplicaIdentity, key: &[&str]) -> Arc<Relation> {
    let column = |name: &&str| Column {
        name: (*name).into(),
        type_oid: 25,
        type_name: None,
        type_modifier: -1,
        in_identity: identity == ReplicaIdentity::Full || key.contains(name),
        kind: ValueKind::Text,
    };
    Arc::new(Relation {
        id: 1,
        schema: "public".into(),
        name: "orders".into(),
        identity,
        columns: ["id", "owner", "note"].iter().map(column).collect(),
    })
}

fn text(text: &str) -> Cell {
    Cell::Text(Bytes::copy_from_slice(text.as_bytes()))
}

fn row(owner: Option<&str>) -> Tuple {
    let whose = owner.unwrap_or("nobody");
    Tuple(vec![text("7"), owner.map_or(Cell::Null, text), text(&format!("of {whose}"))])
}

fn rule(on_change: TenantChange) -> TableRule {
    TableRule {
        schema: "public".to_owned(),
        table: "orders".to_owned(),
        tenant: Some("owner".to_owned()),
        tenant_change: on_change,
        public: vec![Operation::Insert, Operation::Update, Operation::Delete],
        ..TableRule::default()
    }
}

fn matcher(on_change: TenantChange) -> Matcher {
    let webhooks = [
        webhook("all", &["*"], None),
        webhook("acme~crm", &["*"], Some("true")),
        webhook("globex~crm", &["orders.*", "*.schema_changed", "walhook.*"], None),
        webhook("initech~crm", &["orders.created", "orders.updated", "orders.deleted"], Some("record != 1")),
    ];
    Matcher::build(&[rule(on_change)], &[], &webhooks).unwrap()
}

fn update(relation: &Arc<Relation>, old: Option<OldRow>, new: Tuple) -> Change {
    Change { relation: Arc::clone(relation), operation: Operation::Update, new: Some(new), old, sequence: 1 }
}

/// What of a change goes to whom: the webhook's place, the type, the notes before and after.
fn told(matcher: &Matcher, change: &Change) -> Vec<(usize, String, Option<String>, Option<String>)> {
    let interest = matcher.interest(&change.relation);
    let note = |tuple: &Tuple| match tuple.cell(2) {
        Cell::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    let mut told = Vec::new();
    for of_tenant in interest.owed_to_tenants(change, json) {
        let change = &of_tenant.part.change;
        let (old, new) =
            (change.old.as_ref().and_then(|o| note(o.tuple())), change.new.as_ref().and_then(note));
        for owed in of_tenant.owing.deliveries {
            told.push((owed.webhook, owed.event_type.to_string(), old.clone(), new.clone()));
        }
    }
    told
}

fn entry(
    webhook: usize,
    event: &str,
    old: &str,
    new: &str,
) -> (usize, String, Option<String>, Option<String>) {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (webhook, format!("orders.{event}"), some(old), some(new))
}

#[test]
fn a_row_that_changes_its_owner_is_deleted_to_one_and_created_to_the_other() {
    let relation = relation(ReplicaIdentity::Full, &[]);
    let full = |owner| Some(OldRow::Full(row(owner)));
    let split = matcher(TenantChange::Split);
    let moved = update(&relation, full(Some("acme")), row(Some("globex")));
    assert_eq!(
        told(&split, &moved),
        [entry(1, "deleted", "of acme", ""), entry(2, "created", "", "of globex")]
    );
    assert_eq!(told(&matcher(TenantChange::NewOwner), &moved), [entry(2, "created", "", "of globex")]);
    let kept = update(&relation, full(Some("globex")), row(Some("globex")));
    assert_eq!(told(&split, &kept), [entry(2, "updated", "of globex", "of globex")]);
    let gained = update(&relation, full(None), row(Some("globex")));
    assert_eq!(told(&split, &gained), [entry(2, "created", "", "of globex")]);
    let lost = update(&relation, full(Some("acme")), row(None));
    assert_eq!(told(&split, &lost), [entry(1, "deleted", "of acme", "")]);
    // The operator's webhook is told of the update as ever.
    let owed = split.interest(&relation).owed(&moved, json).deliveries;
    assert_eq!(owed.iter().map(|o| (o.webhook, &*o.event_type)).collect::<Vec<_>>(), [(0, "orders.updated")]);
}

#[test]
fn where_the_former_owner_is_not_sent_nobody_sees_the_old_row() {
    let by_id = relation(ReplicaIdentity::Default, &["id"]);
    let split = matcher(TenantChange::Split);
    let key = || Some(OldRow::Key(Tuple(vec![text("6"), Cell::Null, Cell::Null])));
    for old in [None, key()] {
        let moved = update(&by_id, old, row(Some("globex")));
        let interest = split.interest(&by_id);
        let parts = interest.owed_to_tenants(&moved, json);
        assert_eq!((parts.len(), parts[0].part.cut, &parts[0].part.change.old), (1, Cut::WithoutOld, &None));
        assert_eq!(told(&split, &moved), [entry(2, "updated", "", "of globex")]);
    }
    let deleted = Change { operation: Operation::Delete, new: None, ..update(&by_id, key(), row(None)) };
    assert!(told(&split, &deleted).is_empty());
    // An owner that is a large value which was not sent is known only from the old row.
    let mut toasted = row(Some("globex"));
    toasted.0[1] = Cell::Unchanged;
    assert!(told(&split, &update(&by_id, None, toasted.clone())).is_empty());
    let full = relation(ReplicaIdentity::Full, &[]);
    let kept = update(&full, Some(OldRow::Full(row(Some("globex")))), toasted);
    assert_eq!(told(&split, &kept), [entry(2, "updated", "of globex", "of globex")]);
}

#[test]
fn a_tenant_column_in_the_key_says_whose_a_deleted_row_was() {
    let by_owner = relation(ReplicaIdentity::Default, &["id", "owner"]);
    let split = matcher(TenantChange::Split);
    let key = |owner: &str| Some(OldRow::Key(Tuple(vec![text("7"), text(owner), Cell::Null])));
    let moved = update(&by_owner, key("acme"), row(Some("globex")));
    assert_eq!(told(&split, &moved), [entry(1, "deleted", "", ""), entry(2, "created", "", "of globex")]);
    let kept = update(&by_owner, None, row(Some("globex")));
    assert_eq!(told(&split, &kept), [entry(2, "updated", "", "of globex")]);
    let deleted =
        Change { operation: Operation::Delete, new: None, ..update(&by_owner, key("acme"), row(None)) };
    assert_eq!(told(&split, &deleted), [entry(1, "deleted", "", "")]);
}

#[test]
fn a_tenant_is_told_of_public_types_alone_whatever_its_patterns_are() {
    let relation = relation(ReplicaIdentity::Full, &[]);
    let public = TableRule { public: vec![Operation::Update], ..rule(TenantChange::Split) };
    let named = |name: &str, public| NamedEvent {
        event_type: name.into(),
        schema: "public".to_owned(),
        table: "orders".to_owned(),
        on: vec![Operation::Insert, Operation::Truncate],
        when: Some("record.note != 'hush'".to_owned()),
        description: None,
        public,
    };
    let events = [named("order.come", true), named("order.inner", false)];
    let webhooks = [webhook("acme~crm", &["*"], None)];
    let matcher = Matcher::build(&[public], &events, &webhooks).unwrap();
    let of =
        |operation, old, new| Change { relation: Arc::clone(&relation), operation, new, old, sequence: 1 };
    let acme = || Some(row(Some("acme")));
    let told = |change: Change| told(&matcher, &change).into_iter().map(|it| it.1).collect::<Vec<_>>();
    assert_eq!(told(of(Operation::Insert, None, acme())), ["order.come"]);
    assert!(told(of(Operation::Delete, acme().map(OldRow::Full), None)).is_empty());
    for operation in [Operation::Truncate, Operation::Schema, Operation::Message, Operation::Notice] {
        assert!(told(of(operation, None, None)).is_empty(), "{operation}");
    }
    assert!(!matcher.wants_shapes());
    for event_type in ["order.come", "walhook.slot_lost", "any.message"] {
        assert!(matcher.subscribers_of(event_type).is_empty());
        assert!(matcher.message_interest(event_type).is_empty());
    }
    for notice in crate::domain::Notice::ALL {
        assert!(matcher.notice_interest(notice).is_empty(), "{notice}");
    }
    let public: Vec<_> = matcher.types_of("public", "orders").into_iter().filter(|t| t.public).collect();
    assert_eq!(public.iter().map(|t| &*t.event_type).collect::<Vec<_>>(), ["orders.updated", "order.come"]);
    let wants = matcher.wants("public", "orders");
    assert!(wants.insert && wants.update && !wants.truncate && !wants.explicit, "{wants:?}");
    assert!(!matcher.wants("public", "others").any(), "a table without a tenant column");
}

#[test]
fn a_filter_of_a_tenant_sees_what_the_tenant_sees() {
    let relation = relation(ReplicaIdentity::Full, &[]);
    let check = |filter: &str, expect: &[&str]| {
        let webhooks = [webhook("acme~a", &["*"], Some(filter)), webhook("globex~b", &["*"], Some(filter))];
        let matcher = Matcher::build(&[rule(TenantChange::Split)], &[], &webhooks).unwrap();
        let moved = update(&relation, Some(OldRow::Full(row(Some("acme")))), row(Some("globex")));
        let interest = matcher.interest(&relation);
        let owing = interest.owed_to_tenants(&moved, json);
        let types = owing.iter().flat_map(|o| &o.owing.deliveries).map(|o| &*o.event_type);
        assert_eq!(types.collect::<Vec<_>>(), expect, "{filter}");
    };
    check("true", &["orders.deleted", "orders.created"]);
    check("record == null", &["orders.deleted"]);
    check("old == null", &["orders.created"]);
    check("old != null && record != null", &[]);
    check("changed == null && operation == 'insert'", &["orders.created"]);
    check("type == 'orders.updated'", &[]);
}

#[test]
fn thousands_of_tenants_cost_a_change_one_look() {
    let count = 3000;
    let filter = |n: usize| format!("record.note != 'x{n}'");
    let webhooks: Vec<_> =
        (0..count).map(|n| webhook(&format!("t{n}~crm"), &["orders.*"], Some(&filter(n)))).collect();
    let matcher = Matcher::build(&[rule(TenantChange::Split)], &[], &webhooks).unwrap();
    let relation = relation(ReplicaIdentity::Full, &[]);
    let interest = matcher.interest(&relation);
    assert_eq!((interest.candidates(), interest.is_empty()), (0, false), "nothing of it is walked through");
    let new = Some(row(Some("t2999")));
    let change = Change { relation, operation: Operation::Insert, new, old: None, sequence: 1 };
    let owing = interest.owed_to_tenants(&change, json);
    let webhooks: Vec<_> = owing.iter().flat_map(|o| &o.owing.deliveries).map(|o| o.webhook).collect();
    assert_eq!(webhooks, [2999]);
}

/// A change of a row from one owner to another, as Postgres sends it.
fn sent(
    (before, after): (Option<&str>, Option<&str>),
    (identity, operation): (usize, usize),
    (moves_key, lacks): (bool, [bool; 2]),
) -> Change {
    let (identity, key): (_, &[&str]) = [
        (ReplicaIdentity::Full, &[][..]),
        (ReplicaIdentity::Default, &["id"][..]),
        (ReplicaIdentity::Index, &["id", "owner"][..]),
        (ReplicaIdentity::Nothing, &[][..]),
    ][identity];
    let relation = relation(identity, key);
    let operation = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Snapshot][operation];
    let gone = operation == Operation::Delete;
    let here = matches!(operation, Operation::Insert | Operation::Snapshot);
    // What Postgres sends of a row: large values that did not change it leaves out of the new one.
    let (mut new, mut was) = (row(after), row(before));
    if moves_key {
        let of = |owner: Option<&str>| text(&format!("7 of {}", owner.unwrap_or("nobody")));
        (was.0[0], new.0[0]) = (of(before), of(after));
    }
    if operation == Operation::Update && before == after {
        for (lacks, at) in lacks.into_iter().zip([1, 2]) {
            if lacks {
                new.0[at] = Cell::Unchanged;
            }
        }
    }
    let key_changed = gone || (moves_key && before != after) || (key.contains(&"owner") && before != after);
    let old = match identity {
        _ if here => None,
        ReplicaIdentity::Full => Some(OldRow::Full(was)),
        ReplicaIdentity::Nothing => None,
        _ if !key_changed => None,
        _ => {
            let mut of_key = was;
            for (at, column) in relation.columns.iter().enumerate() {
                if !column.in_identity {
                    of_key.0[at] = Cell::Null;
                }
            }
            Some(OldRow::Key(of_key))
        }
    };
    Change { relation: Arc::clone(&relation), operation, new: (!gone).then_some(new), old, sequence: 1 }
}

fn owner() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![Just(None), (0..TENANTS.len()).prop_map(|n| TENANTS.get(n).copied())]
}

proptest! {
    #[test]
    fn no_webhook_is_ever_owed_an_image_of_somebody_elses_row(
        (before, after) in (owner(), owner()),
        identity in 0..4_usize,
        operation in 0..4_usize,
        moves_key in any::<bool>(),
        lacks in any::<[bool; 2]>(),
        splits in any::<bool>(),
    ) {
        let matcher = matcher(if splits { TenantChange::Split } else { TenantChange::NewOwner });
        let change = sent((before, after), (identity, operation), (moves_key, lacks));
        let (relation, operation) = (Arc::clone(&change.relation), change.operation);
        let identity = relation.identity;
        let interest = matcher.interest(&relation);
        for of_tenant in interest.owed_to_tenants(&change, json) {
            let tenant = std::str::from_utf8(of_tenant.part.tenant()).unwrap();
            prop_assert!(TENANTS.contains(&tenant));
            let part = &*of_tenant.part.change;
            let images = part.new.iter().chain(part.old.as_ref().map(OldRow::tuple));
            for cell in images.flat_map(|tuple| &tuple.0) {
                let Cell::Text(text) = cell else { continue };
                let text = String::from_utf8_lossy(text);
                for other in TENANTS.iter().chain(&["nobody"]).filter(|other| **other != tenant) {
                    prop_assert!(!text.contains(other), "{tenant} is shown {text:?} of {change:?}");
                }
            }
            for owed in &of_tenant.owing.deliveries {
                let whose = TENANTS.iter().position(|one| *one == tenant).map(|at| at + 1);
                prop_assert_eq!(Some(owed.webhook), whose);
            }
        }
        for webhook in 1..=TENANTS.len() {
            let owing = interest.owed_to(&change, json, webhook);
            let is_its = TENANTS.get(webhook - 1).copied() == after;
            prop_assert!(operation != Operation::Snapshot || owing.deliveries.is_empty() || is_its);
        }
        // And nobody's deliveries are lost: with the whole old row each owner is told of its own.
        if identity == ReplicaIdentity::Full && operation == Operation::Update && splits {
            let told: Vec<_> = interest.owed_to_tenants(&change, json).iter().map(|o| o.part.tenant().to_vec()).collect();
            let mut expect: Vec<_> = [before, after].into_iter().flatten().map(|o| o.as_bytes().to_vec()).collect();
            expect.dedup();
            prop_assert_eq!(told, expect);
        }
    }
}
