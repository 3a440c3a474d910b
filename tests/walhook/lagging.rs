//! The schema changes while the sidecar is away: older rows carry the names and types of their time.
//!
//! The log is read with the catalog as it was at each place, so what a test does while the sidecar is stopped (or
//! frozen) must arrive as if it had been there all along.

use serde_json::{Value, json};

use crate::support::{Database, Receiver, Run, Sidecar, beside_others};

const KEYS: &str = "events = [\"*\"]";

/// A sidecar that has seen the tables and is away.
struct Lagging {
    database: Database,
    receiver: Receiver,
    sidecar: Sidecar,
}

impl Lagging {
    async fn after(setup: &str) -> Self {
        Self::with(setup, "", KEYS).await
    }

    async fn with(setup: &str, toml: &str, keys: &str) -> Self {
        let (database, receiver) = (Database::new().await, Receiver::start().await);
        database.execute(setup).await;
        let run = Run::with(toml).webhook("all", &receiver.url("/all"), keys);
        let mut sidecar = Sidecar::start(&database, run).await;
        sidecar.stop().await;
        Self { database, receiver, sidecar }
    }

    /// Does each of these in a transaction of its own, and starts the sidecar again.
    async fn meanwhile(&mut self, statements: &[&str]) {
        for statement in statements {
            self.database.execute(statement).await;
        }
        self.sidecar.restart().await;
    }

    /// The events so far, in commit order: type, and the row after or else before.
    async fn events(&self, count: usize) -> Vec<(String, Value)> {
        let mut requests = self.receiver.expect("/all", count).await;
        requests.sort_by(|one, other| one.id().cmp(other.id()));
        let one = |request: &crate::support::Request| {
            let data = &request.json()["data"];
            let row = if data["record"].is_null() { &data["old"] } else { &data["record"] };
            (request.header("x-webhook-event").to_owned(), row.clone())
        };
        let events: Vec<_> = requests.iter().map(one).collect();
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    async fn expect(&self, expected: &[(&str, Value)]) {
        let events = self.events(expected.len()).await;
        let expected: Vec<_> =
            expected.iter().map(|(event, row)| ((*event).to_owned(), row.clone())).collect();
        assert_eq!(events, expected);
    }
}

#[tokio::test]
async fn older_rows_lack_a_column_that_was_added_while_lagging() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create table items (id int primary key)").await;
    lag.meanwhile(&[
        "insert into items values (1)",
        "alter table items add size int default 5",
        "insert into items values (2)",
        "update items set size = 6 where id = 1",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1 })),
        ("items.created", json!({ "id": 2, "size": 5 })),
        ("items.updated", json!({ "id": 1, "size": 6 })),
    ])
    .await;
}

#[tokio::test]
async fn older_rows_keep_a_column_that_was_dropped_while_lagging() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create table items (id int primary key, size int, name text)").await;
    lag.meanwhile(&[
        "insert into items values (1, 5, 'a')",
        "alter table items drop size",
        "insert into items values (2, 'b')",
        "alter table items add size text",
        "insert into items values (3, 'c', 'large')",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "size": 5, "name": "a" })),
        ("items.created", json!({ "id": 2, "name": "b" })),
        ("items.created", json!({ "id": 3, "name": "c", "size": "large" })),
    ])
    .await;
}

#[tokio::test]
async fn older_rows_carry_a_columns_older_name_within_a_transaction_too() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create table items (id int primary key, size int)").await;
    lag.meanwhile(&[
        "insert into items values (1, 5)",
        "begin; insert into items values (2, 5); alter table items rename size to length; \
         insert into items values (3, 5); savepoint s; alter table items rename length to width; \
         insert into items values (4, 5); rollback to s; insert into items values (5, 5); commit",
        "alter table items rename id to number; delete from items where number = 1",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "size": 5 })),
        ("items.created", json!({ "id": 2, "size": 5 })),
        ("items.created", json!({ "id": 3, "length": 5 })),
        ("items.created", json!({ "id": 5, "length": 5 })),
        ("items.deleted", json!({ "number": 1 })),
    ])
    .await;
}

#[tokio::test]
async fn older_rows_have_a_columns_older_type() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create table items (id int primary key, v int, at timestamp)").await;
    lag.meanwhile(&[
        "insert into items values (1, 5, '2026-11-21 10:00')",
        "alter table items alter v type text, alter at type timestamptz using at at time zone 'UTC'",
        "insert into items values (2, '5', '2026-11-21 10:00+00')",
        "alter table items alter v type jsonb using v::jsonb",
        "insert into items values (3, '{\"a\": [5]}', 'infinity')",
        "alter table items alter v type text[] using array[v::text]",
        "insert into items values (4, '{5}', null)",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "v": 5, "at": "2026-11-21T10:00:00" })),
        ("items.created", json!({ "id": 2, "v": "5", "at": "2026-11-21T10:00:00Z" })),
        ("items.created", json!({ "id": 3, "v": { "a": [5] }, "at": "infinity" })),
        ("items.created", json!({ "id": 4, "v": ["5"], "at": null })),
    ])
    .await;
}

#[tokio::test]
async fn older_rows_carry_a_tables_older_name_and_schema() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create schema shop; create table items (id int primary key)").await;
    lag.meanwhile(&[
        "insert into items values (1)",
        "alter table items rename to goods",
        "insert into goods values (2)",
        "alter table goods set schema shop",
        "insert into shop.goods values (3)",
        "delete from shop.goods where id = 1",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1 })),
        ("goods.created", json!({ "id": 2 })),
        ("shop.goods.created", json!({ "id": 3 })),
        ("shop.goods.deleted", json!({ "id": 1 })),
    ])
    .await;
}

#[tokio::test]
async fn the_rows_of_a_table_that_was_dropped_while_lagging_still_arrive() {
    let _turn = beside_others().await;
    let setup = "create table items (id int primary key, note text); create table other (id int primary key);
                 alter table items replica identity full";
    let mut lag = Lagging::after(setup).await;
    lag.meanwhile(&[
        "insert into items values (1, 'a')",
        "update items set note = 'b'",
        "delete from items",
        "drop table items",
        "insert into other values (1)",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "note": "a" })),
        ("items.updated", json!({ "id": 1, "note": "b" })),
        ("items.deleted", json!({ "id": 1, "note": "b" })),
        ("other.created", json!({ "id": 1 })),
    ])
    .await;
}

#[tokio::test]
async fn a_table_that_was_made_anew_while_lagging_is_another_table() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create table items (id int primary key, note text)").await;
    lag.meanwhile(&[
        "insert into items values (1, 'a')",
        "drop table items",
        "create table items (code uuid primary key, size int[])",
    ])
    .await;
    let code = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    lag.database.execute(&format!("insert into items values ('{code}', '{{1,2}}')")).await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "note": "a" })),
        ("items.created", json!({ "code": code, "size": [1, 2] })),
    ])
    .await;
}

#[tokio::test]
async fn older_rows_have_the_label_of_their_time_of_an_enum_value() {
    let _turn = beside_others().await;
    let setup = "create type mood as enum ('sad'); create table items (id int primary key, m mood, l mood[])";
    let mut lag = Lagging::after(setup).await;
    lag.meanwhile(&[
        "insert into items values (1, 'sad', '{sad}')",
        "alter type mood add value 'glad' before 'sad'",
        "insert into items values (2, 'glad', '{glad,sad}')",
        "alter type mood rename value 'sad' to 'blue'",
        "alter type mood rename to feeling",
        "insert into items values (3, 'blue', '{blue,NULL}')",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "m": "sad", "l": ["sad"] })),
        ("items.created", json!({ "id": 2, "m": "glad", "l": ["glad", "sad"] })),
        ("items.created", json!({ "id": 3, "m": "blue", "l": ["blue", null] })),
    ])
    .await;
}

#[tokio::test]
async fn values_of_a_type_that_was_dropped_while_lagging_still_arrive() {
    let _turn = beside_others().await;
    let setup = "create extension hstore; create extension citext;
        create type mood as enum ('sad'); create type pair as (a int, b text); create domain cents as int8;
        create type floats as range (subtype = float8);
        create table items (id int primary key, m mood, p pair[], c cents, f floats, h hstore, t citext[])";
    let mut lag = Lagging::after(setup).await;
    lag.meanwhile(&[
        "insert into items values (1, 'sad', array[row(1, 'x')::pair], 5, '[1,2)', 'a=>1', '{A}')",
        "drop type mood, pair, cents, floats cascade",
        "drop extension hstore cascade; drop extension citext cascade",
        "insert into items values (2)",
    ])
    .await;
    let row = json!({
        "id": 1, "m": "sad", "p": ["(1,x)"], "c": 5, "f": "[1,2)", "h": "\"a\"=>\"1\"", "t": ["A"]
    });
    lag.expect(&[("items.created", row), ("items.created", json!({ "id": 2 }))]).await;
}

#[tokio::test]
async fn older_rows_are_known_by_the_key_of_their_time() {
    let _turn = beside_others().await;
    let mut lag = Lagging::after("create table items (id int primary key, code int not null)").await;
    lag.meanwhile(&[
        "insert into items values (1, 11), (2, 12), (3, 13)",
        "delete from items where id = 1",
        "alter table items drop constraint items_pkey, add primary key (code)",
        "delete from items where id = 2",
        "alter table items replica identity full",
        "delete from items where id = 3",
    ])
    .await;
    let events = lag.events(6).await;
    let deleted: Vec<&Value> = events.iter().skip(3).map(|(_, row)| row).collect();
    assert_eq!(deleted, [&json!({ "id": 1 }), &json!({ "code": 12 }), &json!({ "id": 3, "code": 13 })]);
}

#[tokio::test]
async fn a_column_stays_hidden_under_each_of_the_names_that_are_excluded() {
    let _turn = beside_others().await;
    let toml = "[tables.items]\nexclude = [\"secret\", \"hidden\"]\nmask = { mail = \"redact\" }\n";
    let setup = "create table items (id int primary key, secret text, mail text)";
    let mut lag = Lagging::with(setup, toml, KEYS).await;
    lag.meanwhile(&[
        "insert into items values (1, 's', 'm')",
        "alter table items rename secret to hidden",
        "alter table items drop mail",
        "insert into items values (2, 's')",
    ])
    .await;
    lag.expect(&[
        ("items.created", json!({ "id": 1, "mail": "[redacted]" })),
        ("items.created", json!({ "id": 2 })),
    ])
    .await;
}

#[tokio::test]
async fn a_frozen_sidecar_meets_the_changes_of_a_schema_in_their_order() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute("create table items (id int primary key, c0 text)").await;
    let run = Run::default().webhook("all", &receiver.url("/all"), KEYS);
    let sidecar = Sidecar::start(&database, run).await;
    sidecar.signal("STOP").await;
    // More than the socket's buffers hold, so that the server is blocked in the middle.
    let rounds = 30;
    for round in 1..=rounds {
        let (before, now) = (round - 1, round);
        database
            .execute(&format!(
                "insert into items values ({round}, repeat('x', 300000));
                 alter table items rename c{before} to c{now};"
            ))
            .await;
    }
    sidecar.signal("CONT").await;
    let mut requests = receiver.expect("/all", rounds).await;
    requests.sort_by(|one, other| one.id().cmp(other.id()));
    for (round, request) in requests.iter().enumerate() {
        let record = &request.json()["data"]["record"];
        let names: Vec<&String> = record.as_object().expect("a row").keys().collect();
        assert_eq!(names, ["id", &format!("c{round}")]);
        assert_eq!(record[format!("c{round}")].as_str().map(str::len), Some(300_000));
    }
}

#[tokio::test]
async fn a_webhook_that_names_a_dropped_table_is_refused_and_with_a_star_still_gets_its_rows() {
    let _turn = beside_others().await;
    let keys = "events = [\"items.created\"]";
    let mut lag = Lagging::with("create table items (id int primary key)", "", keys).await;
    lag.database.execute("insert into items values (1)").await;
    lag.database.execute("drop table items").await;
    lag.sidecar.spawn();
    assert!(!lag.sidecar.ended().await.success());
    let told = lag.sidecar.log_text();
    assert!(told.contains("no table makes an event") && told.contains("items.created"), "{told}");

    let url = lag.receiver.url("/all");
    lag.sidecar.next_run(|_| {
        let run = Run::default().webhook("all", &url, "events = [\"items.*\"]");
        run.expecting("no table makes an event").expecting("could be published")
    });
    lag.sidecar.write_own_file(&lag.database);
    lag.meanwhile(&[]).await;
    lag.expect(&[("items.created", json!({ "id": 1 }))]).await;
}
