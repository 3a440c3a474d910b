//! What differs between versions of the server, each told of the version that the tests run on.
//!
//! A test of what only newer versions have ends at once on an older one; `./test` runs them on the newest too.

use walhook::cluster::{Cluster, Options};

use crate::support::{Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually};

/// The first version that publishes generated columns, and that has virtual ones.
const EIGHTEEN: i64 = 180_000;

#[tokio::test]
async fn stored_generated_columns_are_sent_from_18_on_and_the_applications_updates_work_everywhere() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table orders (id int primary key, net int, gross int generated always as (net * 2) stored);
             alter table orders replica identity full",
        )
        .await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]");
    let mut sidecar = Sidecar::start(&database, run).await;
    // With a full identity, 18 refuses this update where the publication lacks the column.
    database.execute("insert into orders (id, net) values (1, 5); update orders set net = 7").await;
    let requests = receiver.wait("/crm", "both changes", PATIENCE, |requests| requests.len() >= 2).await;
    let records: Vec<_> = requests.iter().map(|request| request.json()["data"]["record"].clone()).collect();
    let is_eighteen = database.version().await >= EIGHTEEN;
    let of = |net: i64| {
        let mut record = serde_json::json!({ "id": 1, "net": net });
        if let Some(fields) = record.as_object_mut().filter(|_| is_eighteen) {
            fields.insert("gross".to_owned(), (net * 2).into());
        }
        record
    };
    assert_eq!(records, [of(5), of(7)]);
    sidecar.stop().await;
}

#[tokio::test]
async fn virtual_columns_under_a_full_identity_are_refused_before_the_applications_updates_break() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    if database.version().await < EIGHTEEN {
        return;
    }
    database
        .execute(
            "create table orders (id int primary key, net int, gross int generated always as (net * 2) virtual);
             alter table orders replica identity full; insert into orders (id, net) values (1, 5)",
        )
        .await;
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("cannot publish updates and deletes")
        .expecting("without a replica identity")
        .expecting("detail:")
        .expecting("hint:");
    let mut sidecar = Sidecar::prepare(&database, run);
    sidecar.spawn();
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    assert!(sidecar.log_text().contains("REPLICA IDENTITY DEFAULT"), "{}", sidecar.log_text());
    database.execute("update orders set net = 7").await;
    assert_eq!(database.number("select count(*) from pg_publication").await, 0);
    database.execute("alter table orders replica identity default").await;
    sidecar.spawn();
    sidecar.ready().await;
    database.execute("update orders set net = 8").await;
    let requests = receiver.wait("/crm", "the change", PATIENCE, |requests| !requests.is_empty()).await;
    assert_eq!(requests[0].json()["data"]["record"], serde_json::json!({ "id": 1, "net": 8 }));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_slot_that_idled_too_long_is_told_with_the_servers_reason_and_the_gap_is_recorded_when_it_is_made_anew()
 {
    let _turn = beside_others().await;
    if Database::new().await.version().await < EIGHTEEN {
        return;
    }
    let settings = vec![("idle_replication_slot_timeout".to_owned(), "1s".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("is lost")
        .expecting("are lost; recorded in gaps")
        .expecting("detail:")
        .expecting("hint:");
    let mut sidecar = Sidecar::start(&database, run).await;
    sidecar.stop().await;
    // The server looks at slots when it makes a checkpoint.
    let reason = "select coalesce(max(invalidation_reason), '') from pg_replication_slots";
    eventually("the slot's end", PATIENCE, async || {
        database.execute("insert into orders values (1, 'lost') on conflict do nothing; checkpoint").await;
        database.text(reason).await == "idle_timeout"
    })
    .await;
    sidecar.spawn();
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    let told = sidecar.log_text();
    assert!(told.contains("idle_timeout") && told.contains("raise idle_replication_slot_timeout"), "{told}");
    sidecar.next_run(|mut run| {
        run.environment.push(("WALHOOK_DATABASE__ON_SLOT_LOST".to_owned(), "recreate".to_owned()));
        run
    });
    sidecar.spawn();
    sidecar.ready().await;
    assert_eq!(database.number("select count(*) from walhook.gaps where from_lsn < to_lsn").await, 1);
    database.execute("insert into orders values (2, 'new')").await;
    let requests = receiver.wait("/crm", "what came after", PATIENCE, |requests| !requests.is_empty()).await;
    assert_eq!(requests[0].json()["data"]["record"]["status"], "new");
    sidecar.stop().await;
}
