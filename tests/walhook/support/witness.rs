//! Knows what was committed, and judges what arrived.
//!
//! The tables write a journal of their own changes, by trigger and so in the same transaction: what the journal
//! holds *is* what was committed, whatever crashed in between, and rolled-back changes are not in it. Every insert
//! and update gives its row a fresh `mark`, so that an event can be told from every other; a delete is known by the
//! mark of the row that it removed.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::{Database, Request};

/// One committed change: table, operation, row, mark.
type Change = (String, String, i64, i64);

/// Makes the journal and `tables` in a database; each has a whole old row, so that deletes show their mark.
pub async fn create_tables(database: &Database, tables: &[&str]) {
    let mut text = String::from(
        "create sequence marks;
         create table journal (n bigserial primary key, tbl text, op text, id int8, mark int8);
         create function write_journal() returns trigger language plpgsql as $$
         begin
           insert into journal (tbl, op, id, mark) values (tg_table_name, lower(tg_op),
             case when tg_op = 'DELETE' then old.id else new.id end,
             case when tg_op = 'DELETE' then old.mark else new.mark end);
           return null;
         end $$;",
    );
    for table in tables {
        write!(
            text,
            "create table {table} (id int8 primary key, mark int8 not null default nextval('marks'), filler text);
             alter table {table} replica identity full;
             create trigger journal after insert or update or delete on {table}
               for each row execute function write_journal();"
        )
        .expect("text grows");
    }
    database.execute(&text).await;
}

/// A random statement on a table; rows are few, so keys are used again.
pub fn statement(dice: &mut fastrand::Rng, table: &str, rows: i64) -> String {
    let id = dice.i64(1..=rows);
    let filler = if dice.u8(..) < 8 { "repeat(md5(random()::text), 200)" } else { "'x'" };
    match dice.u8(0..10) {
        0..4 => format!(
            "insert into {table} (id, filler) values ({id}, {filler}) on conflict (id) do update set \
             mark = nextval('marks'), filler = excluded.filler;"
        ),
        4..8 => format!("update {table} set mark = nextval('marks') where id = {id};"),
        _ => format!("delete from {table} where id = {id};"),
    }
}

/// A random transaction: a few statements, sometimes with a savepoint that is undone, sometimes undone as a whole.
pub fn transaction(dice: &mut fastrand::Rng, tables: &[&str], rows: i64) -> String {
    let mut text = String::from("begin;");
    for _ in 0..dice.u8(1..=4) {
        let one = |dice: &mut fastrand::Rng| {
            let table = tables[dice.usize(..tables.len())];
            statement(dice, table, rows)
        };
        if dice.u8(0..10) == 0 {
            write!(text, "savepoint s; {} rollback to s;", one(dice)).expect("text grows");
        } else {
            text.push_str(&one(dice));
        }
    }
    text.push_str(if dice.u8(0..8) == 0 { "rollback;" } else { "commit;" });
    text
}

/// What was committed, in an order that is each row's commit order.
pub async fn committed(database: &Database) -> Vec<Change> {
    let rows = database.rows("select tbl, op, id, mark from journal order by n", &[]).await;
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

fn change_of(request: &Request) -> Change {
    let body = request.json();
    let text = |name: &str| body["data"][name].as_str().expect("text").to_owned();
    let number = |name: &str| request.column(name).as_i64().expect("a number");
    (text("table"), text("operation"), number("id"), number("mark"))
}

/// How many of the committed changes were accepted.
pub fn accepted(requests: &[Request]) -> usize {
    let ids: HashSet<&str> = requests.iter().filter(|r| r.accepted).map(Request::id).collect();
    ids.len()
}

/// Judges one webhook's requests against what was committed to its tables: all of it arrived, nothing else did, ids
/// and bytes are stable, and no change was sent before the earlier ones of its row were accepted.
pub fn judge(committed: &[Change], requests: &[Request]) {
    let known: HashSet<&Change> = committed.iter().collect();
    assert_eq!(known.len(), committed.len(), "a change that looks like another: the test's own fault");
    let mut rows: HashMap<(&str, i64), Vec<&Change>> = HashMap::new();
    for change in committed {
        rows.entry((&change.0, change.2)).or_default().push(change);
    }
    let mut id_of: HashMap<Change, &str> = HashMap::new();
    let mut first_of: HashMap<&str, &Request> = HashMap::new();
    let mut ended: HashMap<(String, i64), usize> = HashMap::new();
    for request in requests {
        let change = change_of(request);
        assert!(known.contains(&change), "never committed, but sent: {change:?}");
        let first = *first_of.entry(request.id()).or_insert(request);
        assert_eq!(first.body, request.body, "{} changed its bytes", request.id());
        let id = *id_of.entry(change.clone()).or_insert(request.id());
        assert_eq!(id, request.id(), "two ids for {change:?}");

        let row = &rows[&(change.0.as_str(), change.2)];
        let place = row.iter().position(|one| **one == change).expect("it is known");
        let done = ended.entry((change.0.clone(), change.2)).or_default();
        assert!(place <= *done, "{change:?} overtook {:?} (attempt {})", row[*done], request.nth);
        if request.accepted && place == *done {
            *done += 1;
        }
    }
    assert_eq!(first_of.len(), id_of.len(), "one id for two changes");
    let lost: Vec<&Change> = committed.iter().filter(|change| !id_of.contains_key(*change)).collect();
    assert!(lost.is_empty(), "committed, but never sent: {lost:?}");
    let unfinished: Vec<_> = rows
        .iter()
        .filter(|((table, id), row)| ended.get(&((*table).to_owned(), *id)).copied().unwrap_or(0) < row.len())
        .collect();
    assert!(unfinished.is_empty(), "sent, but never accepted: {unfinished:?}");
}
