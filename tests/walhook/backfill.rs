//! Existing rows arrive once, as they are, in order with the live changes of the same rows, whatever is killed.

use std::collections::{HashMap, HashSet};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use walhook::cluster::{Cluster, Options};

use crate::support::{
    Answer, Database, ORDERS, PATIENCE, Receiver, Request, Run, Sidecar, background, beside_others, connect,
    eventually, run_once,
};

const ALL: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"50ms\", \"100ms\", \"200ms\", \"1s\", \"1s\"], jitter = 0 }";
/// A kill may leave the slot with the dead for a moment.
pub const LONG: Duration = Duration::from_secs(90);

async fn walhook(sidecar: &Sidecar, arguments: &[&str]) -> Output {
    let file = sidecar.file();
    let mut all = arguments.to_vec();
    all.extend(["--config", file.to_str().expect("a plain path")]);
    run_once(&all, &[]).await
}

pub async fn done(sidecar: &Sidecar, arguments: &[&str]) -> String {
    let output = walhook(sidecar, arguments).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

pub async fn refused(sidecar: &Sidecar, arguments: &[&str], code: i32, part: &str) {
    let output = walhook(sidecar, arguments).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part), "{arguments:?}: {said}");
}

async fn fill(database: &Database, rows: u32) {
    database
        .execute(&format!(
            "insert into orders select i, 'old', i, 'note ' || i from generate_series(1, {rows}) i;
             analyze orders"
        ))
        .await;
}

fn snapshots(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|r| r.accepted && r.json()["data"]["operation"] == "snapshot").collect()
}

fn id_of(request: &Request) -> i64 {
    request.column("id").as_i64().expect("a number")
}

/// Every row of the table has exactly one accepted snapshot, if it was not removed.
fn each_once(requests: &[Request]) -> HashSet<i64> {
    let mut ids: HashMap<i64, &str> = HashMap::new();
    for request in snapshots(requests) {
        let before = ids.insert(id_of(request), request.id());
        assert!(before.is_none_or(|id| id == request.id()), "two snapshots of row {}", id_of(request));
    }
    ids.into_keys().collect()
}

pub async fn wait_done(database: &Database) {
    let query = "select count(*) from walhook.backfills where status not in ('done', 'cancelled')";
    eventually("backfills that are over", LONG, async || database.number(query).await == 0).await;
}

#[tokio::test]
async fn existing_rows_arrive_as_snapshots_in_the_shape_that_changes_have() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create type mood as enum ('glad', 'sad');
             create type pair as (a int, b text);
             create domain cents as int8;
             create table odd (
                 id int8 primary key, flag bool, code char(5), ip inet, total numeric(10,2), at timestamptz,
                 span interval, bytes bytea, tags text[], meta jsonb, feeling mood, two pair, price cents,
                 ratio float8, secret text, double int generated always as (id * 2) stored);
             insert into odd values
                 (1, true, 'ab', '10.0.0.1', 1.10, '2026-01-02 03:04:05.678+00', '1 day 2 hours', '\\x00ff',
                  '{a,\"b c\",NULL}', '{\"x\": 1.0}', 'glad', '(1,)', 7, 0.1, 'hush'),
                 (2, null, null, null, null, 'infinity', null, null, '{}', null, null, null, null, 'NaN', null);",
        )
        .await;
    let run = Run::with("[tables.odd]\nexclude = [\"secret\"]\nmask = { feeling = \"hash\" }\n")
        .webhook("crm", &receiver.url("/crm"), "events = [\"odd.*\"]")
        .webhook("other", &receiver.url("/other"), "events = [\"odd.*\"]");
    let mut sidecar = Sidecar::start(&database, run).await;
    let said = done(&sidecar, &["backfill", "crm", "--table", "odd"]).await;
    assert!(said.contains("as odd.created") && said.contains("is done, 2 rows, 2 deliveries"), "{said}");
    let snapshots = receiver.expect("/crm", 2).await;
    database
        .execute(
            "begin; create temp table t as select * from odd; delete from odd; alter table t drop double; \
                  insert into odd select * from t; commit",
        )
        .await;
    let all = receiver.expect("/crm", 6).await;
    for id in [1, 2] {
        let of = |operation: &str| {
            let found = all
                .iter()
                .find(|r| r.json()["data"]["operation"] == operation && r.column("id") == json!(id));
            found.expect(operation).json()
        };
        let (snapshot, insert) = (of("snapshot"), of("insert"));
        assert_eq!(snapshot["type"], "odd.created");
        assert_eq!(snapshot["data"]["record"], insert["data"]["record"]);
        assert_eq!(snapshot["data"]["old"], Value::Null);
        assert!(snapshot["data"]["record"].get("secret").is_none());
    }
    assert!(snapshots.iter().all(|r| r.header("x-webhook-event") == "odd.created"));
    assert!(receiver.requests("/other").iter().all(|r| r.json()["data"]["operation"] != "snapshot"));
    sidecar.stop().await;
}

/// Each row that stays has one snapshot, and what came last of a row is how it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_five_thousand_rows_under_constant_change_arrive_once_and_in_order() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    fill(&database, 5000).await;
    let mut failing = fastrand::Rng::with_seed(3);
    receiver.script("/crm", move |_| Answer::Status(if failing.u8(..) < 3 { 500 } else { 200 }));
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ALL);
    let mut sidecar = Sidecar::start(&database, run).await;
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let url = database.url.clone();
    let writing = background(async move {
        let client = connect(&url).await.expect("a connection");
        let mut dice = fastrand::Rng::with_seed(5);
        let mut changes = 0;
        while !*stopped.borrow_and_update() {
            // Half of it on few rows, which so change at many looks.
            let id = if dice.bool() { dice.i64(1..=5000) } else { dice.i64(1..=40) };
            let statement = match dice.u8(0..20) {
                0 => format!("delete from orders where id = {id}"),
                1 => format!("update orders set id = id + 100000 where id = {id}"),
                2 => format!(
                    "insert into orders values ({}, 'new', 0, null) on conflict do nothing",
                    dice.i64(5001..=6000)
                ),
                _ => format!("update orders set total = total + 1, status = 'touched' where id = {id}"),
            };
            client.batch_execute(&statement).await.expect("a change");
            changes += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        changes
    });
    let began = tokio::time::Instant::now();
    done(&sidecar, &["backfill", "crm", "--table", "orders", "--detach"]).await;
    wait_done(&database).await;
    println!("a backfill of 5000 rows took {:?}", began.elapsed());
    stop.send_replace(true);
    println!("{} changes meanwhile", writing.await.expect("a writer"));
    database.execute("insert into orders values (999999, 'last', 0, null)").await;
    receiver
        .wait("/crm", "the last row", LONG, |rs| {
            rs.iter().rev().take(500).any(|r| r.accepted && id_of(r) == 999_999)
        })
        .await;
    let open = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    eventually("an empty ledger", LONG, async || database.number(open).await == 0).await;
    let requests = receiver.requests("/crm");
    let sent = each_once(&requests);
    let rows = database.rows("select id, status, total::text from orders where id <> 999999", &[]).await;
    let moving = database.number("select sum(rows_moving)::int8 from walhook.backfills").await;
    let mut missing = 0;
    // The last that was accepted of each row, in the order of arrival.
    let mut last: HashMap<i64, Value> = HashMap::new();
    for request in requests.iter().filter(|r| r.accepted) {
        last.insert(id_of(request), request.json()["data"]["record"].clone());
    }
    for row in &rows {
        let (id, status, total): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
        // A row that came while the backfill ran has its own event, and perhaps a snapshot.
        if id <= 5000 && !sent.contains(&id) {
            missing += 1;
        }
        let known = last.get(&id).unwrap_or_else(|| panic!("nothing of row {id} arrived"));
        assert_eq!((&known["status"], &known["total"]), (&json!(status), &json!(total)), "row {id}");
    }
    assert!(missing <= moving, "{missing} rows without a snapshot, {moving} were given up");
    println!("{} snapshots, {moving} rows given up, {missing} without", sent.len());
    sidecar.stop().await;
}

async fn killed_at(point: &str, skips: &[u32]) {
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    fill(&database, 1300).await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ALL).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    done(&sidecar, &["backfill", "crm", "--table", "orders", "--rate", "1/s", "--detach"]).await;
    database.execute("update walhook.backfills set rows_per_second = null").await;
    for skip in skips {
        sidecar.kill9().await;
        sidecar.next_run(|run| run.fail_at(&format!("{point}={skip}*off->return")));
        sidecar.spawn();
        let status = sidecar.ended().await;
        assert!(!status.success(), "{point} was never reached");
        sidecar.next_run(|mut run| {
            run.environment.clear();
            run
        });
        sidecar.spawn();
        sidecar.ready().await;
        database.execute("update orders set status = 'later' where id % 100 = 7").await;
    }
    wait_done(&database).await;
    receiver.wait("/crm", "every row", LONG, |rs| each_once(rs).len() == 1300).await;
    let rows = "select count(*) from walhook.deliveries where operation = 'snapshot'";
    assert_eq!(database.number(rows).await, 1300);
    sidecar.stop().await;
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i2_a_kill_before_the_cursor_moves_repeats_and_loses_no_row() {
    let _turn = beside_others().await;
    killed_at("before_backfill_advance", &[0, 1]).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i3_a_kill_between_a_page_and_its_mark_repeats_and_loses_no_row() {
    let _turn = beside_others().await;
    killed_at("before_backfill_mark", &[0, 1]).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i1_a_kill_around_a_ledger_commit_of_a_page_repeats_and_loses_no_row() {
    let _turn = beside_others().await;
    killed_at("before_ledger_commit", &[1]).await;
    killed_at("after_ledger_commit", &[0, 1]).await;
}

#[tokio::test]
async fn a_backfill_is_paced_paused_resumed_and_cancelled() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    fill(&database, 900).await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ALL);
    let mut sidecar = Sidecar::start(&database, run).await;
    let began = tokio::time::Instant::now();
    done(&sidecar, &["backfill", "crm", "--table", "orders", "--rate", "200/s", "--detach"]).await;
    receiver.expect("/crm", 200).await;
    let said = done(&sidecar, &["backfill", "pause", "1"]).await;
    assert!(said.contains("backfill 1 is paused") && said.contains("of about 900"), "{said}");
    let status: Value = serde_json::from_str(&done(&sidecar, &["status", "--json"]).await).expect("JSON");
    assert_eq!(status["backfills"][0]["status"], "paused");
    // What was under way ends; then nothing more comes.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let paused = receiver.requests("/crm").len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(receiver.requests("/crm").len(), paused);
    assert!(paused < 900, "{paused}");
    refused(&sidecar, &["backfill", "pause", "1"], 1, "It is paused").await;
    done(&sidecar, &["backfill", "resume", "1"]).await;
    wait_done(&database).await;
    receiver.expect("/crm", 900).await;
    assert!(began.elapsed() > Duration::from_secs(4), "900 rows at 200 a second took {:?}", began.elapsed());
    assert_eq!(each_once(&receiver.requests("/crm")).len(), 900);

    done(&sidecar, &["backfill", "crm", "--table", "orders", "--rate", "10/s", "--detach"]).await;
    receiver.expect("/crm", 910).await;
    done(&sidecar, &["backfill", "cancel", "2"]).await;
    refused(&sidecar, &["backfill", "resume", "2"], 1, "It is cancelled").await;
    refused(&sidecar, &["backfill", "cancel", "77"], 1, "there is no backfill \"77\"").await;
    let list = done(&sidecar, &["backfill", "--list"]).await;
    assert!(list.contains("cancelled") && list.contains("done"), "{list}");
    let list: Value =
        serde_json::from_str(&done(&sidecar, &["backfill", "--list", "--json"]).await).expect("JSON");
    assert_eq!((&list["data"][0]["id"], &list["data"][1]["rows_done"]), (&json!(2), &json!(900)));
    sidecar.stop().await;
}

#[tokio::test]
async fn where_since_and_filters_choose_rows() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table orders (id int8 primary key, status text, total numeric, at timestamptz);
             insert into orders select i, case when i % 2 = 0 then 'even' else 'odd' end, i,
                 timestamptz '2026-01-01 00:00+00' + i * interval '1 day' from generate_series(1, 100) i;",
        )
        .await;
    let keys = "events = [\"orders.*\"]\nfilter = \"record.total <= 90\"";
    let run = Run::default().webhook("crm", &receiver.url("/crm"), keys);
    let mut sidecar = Sidecar::start(&database, run).await;
    let said = done(
        &sidecar,
        &[
            "backfill",
            "crm",
            "--table",
            "public.orders",
            "--where",
            "status = 'even' -- and so on",
            "--since",
            "at=2026-03-12",
        ],
    )
    .await;
    // 31 of them are from the 12th of March on, and 11 of those over 90.
    assert!(said.contains("is done, 16 rows, 11 deliveries"), "{said}");
    let ids: HashSet<i64> = receiver.expect("/crm", 11).await.iter().map(id_of).collect();
    assert_eq!(ids, (70..=90).filter(|id| id % 2 == 0).collect());
    sidecar.stop().await;
}

#[tokio::test]
async fn keys_of_several_columns_of_text_and_of_an_identity_index_are_read_whole() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table lines (place char(4), \"No\" int4, name text, primary key (\"No\", place));
             insert into lines select 'p' || i % 7, i / 7, 'x' from generate_series(0, 1299) i;
             create extension citext;
             create table words (word citext primary key, n int);
             insert into words select case when i % 2 = 0 then upper(md5(i::text)) else md5(i::text) end || case when i % 3 = 0 then ',''\"\\ é' else '' end, i
                 from generate_series(1, 1200) i;
             create table things (id int, mark uuid not null, at timestamptz not null);
             create unique index things_mark on things (mark, at);
             alter table things replica identity using index things_mark;
             insert into things select i, md5(i::text)::uuid, now() from generate_series(1, 1100) i;
             create table split (id int8 primary key, v text) partition by range (id);
             create table split_a partition of split for values from (0) to (600);
             create table split_b partition of split for values from (600) to (2000);
             insert into split select i, 'v' from generate_series(1, 1000) i;",
        )
        .await;
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"*\"]\nconcurrency = 64");
    let mut sidecar = Sidecar::start(&database, run).await;
    for (table, rows) in [("lines", 1300), ("words", 1200), ("things", 1100), ("split", 1000)] {
        let said = done(&sidecar, &["backfill", "all", "--table", table]).await;
        assert!(said.contains(&format!("is done, {rows} rows, {rows} deliveries")), "{table}: {said}");
    }
    let requests =
        receiver.wait("/all", "all rows", LONG, |rs| rs.iter().filter(|r| r.accepted).count() >= 4600).await;
    let records: HashSet<String> = requests.iter().map(|r| r.json()["data"]["record"].to_string()).collect();
    assert_eq!((requests.len(), records.len()), (4600, 4600));
    sidecar.stop().await;
}

#[tokio::test]
async fn what_cannot_be_backfilled_is_refused_with_its_remedy_and_leaves_nothing_behind() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    fill(&database, 10).await;
    database.execute("create table log (line text); create view seen as select * from orders").await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ALL).webhook(
        "late",
        &receiver.url("/late"),
        "events = [\"orders.updated\", \"log.created\"]",
    );
    let mut sidecar = Sidecar::start(&database, run).await;
    let table = ["backfill", "crm", "--table", "orders", "--where"];
    let with = |condition: &'static str| [&table[..], &[condition]].concat();
    for (condition, part) in [
        ("total >", "the condition cannot be used"),
        ("colour = 'red'", "column \"colour\" does not exist"),
        ("total", "the condition cannot be used"),
        ("true; delete from orders", "the condition cannot be used"),
        ("true) or (true", "the condition cannot be used"),
        ("true) union all select null from orders where (true", "the condition cannot be used"),
        ("true then 1 end from orders where true -- ", "the condition cannot be used"),
        ("id = $1", "the condition cannot be used"),
        ("true /*", "the condition cannot be used"),
        (" ", "it is empty"),
        ("count(*) > 1", "the condition cannot be used"),
    ] {
        refused(&sidecar, &with(condition), 1, part).await;
    }
    refused(&sidecar, &["backfill", "crm", "--table", "orders", "--since", "at=now"], 1, "does not exist")
        .await;
    refused(&sidecar, &["backfill", "crm", "--table", "orders", "--since", "at"], 2, "COLUMN=TIME").await;
    refused(&sidecar, &["backfill", "crm", "--table", "orders", "--rate", "0"], 2, "500/s").await;
    refused(&sidecar, &["backfill", "crm"], 2, "--table").await;
    refused(&sidecar, &["backfill", "crn", "--table", "orders"], 1, "Perhaps you meant \"crm\"").await;
    refused(&sidecar, &["backfill", "crm", "--table", "ordres"], 1, "Perhaps you meant \"orders\"").await;
    refused(&sidecar, &["backfill", "crm", "--table", "seen"], 1, "there is no table").await;
    refused(&sidecar, &["backfill", "late", "--table", "log"], 1, "Add a primary key").await;
    refused(&sidecar, &["backfill", "late", "--table", "orders"], 1, "Add \"orders.created\"").await;
    assert_eq!(database.number("select count(*) from walhook.backfills").await, 0);
    assert_eq!(database.number("select count(*) from orders").await, 10);

    // It passes as SQL, and writes: the transaction that reads cannot.
    database
        .execute(
            "create function sneak() returns bool language plpgsql as $$ begin delete from orders; return true; end $$",
        )
        .await;
    let output = walhook(&sidecar, &with("sneak()")).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("SQLSTATE 25006"), "{said}");
    assert_eq!(database.number("select count(*) from orders").await, 10);
    sidecar.next_run(|run| run.expecting("a backfill cannot go on"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_row_that_is_too_large_is_a_failed_delivery_and_large_rows_come_in_small_pages() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database
        .execute(
            "insert into orders select i, 'big', 1, repeat('x', 700000) from generate_series(1, 20) i;
             insert into orders values (21, 'huge', 1, repeat('x', 17000000)), (22, 'small', 1, null)",
        )
        .await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ALL).expecting("gave deliveries up");
    let mut sidecar = Sidecar::start(&database, run).await;
    let said = done(&sidecar, &["backfill", "crm", "--table", "orders"]).await;
    assert!(said.contains("is done, 22 rows, 22 deliveries"), "{said}");
    let requests = receiver.expect("/crm", 21).await;
    assert_eq!(each_once(&requests).len(), 21);
    let failed = "select row_key || ': ' || fail_reason from walhook.deliveries where status = 'failed'";
    eventually("a dead letter", PATIENCE, async || {
        database.number("select count(*) from walhook.deliveries where status = 'failed'").await == 1
    })
    .await;
    let reason = database.text(failed).await;
    assert!(reason.starts_with("21: ") && reason.contains("more than the"), "{reason}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_webhook_that_is_behind_is_waited_for_and_a_lost_server_is_ridden_out() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    fill(&database, 6000).await;
    receiver.refuse();
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ALL).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    done(&sidecar, &["backfill", "crm", "--table", "orders", "--detach"]).await;
    let open = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    eventually("a full backlog", LONG, async || database.number(open).await >= 2000).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let waiting = database.number(open).await;
    assert!((2000..=2500).contains(&waiting), "{waiting}");
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'walhook backfill' and datname = current_database()";
    assert!(database.number(cut).await > 0);
    receiver.welcome();
    done(&sidecar, &["retry", "crm", "--yes"]).await;
    wait_done(&database).await;
    let all = "select count(*) from walhook.deliveries where operation = 'snapshot'";
    assert_eq!(database.number(all).await, 6000);
    sidecar.stop().await;
}

/// A transaction that waits for a synchronous standby is in the log, and sent, before anybody can see it.
#[tokio::test]
async fn a_row_whose_last_change_was_sent_before_it_became_visible_is_not_sent_as_it_was() {
    let _turn = beside_others().await;
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, ledger) = (Database::on(&cluster).await, Database::new().await);
    let receiver = Receiver::start().await;
    database.execute(ORDERS).await;
    fill(&database, 50).await;
    let home = format!("[ledger]\nurl = \"{}\"\n", ledger.url);
    let run = Run::with(&home).webhook("crm", &receiver.url("/crm"), ALL);
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("set synchronous_commit = local").await;
    database.execute("alter system set synchronous_standby_names = 'nobody'").await;
    database.execute("select pg_reload_conf()").await;
    let shown = "select (current_setting('synchronous_standby_names') = 'nobody')::int4::int8";
    eventually("the setting", PATIENCE, async || database.number(shown).await == 1).await;
    let writer = connect(&database.url).await.expect("a connection");
    let waiting = background(async move {
        writer.batch_execute("update orders set status = 'new' where id = 7").await.expect("a change");
    });
    receiver.wait("/crm", "the change", PATIENCE, |rs| rs.iter().any(|r| r.column("status") == "new")).await;
    assert_eq!(database.text("select status from orders where id = 7").await, "old");

    done(&sidecar, &["backfill", "crm", "--table", "orders", "--detach"]).await;
    let running = "select count(*) from walhook.backfills where status = 'running'";
    eventually("a backfill that runs", PATIENCE, async || ledger.number(running).await == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(snapshots(&receiver.requests("/crm")).is_empty(), "it sent what may be stale");
    database.execute("alter system reset synchronous_standby_names").await;
    database.execute("select pg_reload_conf()").await;
    waiting.await.expect("a commit");
    wait_done(&ledger).await;
    let requests = receiver.expect("/crm", 51).await;
    let of_row: Vec<Value> =
        snapshots(&requests).iter().filter(|r| id_of(r) == 7).map(|r| r.column("status")).collect();
    assert_eq!(of_row, [json!("new")]);
    sidecar.stop().await;
}
