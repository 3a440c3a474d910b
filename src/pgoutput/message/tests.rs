//! Each message, byte by byte; what is refused and in which words; and that no bytes at all make it panic.

use proptest::prelude::*;

use super::*;
use crate::domain::{Cell, OldRow, Tuple, ValueKind};
use crate::pgoutput::{HeadOnly, decode_head, golden};

/// Joins parts of a payload.
fn bytes(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

fn decode(parts: &[&[u8]]) -> Result<Message, DecodeError> {
    Decoder::new().decode(bytes(parts))
}

fn refused(parts: &[&[u8]]) -> String {
    decode(parts).expect_err("malformed").to_string()
}

fn text(value: &'static str) -> Cell {
    Cell::Text(Bytes::from_static(value.as_bytes()))
}

#[test]
fn a_transaction_is_framed_by_begin_and_commit() {
    let committed_at: Timestamp = "2000-01-01T00:00:01.000002Z".parse().unwrap();
    let time = 1_000_002_i64.to_be_bytes();
    let begin = decode(&[b"B", &7_u64.to_be_bytes(), &time, &9_u32.to_be_bytes()]);
    assert_eq!(begin, Ok(Message::Begin { commit: CommitLsn(Lsn(7)), committed_at, xid: 9 }));
    let commit = decode(&[b"C", &[0], &7_u64.to_be_bytes(), &8_u64.to_be_bytes(), &time]);
    assert_eq!(commit, Ok(Message::Commit { commit: CommitLsn(Lsn(7)), end: EndLsn(Lsn(8)), committed_at }));
}

#[test]
fn a_commit_time_beyond_all_years_saturates() {
    for (micros, expected) in [(i64::MIN, Timestamp::MIN), (i64::MAX, Timestamp::MAX)] {
        let message = decode(&[b"B", &[0; 8], &micros.to_be_bytes(), &[0; 4]]);
        let Ok(Message::Begin { committed_at, .. }) = message else { panic!("{message:?}") };
        assert_eq!(committed_at, expected);
    }
}

#[test]
fn a_table_knows_the_types_announced_before_it() {
    let mut decoder = Decoder::new();
    let announced = decoder.decode(bytes(&[b"Y", &20_000_u32.to_be_bytes(), b"\0int8\0"]));
    assert_eq!(
        announced,
        Ok(Message::Type { oid: 20_000, schema: "pg_catalog".into(), name: "int8".into() })
    );
    let column = |flags: u8, name: &str, oid: u32| {
        [&[flags][..], name.as_bytes(), &[0], &oid.to_be_bytes(), &(-1_i32).to_be_bytes()].concat()
    };
    let (id, n) = (column(1, "id", 23), column(0, "n", 20_000));
    let head = b"R\0\0\0\x05public\0orders\0i\0\x02";
    let Ok(Message::Relation(relation)) = decoder.decode(bytes(&[head, &id, &n])) else {
        panic!("no relation");
    };
    let column = |name: &str, type_oid, type_name: &str, kind| Column {
        name: name.into(),
        type_oid,
        type_name: Some(type_name.into()),
        type_modifier: -1,
        in_identity: name == "id",
        kind,
    };
    let expected = Relation {
        id: 5,
        schema: "public".into(),
        name: "orders".into(),
        identity: ReplicaIdentity::Index,
        columns: [
            column("id", 23, "int4", ValueKind::Integer),
            column("n", 20_000, "int8", ValueKind::LongInteger),
        ]
        .into(),
    };
    assert_eq!(relation, expected);
}

#[test]
fn every_kind_of_value_comes_out_of_a_row() {
    let row = b"I\0\0\0\x05N\0\x05nut\0\0\0\x02hit\0\0\0\0b\0\0\0\x02\x00\xff";
    let Ok(Message::Insert { relation: 5, new }) = decode(&[row]) else { panic!("no insert") };
    assert_eq!((new.columns(), new.size_bytes()), (5, 21));
    let expected = vec![Cell::Null, Cell::Unchanged, text("hi"), text(""), text("\\x00ff")];
    assert_eq!(new.decode(), Tuple(expected));
    assert!(!format!("{new:?}").contains("hi"));
}

#[test]
fn old_rows_are_whole_or_only_the_key() {
    let key = Tuple(vec![text("1")]);
    let Ok(Message::Update { old: Some(old), new, .. }) =
        decode(&[b"U\0\0\0\x05K\0\x01t\0\0\0\x011N\0\x01t\0\0\0\x012"])
    else {
        panic!("no update");
    };
    assert_eq!((old.decode(), new.decode()), (OldRow::Key(key.clone()), Tuple(vec![text("2")])));
    let Ok(Message::Update { old: None, .. }) = decode(&[b"U\0\0\0\x05N\0\x01u"]) else {
        panic!("no update")
    };
    let Ok(Message::Delete { old, .. }) = decode(&[b"D\0\0\0\x05O\0\x01t\0\0\0\x011"]) else {
        panic!("no delete")
    };
    assert_eq!(old.decode(), OldRow::Full(key));
}

#[test]
fn the_other_messages_read_as_documented() {
    let truncated = |options: u8| decode(&[b"T\0\0\0\x02", &[options], b"\0\0\0\x05\0\0\0\x06"]).unwrap();
    for (options, cascade, restart_identity) in [(0, false, false), (1, true, false), (2, false, true)] {
        assert_eq!(
            truncated(options),
            Message::Truncate { relations: vec![5, 6], cascade, restart_identity }
        );
    }
    let origin = Message::Origin { commit: Lsn(3), name: "far".into() };
    assert_eq!(decode(&[b"O", &3_u64.to_be_bytes(), b"far\0"]), Ok(origin));
    let logical = Message::Logical {
        transactional: true,
        lsn: Lsn(3),
        prefix: "p".into(),
        content: Bytes::from_static(b"\0x"),
    };
    assert_eq!(decode(&[b"M\x01", &3_u64.to_be_bytes(), b"p\0\0\0\0\x02\0x"]), Ok(logical));
}

#[test]
fn a_field_appended_by_a_later_server_is_passed_over() {
    for payload in golden::payloads() {
        let longer = bytes(&[&payload, b"later"]);
        assert_eq!(decode_head(longer.clone()), decode_head(payload.clone()));
        assert_eq!(Decoder::new().decode(longer).unwrap(), Decoder::new().decode(payload).unwrap());
    }
}

#[test]
fn what_is_refused_is_named_with_its_place() {
    for (payload, expected) in [
        (&b""[..], "empty replication message"),
        (b"S\0", "unknown replication message 'S' (protocol version 1)"),
        (b"B\0", "malformed Begin message: it ends before byte 1, where the commit position was expected"),
        (
            b"Y\0\0\0\x01app",
            "malformed Type message: it ends before byte 5, where a schema's name was expected",
        ),
        (
            b"R\0\0\0\x01\0t\0x",
            "malformed Relation message: at byte 8, a replica identity was expected, not 120",
        ),
        (
            b"I\0\0\0\x01O\0\0",
            "malformed Insert message: at byte 5, the mark of a new row ('N') was expected, not 79",
        ),
        (
            b"I\0\0\0\x01N\xff\xff",
            "malformed Insert message: at byte 6, a number of columns within the limit was expected, not 65535",
        ),
        (
            b"I\0\0\0\x01N\0\x01x",
            "malformed Insert message: at byte 8, the kind of a value ('n', 'u', 't' or 'b') was expected, not 120",
        ),
        (
            b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff",
            "malformed Insert message: at byte 9, the length of a value was expected, not -1",
        ),
        (
            b"I\0\0\0\x01N\0\x01t\0\0\0\x05abcd",
            "malformed Insert message: it ends before byte 13, where a value of the announced length was expected",
        ),
        (
            b"D\0\0\0\x01N\0\0",
            "malformed Delete message: at byte 5, the mark of an old row ('K' or 'O') was expected, not 78",
        ),
        (
            b"T\x7f\xff\xff\xff\0",
            "malformed Truncate message: it ends before byte 6, where the table's oid was expected",
        ),
        (
            b"M\0\0\0\0\0\0\0\0\0p\0\0\0\0\x01",
            "malformed Logical message: it ends before byte 16, where the content was expected",
        ),
    ] {
        assert_eq!(refused(&[payload]), expected);
    }
}

#[test]
fn every_message_cut_anywhere_is_refused() {
    for payload in golden::payloads() {
        for length in 0..payload.len() {
            assert!(Decoder::new().decode(payload.slice(..length)).is_err());
        }
    }
}

#[test]
fn the_head_of_a_cut_change_gives_its_table_and_leading_values() {
    let whole = b"U\0\0\0\x05K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012t\0\0\0\x04long";
    let head = |length: usize| decode_head(Bytes::from_static(&whole[..length]));
    let old = Some(OldRow::Key(Tuple(vec![text("1"), Cell::Null])));
    let expected = |old, new| {
        Ok(HeadOnly {
            kind: MessageKind::Update,
            relation: Some(5),
            old,
            new,
            transactional: true,
            prefix: None,
        })
    };
    assert!(head(4).is_err());
    assert_eq!(head(5), expected(None, None));
    assert_eq!(head(10), expected(Some(OldRow::Key(Tuple(vec![]))), None));
    assert_eq!(head(15), expected(old.clone(), None));
    assert_eq!(head(whole.len() - 1), expected(old.clone(), Some(Tuple(vec![text("2")]))));
    assert_eq!(head(whole.len()), expected(old, Some(Tuple(vec![text("2"), text("long")]))));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(tag in prop::sample::select(b"BCORYIUDTMX".to_vec()), rest in any::<Vec<u8>>()) {
        exercise(bytes(&[&[tag], &rest]));
    }

    #[test]
    fn no_change_to_a_valid_message_makes_it_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut payload = which.get(&golden::payloads()).to_vec();
        for (place, value) in edits {
            let place = place.index(payload.len());
            payload[place] = value;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        exercise(payload.into());
    }
}

/// Decodes in both ways: a whole message has a head, and a row that was accepted has as many cells as it announced.
fn exercise(payload: Bytes) {
    let head = decode_head(payload.clone());
    let Ok(message) = Decoder::new().decode(payload) else { return };
    head.expect("a whole message has a head");
    let (old, new) = match message {
        Message::Insert { new, .. } => (None, Some(new)),
        Message::Update { old, new, .. } => (old, Some(new)),
        Message::Delete { old, .. } => (Some(old), None),
        _ => return,
    };
    for row in old.iter().map(RawOld::tuple).chain(&new) {
        assert_eq!(row.decode().0.len(), row.columns());
    }
}
