//! What tells the rows of a backfilled table apart, and sorts them: every row arrives once, whatever its key is made of.

use std::collections::HashSet;

use crate::backfill::{LONG, done, refused};
use crate::rights::restricted;
use crate::support::{Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually};

const ALL: &str = "events = [\"*\"]\nconcurrency = 64";

fn records(requests: &[Request], column: &str) -> HashSet<String> {
    requests.iter().filter(|r| r.accepted).map(|r| r.column(column).to_string()).collect()
}

/// Rows that move between partitions keep their lanes by a column that not every row has.
#[tokio::test]
async fn rows_without_a_value_where_moves_are_folded_and_one_too_large_arrive_once_and_the_backfill_ends() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table parcels (id int8, place text, code text, note text, primary key (id, place))
                 partition by list (place);
             create table parcels_here partition of parcels for values in ('here');
             create table parcels_rest partition of parcels default;
             alter table parcels replica identity full;
             alter table parcels_here replica identity full;
             alter table parcels_rest replica identity full;
             insert into parcels select i, 'here', case when i % 3 > 0 then 'c' || i end, null
                 from generate_series(1, 620) i;
             insert into parcels values (621, 'there', 'c621', repeat('x', 17000000))",
        )
        .await;
    let run = Run::with("[tables.parcels]\nfold_moves = [\"code\"]\n")
        .webhook("all", &receiver.url("/all"), ALL)
        .expecting("gave deliveries up");
    let mut sidecar = Sidecar::start(&database, run).await;
    let said = done(&sidecar, &["backfill", "all", "--table", "parcels"]).await;
    assert!(said.contains("is done, 621 rows, 621 deliveries"), "{said}");
    let accepted = |rs: &[Request]| rs.iter().filter(|r| r.accepted).count();
    let requests = receiver.wait("/all", "all rows", LONG, |rs| accepted(rs) >= 620).await;
    assert_eq!((accepted(&requests), records(&requests, "id").len()), (620, 620));
    let failed = "select count(*) from walhook.deliveries where status = 'failed' and operation = 'snapshot'";
    eventually("a dead letter", PATIENCE, async || database.number(failed).await == 1).await;
    sidecar.stop().await;
}

/// As case is ignored, the order by the type is another than the order by its text.
#[tokio::test]
async fn a_key_whose_operators_are_in_a_schema_of_their_own_is_compared_as_it_is_sorted() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create schema \"Ext\"; create extension citext schema \"Ext\"; create schema app;
             create domain app.word as \"Ext\".citext;
             create table app.words (word \"Ext\".citext, n int, primary key (n, word));
             create table app.names (name app.word primary key);
             insert into app.words
                 select case when i % 2 = 0 then upper(md5(i::text)) else md5(i::text) end, i / 600
                 from generate_series(1, 1200) i;
             insert into app.names select word from app.words;",
        )
        .await;
    let run = Run::default().webhook("all", &receiver.url("/all"), ALL);
    let mut sidecar = Sidecar::start(&database, run).await;
    for (table, column) in [("app.words", "word"), ("app.names", "name")] {
        let said = done(&sidecar, &["backfill", "all", "--table", table]).await;
        assert!(said.contains("is done, 1200 rows, 1200 deliveries"), "{table}: {said}");
        let requests = receiver.wait("/all", table, LONG, |rs| records(rs, column).len() >= 1200).await;
        assert!(requests.iter().all(|request| request.accepted));
    }
    assert_eq!(receiver.requests("/all").len(), 2400);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_key_whose_operators_the_role_may_not_use_is_refused_with_the_remedy() {
    let _turn = beside_others().await;
    let (database, role) = restricted().await;
    let receiver = Receiver::start().await;
    database
        .execute(&format!(
            "create schema ext; create extension citext schema ext; create domain word as ext.citext;
             create table words (word word primary key); insert into words values ('a'), ('B'), ('c');
             alter table words owner to {role}",
        ))
        .await;
    let run = Run::default().webhook("all", &receiver.url("/all"), ALL);
    let mut sidecar = Sidecar::start(&database, run).await;
    let backfill = ["backfill", "all", "--table", "words"];
    refused(&sidecar, &backfill, 1, "GRANT USAGE ON SCHEMA \"ext\"").await;
    database.execute(&format!("grant usage on schema ext to {role}")).await;
    let said = done(&sidecar, &backfill).await;
    assert!(said.contains("is done, 3 rows, 3 deliveries"), "{said}");
    sidecar.stop().await;
}
