//! Webhooks come, change and go while the sidecar runs; nothing is lost or repeated.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, eventually,
};

const OPEN: &str = "[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";

fn stored(name: &str, url: &str) -> String {
    format!(
        "insert into walhook.webhooks (name, url, secret, events) values ('{name}', '{url}', '{SECRET}', '{{orders.*}}')"
    )
}

/// So many rows may go by, one each 50 ms, before a change is live on a machine that does other things besides. (That it takes
/// less than a second where nothing else runs is measured by itself.)
const SOON: i64 = 100;

/// Inserts a row every 50 ms, ids from `first`, until the receiver has one of them; gives how many it took.
async fn rows_until_one_arrives(database: &Database, receiver: &Receiver, path: &str, first: i64) -> i64 {
    for id in first..first + 200 {
        database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let came = receiver.requests(path);
        if let Some(id) = came.iter().filter_map(|r| r.column("id").as_i64()).filter(|id| *id >= first).min()
        {
            return id - first;
        }
    }
    panic!("nothing arrived on {path}");
}

fn none_repeated(requests: &[Request]) {
    let ids: HashSet<&str> = requests.iter().map(Request::id).collect();
    assert_eq!(ids.len(), requests.len(), "a delivery was repeated");
}

#[tokio::test]
async fn a_stored_webhook_is_live_within_a_second_and_gone_with_its_row() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let sidecar = Sidecar::start(&database, Run::with(OPEN)).await;

    database.execute(&stored("live", &receiver.url("/live"))).await;
    let missed = rows_until_one_arrives(&database, &receiver, "/live", 1).await;
    assert!(missed <= SOON, "{missed} rows went by, one each 50 ms");
    // From the first on, every one.
    database.execute("insert into orders select g, 'paid', 1, null from generate_series(1001, 1100) g").await;
    let all = |rs: &[Request]| rs.iter().filter(|r| r.column("id").as_i64() > Some(1000)).count() >= 100;
    none_repeated(&receiver.wait("/live", "a hundred more", PATIENCE, all).await);

    database.execute(&format!("update walhook.webhooks set url = '{}'", receiver.url("/moved"))).await;
    rows_until_one_arrives(&database, &receiver, "/moved", 2001).await;
    let published = sidecar.catalogs();
    database.execute("delete from walhook.webhooks").await;
    sidecar.published_after(published).await;
    let open = "select count(*) from walhook.deliveries where status not in ('delivered', 'failed')";
    eventually("what was owed has left", PATIENCE, async || database.number(open).await == 0).await;
    let before = receiver.count();
    database.execute("insert into orders values (5000, 'paid', 1, null)").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.count(), before, "a webhook outlived its row");
}

#[tokio::test]
async fn a_stored_webhook_may_not_target_this_machine_unless_the_operator_says_so() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default()
        .webhook("own", &receiver.url("/own"), "events = [\"orders.*\"]")
        .expecting("\"level\":\"WARN\"");
    let _sidecar = Sidecar::start(&database, run).await;

    database.execute(&stored("sly", &receiver.url("/sly"))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/own", 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(receiver.requests("/sly").is_empty(), "it was sent");
}

#[tokio::test]
async fn a_hangup_reads_the_file_again() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database.execute("create table customers (id int8 primary key, status text)").await;
    let first = Run::default().webhook("first", &receiver.url("/first"), "events = [\"orders.*\"]");
    let second =
        first.clone().webhook("second", &receiver.url("/second"), "events = [\"orders.*\", \"customers.*\"]");
    let sidecar = Sidecar::start(&database, first.expecting("nosuch")).await;

    sidecar.write_file(&database, &second.toml);
    sidecar.signal("HUP").await;
    let missed = rows_until_one_arrives(&database, &receiver, "/second", 1).await;
    assert!(missed <= SOON, "{missed} rows went by, one each 50 ms");
    // A table that no webhook wanted before.
    database.execute("insert into customers values (1, 'new')").await;
    let customer = |rs: &[Request]| rs.iter().any(|r| r.header("x-webhook-event") == "customers.created");
    none_repeated(&receiver.wait("/second", "a customer", PATIENCE, customer).await);
    // A file that is wrong changes nothing.
    sidecar.write_file(&database, "nosuch = 1");
    sidecar.signal("HUP").await;
    sidecar.logged("nosuch").await;
    database.execute("insert into orders values (9000, 'paid', 1, null)").await;
    let last = |rs: &[Request]| rs.iter().any(|r| r.column("id") == 9000);
    none_repeated(&receiver.wait("/first", "a row after the wrong file", PATIENCE, last).await);
}

#[tokio::test]
async fn a_410_disables_the_webhook_and_holds_what_follows() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(410));
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("\"level\":\"WARN\"");
    let _sidecar = Sidecar::start(&database, run).await;

    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    eventually("a failed delivery", PATIENCE, async || database.number(failed).await == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    database.execute("insert into orders values (2, 'paid', 1, null), (3, 'paid', 1, null)").await;
    let held = "select count(*) from walhook.deliveries where status = 'held'";
    eventually("held deliveries", PATIENCE, async || database.number(held).await == 2).await;
    assert_eq!(receiver.requests("/crm").len(), 1);
    let noted = "select string_agg(concat_ws(' ', actor_kind, action, object, detail #>> '{after,reason}'), ', ') from walhook.audit";
    let noted = database.text(noted).await;
    assert!(noted.starts_with("walhook webhook.disable crm ") && noted.contains("410"), "{noted}");
}

#[tokio::test]
async fn i10_our_own_schema_is_no_source_of_events() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/all", &[Answer::Status(500)]);
    let keys = "events = [\"*\"]\nretry = { schedule = [\"100ms\"] }";
    let run = Run::default().webhook("all", &receiver.url("/all"), keys).expecting("\"level\":\"WARN\"");
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/all", 2).await;
    database.execute("insert into orders values (2, 'paid', 1, null)").await;
    let came = receiver.expect("/all", 4).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.count(), 4, "something else made events");
    assert!(came.iter().all(|request| request.header("x-webhook-event") == "orders.created"));
}
