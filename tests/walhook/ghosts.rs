//! Locks that are kept: by transactions whose walhook is gone, and by others that take long.

use std::pin::Pin;

use tokio_postgres::{Client, CopyInSink};

use crate::support::{
    Database, ORDERS, PATIENCE, Receiver, Run, Sidecar, beside_others, connect, eventually,
};

/// Of a session: still there, in the middle of a `COPY`, and as silent as if its network were gone.
struct Ghost {
    _client: Client,
    _copy: Pin<Box<CopyInSink<bytes::Bytes>>>,
}

impl Ghost {
    async fn new(database: &Database) -> Self {
        let client = connect(&database.url).await.expect("a connection");
        client
            .batch_execute(
                "set application_name to 'walhook ledger'; begin; select 1 from walhook.sources for share",
            )
            .await
            .expect("the fence");
        let copy = client.copy_in("copy walhook.audit from stdin").await.expect("a copy");
        Self { _client: client, _copy: Box::pin(copy) }
    }
}

const OF_THE_LEDGER: &str =
    "from pg_stat_activity where datname = current_database() and application_name = 'walhook ledger'";

async fn sessions(database: &Database, condition: &str) -> i64 {
    database.number(&format!("select count(*) {OF_THE_LEDGER} and {condition}")).await
}

#[tokio::test]
async fn i3_what_the_network_lost_in_a_transaction_keeps_neither_the_writer_nor_a_successor() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("the ledger cannot be written");
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'new')").await;
    receiver.expect("/crm", 1).await;
    database.is_followed().await;

    // The writer is in the middle of a transaction when its connection ends: it has to see whether that was committed.
    let blocker = connect(&database.url).await.expect("a connection");
    blocker.batch_execute("begin; lock table walhook.deliveries in share mode").await.expect("a lock");
    database.execute("insert into orders values (2, 'new')").await;
    receiver.expect("/crm", 2).await;
    let stands = "wait_event_type = 'Lock'";
    eventually("a writer that stands", PATIENCE, async || sessions(&database, stands).await == 1).await;
    let ghost = Ghost::new(&database).await;
    let cut = format!("select count(pg_terminate_backend(pid)) {OF_THE_LEDGER} and {stands}");
    assert_eq!(database.number(&cut).await, 1);
    blocker.batch_execute("rollback").await.expect("an end");
    database.is_followed().await;
    assert_eq!(sessions(&database, "query like 'copy walhook.audit%'").await, 0);
    drop(ghost);

    sidecar.kill9().await;
    let _ghost = Ghost::new(&database).await;
    database.execute("insert into orders values (3, 'new')").await;
    sidecar.spawn();
    sidecar.ready().await;
    let came =
        receiver.wait("/crm", "the third", PATIENCE, |rs| rs.iter().any(|r| r.column("id") == 3)).await;
    assert_eq!(came.len(), 3);
    database.is_followed().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_taken_over_is_waited_for() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute(ORDERS).await;
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("the ledger cannot be taken over yet");
    let mut sidecar = Sidecar::start(&database, run).await;
    sidecar.stop().await;
    // By somebody who is not of ours, and for longer than a lock is waited for.
    let client = connect(&database.url).await.expect("a connection");
    client.batch_execute("begin; select 1 from walhook.sources for update").await.expect("a lock");
    sidecar.spawn();
    sidecar.logged("the ledger cannot be taken over yet").await;
    database.execute("insert into orders values (1, 'new')").await;
    client.batch_execute("commit").await.expect("an end");
    receiver.expect("/crm", 1).await;
    sidecar.ready().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_first_start_waits_for_a_transaction_that_is_open_longer_than_a_lock_is_waited_for() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let client = connect(&database.url).await.expect("a connection");
    client.batch_execute("begin; insert into orders values (1, 'before')").await.expect("a row");
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]");
    let mut sidecar = Sidecar::prepare(&database, run);
    sidecar.spawn();
    let making = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                  and datname = current_database() and query like '%pg_create_logical_replication_slot%'";
    eventually("a slot that is being made", PATIENCE, async || database.number(making).await == 1).await;
    tokio::time::sleep(std::time::Duration::from_secs(32)).await;
    assert!(!sidecar.has_ended(), "{}", sidecar.log_text());
    client.batch_execute("commit").await.expect("an end");
    sidecar.ready().await;
    database.execute("insert into orders values (2, 'after')").await;
    receiver.wait("/crm", "the second", PATIENCE, |rs| rs.iter().any(|r| r.column("id") == 2)).await;
    sidecar.stop().await;
}
