//! Tables that are made of tables: rows that move between partitions, and children by inheritance.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually};

const KEYS: &str = "events = [\"orders.*\", \"marks.*\"]\ntimeout = \"5s\"";
const FOLD: &str = "[tables.orders]\nfold_moves = [\"id\"]\n";

/// Orders in three partitions by status, and a table to mark the end with.
const ORDERS: &str = "
    create table orders (id int8, status text, note text, primary key (id, status)) partition by list (status);
    create table orders_new partition of orders for values in ('new');
    create table orders_paid partition of orders for values in ('paid');
    create table orders_rest partition of orders default;
    create table marks (id int8 primary key)";

const FULL: &str = "alter table orders replica identity full; alter table orders_new replica identity full;
    alter table orders_paid replica identity full; alter table orders_rest replica identity full";

async fn database() -> Database {
    let database = Database::new().await;
    database.execute(ORDERS).await;
    database
}

fn event_type(request: &Request) -> String {
    request.header("x-webhook-event").to_owned()
}

/// Waits for the mark's event, and gives the types and data of what came before, in commit order.
async fn up_to_mark(database: &Database, receiver: &Receiver) -> Vec<(String, Value)> {
    database.execute("insert into marks values (1)").await;
    let marked = |came: &[Request]| {
        came.iter().any(|request| event_type(request) == "marks.created" && request.column("id") == 1)
    };
    receiver.wait("/crm", "the mark", PATIENCE, marked).await;
    // Other lanes may be slower than the mark's: the ledger says when all has arrived.
    let open = "select count(*) from walhook.deliveries where status <> 'delivered'";
    eventually("all delivered", PATIENCE, async || {
        let sent = "select count(*) from walhook.deliveries";
        database.number(open).await == 0
            && database.number(sent).await == i64::try_from(receiver.requests("/crm").len()).expect("few")
    })
    .await;
    let mut came: Vec<_> = receiver
        .requests("/crm")
        .iter()
        .filter(|request| event_type(request) != "marks.created")
        .map(|request| {
            let body = request.json();
            (body["id"].as_str().expect("an id").to_owned(), event_type(request), body["data"].clone())
        })
        .collect();
    came.sort_by(|a, b| a.0.cmp(&b.0));
    came.into_iter().map(|(_, event_type, data)| (event_type, data)).collect()
}

fn types(came: &[(String, Value)]) -> Vec<&str> {
    came.iter().map(|(event_type, _)| event_type.as_str()).collect()
}

#[tokio::test]
async fn a_move_between_partitions_is_a_deleted_and_a_created_row_unless_it_is_to_be_folded() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), KEYS)).await;
    database.execute("insert into orders values (1, 'new', 'a')").await;
    database.execute("update orders set status = 'paid' where id = 1").await;
    let came = up_to_mark(&database, &receiver).await;
    assert_eq!(types(&came), ["orders.created", "orders.deleted", "orders.created"]);
}

#[tokio::test]
async fn a_folded_move_is_one_updated_event_with_the_key_of_the_deleted_row() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let run = Run::with(FOLD).webhook("crm", &receiver.url("/crm"), KEYS);
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'new', 'a'), (2, 'new', repeat('large', 5000))").await;
    database.execute("update orders set status = 'paid'").await;
    database.execute("update orders set note = 'b' where id = 1").await;
    database.execute("delete from orders where id = 1").await;
    let came = up_to_mark(&database, &receiver).await;
    let expect = [
        "orders.created",
        "orders.created",
        "orders.updated",
        "orders.updated",
        "orders.updated",
        "orders.deleted",
    ];
    assert_eq!(types(&came), expect);
    let moved = &came[2].1;
    assert_eq!(moved["operation"], "update");
    assert_eq!((&moved["schema"], &moved["table"]), (&json!("public"), &json!("orders")));
    assert_eq!(moved["record"], json!({ "id": 1, "status": "paid", "note": "a" }));
    assert_eq!((&moved["old"], &moved["changed"]), (&json!({ "id": 1, "status": "new" }), &Value::Null));
    // A row is written whole where it moves to: nothing is left out.
    assert_eq!(came[3].1["record"]["note"].as_str().map(str::len), Some(25_000));
    assert_eq!(came[3].1["unavailable"], json!([]));
    // The place is the insert's, and lanes go by the columns that stay.
    let all = receiver.requests("/crm");
    let sequences: Vec<_> = all
        .iter()
        .filter(|request| {
            request.json()["data"]["old"]["status"] == "new" && event_type(request) == "orders.updated"
        })
        .map(|request| request.json()["metadata"]["sequence"].as_i64().expect("a number"))
        .collect();
    assert!(sequences.len() == 2 && sequences.contains(&2) && sequences.contains(&4), "{sequences:?}");
    let keys = "select string_agg(distinct row_key, ' ' order by row_key) from walhook.deliveries where table_name = 'orders'";
    assert_eq!(database.text(keys).await, "1 2");
}

#[tokio::test]
async fn a_folded_move_tells_the_whole_old_row_and_what_changed_where_table_and_partitions_give_it() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    database.execute(FULL).await;
    let run = Run::with(FOLD).webhook("crm", &receiver.url("/crm"), KEYS);
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'new', 'a'), (2, 'new', 'c')").await;
    database.execute("update orders set status = 'gone', note = 'b' where id = 1").await;
    let came = up_to_mark(&database, &receiver).await;
    assert_eq!(types(&came), ["orders.created", "orders.created", "orders.updated"]);
    let moved = &came[2].1;
    assert_eq!(moved["old"], json!({ "id": 1, "status": "new", "note": "a" }));
    assert_eq!(moved["changed"], json!(["status", "note"]));
}

#[tokio::test]
async fn only_a_delete_and_an_insert_of_one_row_next_to_each_other_are_folded() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let run = Run::with(FOLD).webhook("crm", &receiver.url("/crm"), KEYS);
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders select g, 'new', 'x' from generate_series(1, 6) g").await;
    let between = [
        // Another row.
        "begin; delete from orders where id = 1; insert into orders values (11, 'paid', 'x'); commit",
        // Another transaction.
        "delete from orders where id = 2",
        "insert into orders values (2, 'paid', 'x')",
        // Another change between them.
        "begin; delete from orders where id = 3; insert into marks values (103); insert into orders values (3, 'paid', 'x'); commit",
        // Another table.
        "begin; delete from orders where id = 4; insert into marks values (4); commit",
        // Two deletes, and the move of the second; an insert and a delete.
        "begin; delete from orders where id = 5; update orders set status = 'paid' where id = 6; commit",
        "begin; insert into orders values (7, 'new', 'x'); delete from orders where id = 7; commit",
        // The application's own delete and insert look like a move.
        "begin; delete from orders where id = 11; insert into orders values (11, 'gone', 'x'); commit",
    ];
    for statements in between {
        database.execute(statements).await;
    }
    database.execute("delete from marks").await;
    let came = up_to_mark(&database, &receiver).await;
    let orders: Vec<_> = came
        .iter()
        .filter(|(event_type, _)| event_type.starts_with("orders"))
        .skip(6)
        .map(|(event_type, data)| {
            let row = if data["record"].is_null() { &data["old"] } else { &data["record"] };
            format!("{} {}", event_type.trim_start_matches("orders."), row["id"])
        })
        .collect();
    let expect = [
        "deleted 1",
        "created 11",
        "deleted 2",
        "created 2",
        "deleted 3",
        "created 3",
        "deleted 4",
        "deleted 5",
        "updated 6",
        "created 7",
        "deleted 7",
        "updated 11",
    ];
    assert_eq!(orders, expect);
}

/// Every row's update and no other event, under one id and one body, however often it came.
fn once_each(came: &[Request], rows: usize) {
    let mut by_row: BTreeMap<i64, Vec<(&str, &[u8])>> = BTreeMap::new();
    for request in came.iter().filter(|request| request.path == "/crm") {
        assert_eq!(event_type(request), "orders.updated", "{}", request.json());
        let row = request.column("id").as_i64().expect("a number");
        by_row.entry(row).or_default().push((request.id(), &request.body));
    }
    assert_eq!(by_row.len(), rows);
    for (row, mut told) in by_row {
        told.dedup();
        assert_eq!(told.len(), 1, "row {row} came under several ids or with several bodies");
    }
}

#[tokio::test]
async fn i2_a_transaction_of_moves_is_folded_alike_across_chunks_lost_connections_and_restarts() {
    const ROWS: usize = 2_500;
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    database
        .execute(&format!(
            "insert into orders select g, 'new', repeat('n', 150) from generate_series(1, {ROWS}) g"
        ))
        .await;
    let keys = "events = [\"orders.*\"]\ntimeout = \"5s\"\nretry = { schedule = [\"1s\", \"1s\", \"1s\"] }";
    let run = Run::with(FOLD).webhook("crm", &receiver.url("/crm"), keys).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    // Each pair is some 400 bytes of the stream, so that chunks end between the two of a pair as well.
    database.execute("begin; insert into marks values (0); update orders set status = 'paid'; commit").await;
    for share in [10, 4] {
        let some = |came: &[Request]| came.len() >= ROWS / share;
        receiver.wait("/crm", "some of the moves", PATIENCE, some).await;
        if share == 10 {
            let cut = "select count(pg_terminate_backend(active_pid)) from pg_replication_slots \
                       where active_pid is not null and database = current_database()";
            assert_eq!(database.number(cut).await, 1);
        } else {
            sidecar.restart().await;
        }
    }
    let all = |came: &[Request]| {
        let rows: BTreeSet<_> = came.iter().filter(|r| r.accepted).map(|r| r.column("id").as_i64()).collect();
        rows.len() == ROWS
    };
    let came = receiver.wait("/crm", "every move", PATIENCE * 2, all).await;
    once_each(&came, ROWS);
    let sequences: BTreeSet<_> =
        came.iter().map(|request| request.json()["metadata"]["sequence"].as_u64()).collect();
    let expect: BTreeSet<_> = (1..=ROWS as u64).map(|pair| Some(2 * pair)).collect();
    assert!(sequences == expect, "an update stands elsewhere than in its insert's place");
}

#[tokio::test]
async fn children_by_inheritance_are_tables_of_their_own_and_their_statements_keep_working() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table parent (id int8 primary key, v text);
             create table keyless () inherits (parent);
             create table child (primary key (id)) inherits (parent);
             create table marks (id int8 primary key)",
        )
        .await;
    let first = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"child.*\", \"marks.*\"]");
    let mut sidecar = Sidecar::start(&database, first).await;
    // The parent joins its child, and leaves it again.
    for (events, listed) in [
        ("\"parent.*\", \"child.*\", \"marks.*\"", "child marks parent"),
        ("\"child.*\", \"marks.*\"", "child marks"),
        ("\"parent.*\", \"marks.*\"", "marks parent"),
    ] {
        sidecar.next_run(|_| {
            Run::default().webhook("crm", &receiver.url("/crm"), &format!("events = [{events}]"))
        });
        sidecar.write_own_file(&database);
        let before = sidecar.catalogs();
        sidecar.signal("HUP").await;
        let names = "select string_agg(relname::text, ' ' order by relname) \
                     from pg_publication_rel join pg_class c on c.oid = prrelid";
        eventually(listed, PATIENCE, async || database.text(names).await == listed).await;
        sidecar.published_after(before).await;
    }
    for table in ["parent", "keyless", "child"] {
        database.execute(&format!("insert into {table} values (1, '{table}')")).await;
    }
    // All three tables; refused where a table without identity were published.
    database.execute("update parent set v = v || '!'").await;
    let came = up_to_mark(&database, &receiver).await;
    assert_eq!(types(&came), ["parent.created", "parent.updated"]);
    assert_eq!(came[1].1["record"]["v"], "parent!");
}
