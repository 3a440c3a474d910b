//! The stream against a walsender that misbehaves on purpose.

use std::time::Duration;

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage as Backend;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fake::{
    FLOOR, SYSTEM, Status, Walsender, begin, commit, insert, keepalive, listen, message, relation, wal,
    wal_at,
};
use super::{Carried, Entry, Item, Piece, Positions, SourceError, Stopped, stream};
use crate::domain::{Cell, EndLsn, Lsn, limits};
use crate::postgres::Nature;

/// Both ends of a stream that has begun.
struct Scene {
    server: Walsender,
    items: mpsc::Receiver<Item>,
    positions: Positions,
    stop: CancellationToken,
    source: JoinSet<Result<Stopped, SourceError>>,
}

async fn scene(room: usize, wal_sender_timeout: Duration) -> Scene {
    let (listener, options) = listen().await;
    let (sender, items) = mpsc::channel(room);
    let (positions, mut confirmed) = Positions::new(EndLsn::default());
    let stop = CancellationToken::new();
    let mut source = JoinSet::new();
    let token = stop.clone();
    source.spawn(async move {
        let started = |identity: &super::Identity| assert_eq!(identity.system, SYSTEM);
        stream(&options, &sender, &mut confirmed, &token, &mut Carried::default(), started).await
    });
    let server = Walsender::accept(&listener, wal_sender_timeout).await;
    Scene { server, items, positions, stop, source }
}

impl Scene {
    async fn item(&mut self) -> Item {
        timeout(Duration::from_secs(10), self.items.recv()).await.expect("an item in time").expect("a stream")
    }

    async fn outcome(&mut self) -> Result<Stopped, SourceError> {
        timeout(Duration::from_secs(10), self.source.join_next()).await.unwrap().unwrap().unwrap()
    }

    /// Takes items until a transaction has ended; returns its changes' sequence numbers and texts.
    async fn transaction(&mut self) -> (Vec<(u32, String)>, EndLsn) {
        let mut changes = Vec::new();
        loop {
            let Item::Chunk(chunk) = self.item().await else { continue };
            for (piece, mine) in chunk.pieces() {
                changes.extend(mine.iter().filter_map(Entry::row).map(|change| {
                    let Cell::Text(text) = change.decode().new.unwrap().cell(0).clone() else {
                        unreachable!("the fake sends texts");
                    };
                    (change.sequence, String::from_utf8(text.to_vec()).unwrap())
                }));
                if let Some(end) = piece.end {
                    return (changes, end);
                }
            }
        }
    }
}

fn lsn(value: u64) -> EndLsn {
    EndLsn(Lsn(value))
}

fn one_transaction() -> Vec<Backend> {
    vec![begin(0x200), relation(1, "public", "orders"), insert(1, "a"), insert(1, "b"), commit(0x200, 0x230)]
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_transaction_comes_out_whole_after_the_restart_is_told() {
    let mut scene = scene(8, MINUTE).await;
    scene.server.send(&one_transaction()).await;
    assert!(matches!(scene.item().await, Item::Restarted));
    let expect = vec![(1, "a".to_owned()), (2, "b".to_owned())];
    assert_eq!(scene.transaction().await, (expect, lsn(0x230)));
}

#[tokio::test]
async fn messages_may_be_split_at_every_byte() {
    let mut bytes = BytesMut::new();
    for message in one_transaction() {
        message.encode(&mut bytes).unwrap();
    }
    let mut scene = scene(8, MINUTE).await;
    for cut in (1..bytes.len()).step_by(7) {
        for part in [&bytes[..cut], &bytes[cut..]] {
            scene.server.send_bytes(part).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(scene.transaction().await.0.len(), 2, "cut at {cut}");
    }
}

#[tokio::test]
async fn many_small_transactions_share_a_chunk() {
    let mut scene = scene(1, MINUTE).await;
    assert!(matches!(scene.item().await, Item::Restarted));
    let mut messages = vec![begin(1), relation(1, "public", "t"), commit(1, 2)];
    for n in 1..=2000 {
        messages.extend([begin(n * 10), insert(1, "x"), commit(n * 10, n * 10 + 5)]);
    }
    scene.server.send(&messages).await;
    let (mut ended, mut chunks) = (0, 0);
    while ended < 2001 {
        let Item::Chunk(chunk) = scene.item().await else { continue };
        chunks += 1;
        ended += chunk.pieces().filter(|(piece, _)| piece.end.is_some()).count();
        assert!(chunk.entries() <= limits::CHUNK_CHANGES);
    }
    assert!(chunks < 200, "{chunks} chunks");
}

#[tokio::test]
async fn i9_keepalives_are_answered_and_feedback_goes_on_while_the_consumer_is_blocked() {
    let mut scene = scene(1, Duration::from_millis(300)).await;
    scene.server.status().await;
    scene.server.send(&[begin(0x200), relation(1, "public", "t")]).await;
    // More than the chunk and every buffer on the way hold; the write ends only when somebody reads.
    let text = "x".repeat(100_000);
    let Scene { server, items, positions, .. } = &mut scene;
    let flood = async {
        server.send(&[keepalive(0x200, 1)]).await;
        for _ in 0..200 {
            let answered = timeout(Duration::from_millis(100), server.send(&[insert(1, &text)])).await;
            if answered.is_err() {
                break;
            }
        }
    };
    flood.await;
    positions.confirm(lsn(0x180));
    let mut told = Vec::new();
    while told.last() != Some(&0x180) || told.len() < 5 {
        told.push(server.status().await.flushed);
    }
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(items.len(), 1, "nobody has taken anything");
}

#[tokio::test]
async fn feedback_never_goes_back_nor_passes_what_is_confirmed() {
    let mut scene = scene(8, MINUTE).await;
    assert_eq!(scene.server.status().await, Status { flushed: FLOOR, wants_answer: false });
    scene.server.send(&one_transaction()).await;
    scene.transaction().await;
    scene.server.send(&[keepalive(0x900, 1)]).await;
    assert_eq!(scene.server.status().await.flushed, FLOOR);
    for (confirm, expect) in [(0x90, FLOOR), (0x230, 0x230), (0x200, 0x230)] {
        scene.positions.confirm(lsn(confirm));
        scene.server.send(&[keepalive(0x900, 1)]).await;
        assert_eq!(scene.server.status().await.flushed, expect);
    }
}

#[tokio::test]
async fn an_idle_position_is_told_only_outside_of_transactions() {
    let mut scene = scene(8, MINUTE).await;
    assert!(matches!(scene.item().await, Item::Restarted));
    scene.server.send(&[keepalive(0x150, 0)]).await;
    assert!(matches!(scene.item().await, Item::Idle(end) if end == lsn(0x150)));
    let mut messages = one_transaction();
    messages.insert(3, keepalive(0x900, 0));
    scene.server.send(&messages).await;
    assert_eq!(scene.transaction().await.1, lsn(0x230));
    scene.server.send(&[keepalive(0x300, 0)]).await;
    assert!(matches!(scene.item().await, Item::Idle(end) if end == lsn(0x300)));
}

#[tokio::test]
async fn i10_our_own_schema_is_counted_and_dropped() {
    let mut scene = scene(8, MINUTE).await;
    let mut messages = one_transaction();
    messages.splice(2..2, [relation(2, "walhook", "deliveries"), insert(2, "ours")]);
    scene.server.send(&messages).await;
    assert_eq!(scene.transaction().await.0, [(2, "a".to_owned()), (3, "b".to_owned())]);
}

#[tokio::test]
async fn bytes_of_what_makes_no_event_never_fill_a_chunk() {
    let content = "x".repeat(limits::CHUNK_BYTES + 1);
    for prefix in ["other", "walhook:order.packed"] {
        // Outside a transaction, many small ones and one that alone is more than a chunk.
        let mut scene = scene(1, MINUTE).await;
        scene.server.send(&[message(false, prefix, &content), message(false, prefix, &content)]).await;
        let small_content = "x".repeat(1000);
        let small: Vec<_> = (0..600).map(|_| message(false, prefix, &small_content)).collect();
        scene.server.send(&small).await;
        assert!(matches!(scene.item().await, Item::Restarted));
        scene.server.send(&one_transaction()).await;
        assert_eq!(scene.transaction().await.1, lsn(0x230), "{prefix}");
    }
    // In a transaction of which a part has gone already: a foreign message, and rows of our own schema.
    for nothing in [vec![message(true, "other", &content)], vec![insert(2, &content), insert(2, &content)]] {
        let mut scene = scene(1, MINUTE).await;
        assert!(matches!(scene.item().await, Item::Restarted));
        let tables = [relation(1, "public", "orders"), relation(2, "walhook", "deliveries")];
        scene.server.send(&[begin(0x200)]).await;
        scene.server.send(&tables).await;
        assert!(matches!(scene.item().await, Item::Chunk(chunk) if chunk.entries() == 0));
        scene.server.send(&nothing).await;
        scene.server.send(&[insert(1, "a"), commit(0x200, 0x230)]).await;
        assert_eq!(scene.transaction().await.1, lsn(0x230));
    }
}

#[tokio::test]
async fn a_row_over_the_limit_keeps_its_place_and_its_head() {
    let mut scene = scene(8, MINUTE).await;
    let huge = "x".repeat(limits::FRAME_BYTES);
    let Scene { server, items, .. } = &mut scene;
    let send = async {
        server
            .send(&[begin(0x200), relation(1, "public", "t"), insert(1, &huge), commit(0x200, 0x230)])
            .await;
    };
    let receive = async {
        loop {
            let Some(Item::Chunk(chunk)) = items.recv().await else { continue };
            if let Some(change) = chunk.pieces().flat_map(|(_, all)| all).find_map(Entry::row) {
                return (change.sequence, change.oversized(), change.decode().relation.name.to_string());
            }
        }
    };
    let ((), (sequence, oversized, table)) = tokio::join!(send, receive);
    assert_eq!((sequence, table.as_str()), (1, "t"));
    assert!(oversized.unwrap() > limits::FRAME_BYTES);
}

#[tokio::test]
async fn malformed_messages_end_the_connection_with_an_error_that_names_them() {
    let cut = |message: &[u8]| wal(message);
    for (message, name) in [
        (cut(b"B\0"), "Begin"),
        (cut(b"Q"), "Q"),
        (insert(7, "x"), "row change outside a transaction"),
        (commit(1, 2), "Commit outside a transaction"),
        (wal(b""), "CopyData 'w'"),
    ] {
        let mut scene = scene(8, MINUTE).await;
        scene.server.send(&[message]).await;
        let error = scene.outcome().await.unwrap_err();
        let told = format!("{error} {:?}", error.detail());
        assert!(told.contains(name), "{told} should name {name}");
    }
    let mut scene = scene(8, MINUTE).await;
    scene.server.send_bytes(&[b'd', 0, 0, 0, 1]).await;
    let error = scene.outcome().await.unwrap_err();
    assert!(error.detail().unwrap().contains("'d'"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_an_error_that_passes() {
    let mut scene = scene(8, MINUTE).await;
    scene.server.send(&[begin(0x200), relation(1, "public", "t"), insert(1, "a")]).await;
    scene.server.fail("57P01").await;
    let error = scene.outcome().await.unwrap_err();
    assert_eq!(error.nature(), Nature::Transient);
    let mut pieces: Vec<Piece> = Vec::new();
    while let Some(item) = scene.items.recv().await {
        if let Item::Chunk(chunk) = item {
            pieces.extend(chunk.pieces().map(|(piece, _)| *piece));
        }
    }
    assert!(pieces.iter().all(|piece| piece.end.is_none()));
}

#[tokio::test]
async fn a_missing_publication_is_recognised_in_whatever_language_the_server_speaks() {
    let ended = [
        "publication \"p\" does not exist",
        "Publikation »p_inserts« existiert nicht",
        "la publication « p » n'existe pas",
        "パブリケーション\"p\"は存在しません",
    ];
    for message in ended {
        let mut scene = scene(8, MINUTE).await;
        scene.server.fail_with("42704", message).await;
        let error = scene.outcome().await.unwrap_err();
        assert!(matches!(error, SourceError::PublicationGone { .. }), "{message}: {error:?}");
        assert_eq!(error.loss(), Some(super::PUBLICATION_DROPPED));
    }
    for message in ["skipped loading publication \"p\"", "Laden der Publikation »p« wurde übersprungen"] {
        let mut scene = scene(8, MINUTE).await;
        scene.server.warn("01000", message).await;
        scene.server.warn("55000", "das ist etwas Anderes").await;
        scene.server.send(&one_transaction()).await;
        scene.transaction().await;
        scene.server.warn("55000", message).await;
        let error = scene.outcome().await.unwrap_err();
        assert!(matches!(error, SourceError::PublicationGone { .. }), "{message}: {error:?}");
    }
}

#[tokio::test]
async fn a_stop_sends_the_newest_position_and_ends_the_copy() {
    let mut scene = scene(8, MINUTE).await;
    scene.server.status().await;
    scene.positions.confirm(lsn(0x240));
    scene.stop.cancel();
    let mut told = scene.server.receive().await;
    while told.0 == b'd' && told.1[9..17] != 0x240_u64.to_be_bytes() {
        told = scene.server.receive().await;
    }
    assert_eq!(told.0, b'd');
    while told.0 == b'd' {
        told = scene.server.receive().await;
    }
    assert_eq!(told.0, b'c');
    scene.server.send_bytes(b"c\0\0\0\x04C\0\0\0\x0bCOPY 0\0Z\0\0\0\x05I").await;
    assert_eq!(scene.server.receive().await.0, b'X');
    assert_eq!(scene.outcome().await.unwrap(), Stopped::Asked);
}

#[tokio::test]
async fn a_silent_server_is_asked_and_then_given_up() {
    let mut scene = scene(8, Duration::from_millis(150)).await;
    let mut asked = false;
    let error = loop {
        tokio::select! {
            biased;
            outcome = scene.source.join_next() => break outcome.unwrap().unwrap().unwrap_err(),
            status = scene.server.status() => asked |= status.wants_answer,
        }
    };
    assert!(asked);
    assert!(matches!(error, SourceError::Silent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_shuts_down_is_left_though_something_is_not_confirmed() {
    let mut scene = scene(8, MINUTE).await;
    scene.server.send(&one_transaction()).await;
    scene.transaction().await;
    // As a walsender does that waits for the last confirmation: it asks as soon as it has its answer.
    let mut asked = 0;
    let error = loop {
        scene.server.send(&[keepalive(0x230, 1)]).await;
        asked += 1;
        tokio::select! {
            biased;
            outcome = scene.source.join_next() => break outcome.unwrap().unwrap().unwrap_err(),
            _ = scene.server.status() => {}
        }
    };
    assert!(matches!(error, SourceError::Closing), "{error:?}");
    assert_eq!(error.nature(), Nature::Transient);
    assert!(asked >= 20, "{asked}");
}

#[tokio::test]
async fn more_tables_than_are_remembered_are_forgotten_with_the_connection_and_too_many_only_at_one_place() {
    let (listener, options) = listen().await;
    let (sender, _items) = mpsc::channel(8);
    let (positions, mut confirmed) = Positions::new(EndLsn::default());
    let (mut carried, stop) = (Carried::default(), CancellationToken::new());
    let mut tables = BytesMut::new();
    for id in 0..=u32::try_from(limits::RELATIONS).unwrap() {
        relation(id, "public", "t").encode(&mut tables).unwrap();
    }
    // Each time with something confirmed since, but for the last.
    for (confirms, definite) in [(0x110, false), (0x120, false), (0x120, true)] {
        let streaming = stream(&options, &sender, &mut confirmed, &stop, &mut carried, |_| {});
        let (ended, _server) = tokio::join!(streaming, async {
            let mut server = Walsender::accept(&listener, MINUTE).await;
            positions.confirm(lsn(confirms));
            server.send_bytes(&tables).await;
            server
        });
        let error = ended.unwrap_err();
        assert_eq!(matches!(error, SourceError::TooManyTables { .. }), definite, "{error:?}");
        let nature = if definite { Nature::Definite } else { Nature::Transient };
        assert_eq!(error.nature(), nature, "{error:?}");
    }
}

#[tokio::test]
async fn a_row_larger_than_the_server_can_send_is_told_with_the_choice_however_the_server_says_it() {
    for (code, message, definite) in [
        ("54000", "out of memory", true),
        ("XX000", "invalid memory alloc request size 1073741825", true),
        ("XX000", "cache lookup failed for relation 7", false),
    ] {
        let mut scene = scene(8, MINUTE).await;
        scene.server.fail_with(code, message).await;
        let error = scene.outcome().await.unwrap_err();
        let nature = if definite { Nature::Definite } else { Nature::Transient };
        assert_eq!(error.nature(), nature, "{message}");
        assert_eq!(error.hint().is_some_and(|hint| hint.contains("on_slot_lost")), definite, "{message}");
    }
}

#[tokio::test]
async fn a_log_that_ends_before_what_was_read_of_it_is_not_read_on() {
    let read = [
        keepalive(0x600, 0),
        // What is decoded counts, whether it is taken, settled or not.
        wal_at(0x600, b"O\0\0\0\0\0\0\0\0o\0"),
    ];
    for message in read {
        let (listener, options) = listen().await;
        let (sender, _items) = mpsc::channel(8);
        let (_positions, mut confirmed) = Positions::new(EndLsn::default());
        let (mut carried, stop) = (Carried::default(), CancellationToken::new());
        let first = stream(&options, &sender, &mut confirmed, &stop, &mut carried, |_| {});
        let (ended, ()) = tokio::join!(first, async {
            let mut server = Walsender::accept(&listener, MINUTE).await;
            server.send(&[message]).await;
            server.fail("57P01").await;
        });
        assert!(matches!(ended, Err(SourceError::Ended { .. })), "{ended:?}");
        let second = stream(&options, &sender, &mut confirmed, &stop, &mut carried, |_| {});
        let error = tokio::select! {
            ended = second => ended.unwrap_err(),
            _ = Walsender::accept(&listener, MINUTE) => unreachable!("it must not begin to stream"),
        };
        assert!(matches!(error, SourceError::Reverted { read: Lsn(0x600), end: Lsn(0x500) }), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_was_silent_at_a_place_is_waited_for_longer_there() {
    let (listener, options) = listen().await;
    let (sender, _items) = mpsc::channel(8);
    let (_positions, mut confirmed) = Positions::new(EndLsn::default());
    let mut carried = Carried::default();
    let mut waited = Vec::new();
    for _ in 0..3 {
        let began = tokio::time::Instant::now();
        let stop = CancellationToken::new();
        let streaming = stream(&options, &sender, &mut confirmed, &stop, &mut carried, |_| {});
        let (ended, mut server) = tokio::join!(
            async {
                let ended = streaming.await;
                (ended, began.elapsed())
            },
            // Its feedback is taken by the system's buffers: it says nothing.
            Walsender::accept(&listener, Duration::from_millis(900)),
        );
        let (ended, took) = ended;
        assert!(matches!(ended, Err(SourceError::Silent { .. })), "{ended:?}");
        assert_eq!(server.status().await.flushed, FLOOR);
        waited.push(took);
    }
    // Four status messages, of which three fit into the server's patience; then twice, then four times as long.
    for (waited, least) in waited.iter().zip([1200, 2400, 4800]) {
        assert!(*waited >= Duration::from_millis(least), "{waited:?}");
    }
}

#[tokio::test]
async fn a_slot_that_is_taken_or_dropped_between_the_look_at_it_and_the_start_is_told_as_such() {
    for (code, expect) in [("55006", None), ("42704", Some("the slot is gone"))] {
        let (listener, options) = listen().await;
        let (sender, _items) = mpsc::channel(1);
        let (_positions, mut confirmed) = Positions::new(EndLsn::default());
        let (stop, mut carried) = (CancellationToken::new(), Carried::default());
        let refused = stream(&options, &sender, &mut confirmed, &stop, &mut carried, |_| ());
        let refusing = async { Walsender::asked(&listener, MINUTE).await.fail(code).await };
        let (refused, ()) = tokio::join!(refused, refusing);
        let error = refused.expect_err("it was refused");
        assert_eq!(error.loss(), expect);
        assert!(matches!(error, SourceError::SlotTaken { .. } | SourceError::SlotMissing { .. }), "{error}");
    }
}
