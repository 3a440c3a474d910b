//! The source against a real server: streaming, confirming, standing by, and leaving the application alone.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use walhook::clock::Clock;
use walhook::domain::{Cell, EndLsn, Operation, limits};
use walhook::postgres::Server;
use walhook::source::{
    Item, Manage, Positions, Preparation, PublicationNames, SetupError, SlotHistory, SourceError,
    SourceOptions, SourceState, Stopped, TableWanted, prepare, run, slot_state,
};

use super::support::{Database, PATIENCE, background, eventually};

/// A source that runs, and what it says.
struct Running {
    items: mpsc::Receiver<Item>,
    positions: Positions,
    states: watch::Receiver<SourceState>,
    stop: CancellationToken,
    task: JoinHandle<Result<Stopped, SourceError>>,
}

/// A change as the tests compare it.
type Seen = (u32, Operation, String, String);

impl Running {
    fn start(database: &Database, publications: Vec<String>) -> Self {
        let (sender, items) = mpsc::channel(limits::CHUNKS_WAITING);
        let (positions, confirmed) = Positions::new(EndLsn::default());
        let (told, states) = watch::channel(SourceState::Connecting);
        let stop = CancellationToken::new();
        let options = SourceOptions {
            server: Server::parse(&database.url).expect("a connection string"),
            slot: database.name.clone(),
            publications,
            feedback_every: Duration::from_secs(1),
            own_schema: "walhook".to_owned(),
            system: None,
            timeline: None,
            failover: None,
            clock: Clock::system(),
        };
        let task = background(run(options, sender, confirmed, told, stop.clone()));
        Self { items, positions, states, stop, task }
    }

    async fn item(&mut self) -> Item {
        timeout(PATIENCE, self.items.recv()).await.expect("an item in time").expect("a stream")
    }

    /// Takes items until so many transactions with changes have ended; confirms them.
    async fn transactions(&mut self, count: usize) -> Vec<Seen> {
        let (mut seen, mut ended) = (Vec::new(), 0);
        while ended < count {
            let Item::Chunk(chunk) = self.item().await else { continue };
            assert!(chunk.entries() <= limits::CHUNK_CHANGES);
            assert!(chunk.bytes() <= limits::CHUNK_BYTES + 64 * 1024);
            for (piece, entries) in chunk.pieces() {
                for change in entries.iter().filter_map(walhook::source::Entry::row) {
                    let row = change.decode();
                    let first = match (&row.new, &row.old) {
                        (Some(new), _) => new.cell(0).clone(),
                        _ => Cell::Null,
                    };
                    let text = match first {
                        Cell::Text(text) => String::from_utf8_lossy(&text).into_owned(),
                        _ => String::new(),
                    };
                    seen.push((change.sequence, change.operation, row.relation.config_name(), text));
                }
                if let Some(end) = piece.end {
                    ended += 1;
                    self.positions.confirm(end);
                }
            }
        }
        seen
    }

    async fn streaming(&mut self) {
        let streaming = self.states.wait_for(|state| matches!(state, SourceState::Streaming { .. }));
        timeout(PATIENCE, streaming).await.expect("streaming in time").expect("a source");
    }

    async fn stop(self) {
        self.stop.cancel();
        assert_eq!(self.task.await.expect("no panic").expect("no error"), Stopped::Asked);
    }
}

fn wanted(table: &str, updates_or_deletes: bool) -> TableWanted {
    let mut operations = vec![Operation::Insert, Operation::Truncate];
    operations
        .extend(updates_or_deletes.then_some([Operation::Update, Operation::Delete]).into_iter().flatten());
    TableWanted { schema: "public".to_owned(), table: table.to_owned(), operations, explicit: true }
}

fn preparation(database: &Database, wanted: Vec<TableWanted>) -> Preparation {
    Preparation {
        slot: database.name.clone(),
        history: SlotHistory::Never,
        names: PublicationNames::of("walhook"),
        failover: false,
        manage: Manage::Change,
        insisted: wanted.clone(),
        wanted,
        own_schema: "walhook".to_owned(),
    }
}

/// Prepares for these tables and starts.
async fn source(database: &Database, tables: Vec<TableWanted>) -> Running {
    let server = Server::parse(&database.url).expect("a connection string");
    let mut session = server.session("test").await.expect("a session");
    let prepared = prepare(&mut session, &preparation(database, tables)).await.expect("a source");
    assert!(prepared.slot_created);
    let mut running = Running::start(database, prepared.report.publications);
    running.streaming().await;
    running
}

async fn confirmed(database: &Database) -> EndLsn {
    let session = Server::parse(&database.url).unwrap().session("test").await.expect("a session");
    slot_state(&session, &database.name).await.expect("an answer").expect("a slot").confirmed
}

#[tokio::test]
async fn changes_are_streamed_numbered_and_confirmed() {
    let database = Database::new().await;
    database.execute("create table t (id int primary key, note text); create table other (id int)").await;
    let mut running = source(&database, vec![wanted("t", true)]).await;
    let before = confirmed(&database).await;
    database
        .execute(
            "begin; insert into t values (1), (2); insert into other values (9); update t set note = 'x' where id = 2; \
             delete from t where id = 1; truncate t; commit",
        )
        .await;
    let name = || "t".to_owned();
    let text = |text: &str| text.to_owned();
    let expect = [
        (1, Operation::Insert, name(), text("1")),
        (2, Operation::Insert, name(), text("2")),
        (3, Operation::Update, name(), text("2")),
        (4, Operation::Delete, name(), text("")),
        (5, Operation::Truncate, name(), text("")),
    ];
    assert_eq!(running.transactions(1).await, expect);
    let end = running.positions.confirmed();
    assert!(end > before);
    eventually("the slot to move", PATIENCE, async || confirmed(&database).await >= end).await;
    running.stop().await;
}

#[tokio::test]
async fn what_was_not_confirmed_comes_again_after_a_lost_connection() {
    let database = Database::new().await;
    database.execute("create table t (id int primary key)").await;
    let mut running = source(&database, vec![wanted("t", true)]).await;
    assert!(matches!(running.item().await, Item::Restarted));
    database.execute("insert into t values (1)").await;
    while !matches!(running.item().await, Item::Chunk(_)) {}
    database
        .execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots \
         where active and database = current_database()",
        )
        .await;
    while !matches!(running.item().await, Item::Restarted) {}
    assert_eq!(running.transactions(1).await.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_big_transaction_comes_in_bounded_chunks_and_small_ones_share_them() {
    let database = Database::new().await;
    database.execute("create table t (id int primary key, note text)").await;
    let mut running = source(&database, vec![wanted("t", true)]).await;
    database.execute("insert into t select n, repeat('x', 50) from generate_series(1, 30000) n").await;
    let seen = running.transactions(1).await;
    assert!(seen.iter().map(|(sequence, ..)| *sequence).eq(1..=30_000));
    database
        .execute("do $$ begin for n in 30001..31000 loop insert into t values (n); commit; end loop; end $$")
        .await;
    let seen = running.transactions(1000).await;
    assert!(seen.iter().map(|(.., id)| id.parse::<u32>().unwrap()).eq(30_001..=31_000));
    running.stop().await;
}

#[tokio::test]
async fn an_idle_source_lets_the_slot_follow_unpublished_traffic() {
    let database = Database::new().await;
    database.execute("create table t (id int primary key); create table other (id int)").await;
    let mut running = source(&database, vec![wanted("t", true)]).await;
    database.execute("insert into other select generate_series(1, 1000)").await;
    let target: EndLsn =
        EndLsn(database.text("select pg_current_wal_lsn()::text").await.parse().expect("a position"));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while confirmed(&database).await < target {
        assert!(tokio::time::Instant::now() < deadline, "the slot did not move");
        if let Ok(Some(Item::Idle(end))) = timeout(Duration::from_millis(200), running.items.recv()).await {
            running.positions.confirm(end);
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_second_source_stands_by_and_takes_over() {
    let database = Database::new().await;
    database.execute("create table t (id int primary key)").await;
    let first = source(&database, vec![wanted("t", true)]).await;
    let mut second = Running::start(&database, vec!["walhook".to_owned(), "walhook_inserts".to_owned()]);
    let standing = second.states.wait_for(|state| matches!(state, SourceState::Standby { pid: Some(_), .. }));
    timeout(PATIENCE, standing).await.expect("standing by in time").expect("a source");
    first.stop().await;
    second.streaming().await;
    database.execute("insert into t values (1)").await;
    assert_eq!(second.transactions(1).await.len(), 1);
    second.stop().await;
}

#[tokio::test]
async fn the_applications_own_statements_keep_working() {
    let database = Database::new().await;
    database.execute("create table log (line text); create table t (id int primary key)").await;
    let mut session = Server::parse(&database.url).unwrap().session("test").await.expect("a session");
    let refused =
        prepare(&mut session, &preparation(&database, vec![wanted("log", true)])).await.unwrap_err();
    assert!(matches!(refused, SetupError::NoIdentity { .. }), "{refused}");
    assert_eq!(database.number("select count(*) from pg_publication").await, 0);
    let mut running = source(&database, vec![wanted("log", false), wanted("t", true)]).await;
    database.execute("insert into log values ('a'); update log set line = 'b'; delete from log").await;
    let seen = running.transactions(1).await;
    assert_eq!(seen.iter().filter(|(_, operation, ..)| *operation == Operation::Insert).count(), 1);
    running.stop().await;
    let mut again = preparation(&database, vec![wanted("t", true)]);
    again.history = SlotHistory::Made;
    let report = prepare(&mut session, &again).await.expect("a source").report;
    assert_eq!(
        report.statements,
        ["alter publication \"walhook_inserts\" drop table only \"public\".\"log\";"]
    );
}

#[tokio::test]
async fn partitions_are_published_as_their_root_and_judged_by_their_leaves() {
    let database = Database::new().await;
    database
        .execute(
            "create table p (id int primary key, note text) partition by range (id); \
             create table p1 partition of p for values from (0) to (10); \
             create table bad (id int, note text) partition by range (id); \
             create table bad1 partition of bad for values from (0) to (10)",
        )
        .await;
    let mut session = Server::parse(&database.url).unwrap().session("test").await.expect("a session");
    let refused = prepare(&mut session, &preparation(&database, vec![wanted("bad", true)])).await;
    assert!(matches!(refused, Err(SetupError::NoIdentity { .. })));
    let mut running = source(&database, vec![wanted("p", true)]).await;
    database.execute("insert into p values (1)").await;
    let seen = running.transactions(1).await;
    assert_eq!(seen, [(1, Operation::Insert, "p".to_owned(), "1".to_owned())]);
    running.stop().await;
}

#[tokio::test]
async fn i10_a_publication_of_all_tables_suffices_and_our_own_schema_is_dropped() {
    let database = Database::new().await;
    database
        .execute(
            "create table t (id int primary key); create schema walhook; create table walhook.deliveries (id int); \
             create publication theirs for all tables with (publish_via_partition_root = true)",
        )
        .await;
    let mut session = Server::parse(&database.url).unwrap().session("test").await.expect("a session");
    let mut wish = preparation(&database, vec![wanted("t", true)]);
    wish.names = PublicationNames::of("theirs");
    wish.manage = Manage::Look;
    let report = prepare(&mut session, &wish).await.expect("a source").report;
    assert_eq!((report.publications.len(), report.statements.len()), (1, 0));
    let mut running = Running::start(&database, report.publications);
    database
        .execute("begin; insert into walhook.deliveries values (1); insert into t values (7); commit")
        .await;
    let seen = running.transactions(1).await;
    assert_eq!(seen, [(2, Operation::Insert, "t".to_owned(), "7".to_owned())]);
    running.stop().await;
}

#[tokio::test]
async fn a_missing_slot_that_there_was_is_said() {
    let database = Database::new().await;
    let mut wish = preparation(&database, Vec::new());
    wish.history = SlotHistory::Made;
    let mut session = Server::parse(&database.url).unwrap().session("test").await.expect("a session");
    let error = prepare(&mut session, &wish).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("on_slot_lost")), "{error}");
    let running = Running::start(&database, vec!["walhook".to_owned()]);
    let error = running.task.await.expect("no panic").unwrap_err();
    assert!(matches!(error, SourceError::SlotMissing { .. }), "{error}");
}

#[tokio::test]
async fn without_ownership_the_sql_for_the_owner_is_printed() {
    let database = Database::new().await;
    database
        .execute("create table t (id int primary key); drop role if exists guest; create role guest login replication password 'g'")
        .await;
    let url = database.url.replacen("postgres://postgres:", "postgres://guest:", 1);
    let (head, tail) = url.split_once("guest:").expect("a user");
    let (_, place) = tail.split_once('@').expect("a password");
    let server = Server::parse(&format!("{head}guest:g@{place}")).expect("a connection string");
    let mut session = server.session("test").await.expect("a session");
    let error = prepare(&mut session, &preparation(&database, vec![wanted("t", true)])).await.unwrap_err();
    let hint = error.hint().unwrap_or_default();
    assert!(
        hint.contains("create publication \"walhook\" for table only \"public\".\"t\""),
        "{error}: {hint}"
    );
}
