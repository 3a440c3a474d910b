//! Values that no ordinary database can hold (text that is not UTF-8, nesting beyond all sense), and integers that no float can.

use super::{rows, string};
use crate::backfill::done;
use crate::support::{Database, Receiver, Run, Sidecar, beside_others};

async fn with_encoding(encoding: &str) -> Database {
    let mut database = Database::new().await;
    let name = database.name.clone();
    database
        .execute(&format!(
            "create database {name}_odd encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0"
        ))
        .await;
    let (server, _) = database.url.rsplit_once('/').expect("a path");
    database.url = format!("{server}/{name}_odd");
    database.name = format!("{name}_odd");
    database.reconnect().await;
    database
}

#[tokio::test]
async fn a_database_in_another_encoding_is_sent_as_utf_8() {
    let _turn = beside_others().await;
    let (database, receiver) = (with_encoding("LATIN1").await, Receiver::start().await);
    database.execute("create table words (id int primary key, v text, a text[])").await;
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"words.*\"]");
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into words values (1, 'Käse', '{ß,\"é\"}')").await;
    let row = &rows(&receiver, "/all", 1).await[&("words".to_owned(), 1)];
    assert_eq!((row["v"].get(), row["a"].get()), ("\"Käse\"", "[\"ß\",\"é\"]"));
}

#[tokio::test]
async fn bytes_that_are_no_text_in_any_encoding_are_replaced_and_counted_and_stop_nothing() {
    let _turn = beside_others().await;
    let (database, receiver) = (with_encoding("SQL_ASCII").await, Receiver::start().await);
    database.execute("create table words (id int primary key, v text, a text[], j json)").await;
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"words.*\"]");
    let sidecar = Sidecar::start(&database, run).await;
    database
        .execute(
            r#"insert into words values (1, E'a\377b', array[E'\303', 'x'], E'"\377"'), (2, 'plain', '{}', '1')"#,
        )
        .await;
    let came = rows(&receiver, "/all", 2).await;
    let row = &came[&("words".to_owned(), 1)];
    assert_eq!(row["v"].get(), "\"a\u{fffd}b\"");
    assert_eq!(row["a"].get(), "[\"\u{fffd}\",\"x\"]");
    assert_eq!(row["j"].get(), string("\"\u{fffd}\""));
    assert_eq!(came[&("words".to_owned(), 2)]["v"].get(), "\"plain\"");
    let metrics = sidecar.page("/metrics").await;
    assert!(metrics.lines().any(|line| line == "walhook_values_as_text_total 3"), "{metrics}");
}

#[tokio::test]
async fn a_character_that_has_no_utf_8_is_replaced_and_counted_and_stops_nothing() {
    let _turn = beside_others().await;
    let (database, receiver) = (with_encoding("WIN1252").await, Receiver::start().await);
    database
        .execute("create table \"wörter\" (id int primary key, \"größe\" text, a text[], j json, b bytea)")
        .await;
    let run = Run::default()
        .webhook("all", &receiver.url("/all"), "events = [\"wörter.*\"]")
        .expecting("the replication stream is down")
        .expecting("has no place in UTF-8");
    let mut sidecar = Sidecar::start(&database, run).await;
    for (id, odd) in [(1, ""), (2, "|| chr(129)"), (3, ""), (4, "|| chr(157)")] {
        database
            .execute(&format!(
                "insert into \"wörter\" values ({id}, 'Käse €' {odd}, array['ß' {odd}, 'x'], '\"é\"', 'Ö')"
            ))
            .await;
    }
    database.execute("update \"wörter\" set \"größe\" = 'ü' where id = 3").await;
    let came = rows(&receiver, "/all", 5).await;
    for (id, odd) in [(1, ""), (2, "\u{fffd}"), (4, "\u{fffd}")] {
        let row = &came[&("wörter".to_owned(), id)];
        assert_eq!(row["größe"].get(), format!("\"Käse €{odd}\""));
        assert_eq!((row["a"].get(), row["j"].get()), (&*format!("[\"ß{odd}\",\"x\"]"), "\"é\""));
    }
    let metrics = sidecar.page("/metrics").await;
    assert!(metrics.lines().any(|line| line == "walhook_values_as_text_total 4"), "{metrics}");
    // A start while it is in the log passes it, too.
    sidecar.terminate().await;
    database.execute("insert into \"wörter\" values (5, 'é' || chr(141), '{}', '1', '')").await;
    sidecar.spawn();
    let last = rows(&receiver, "/all", 6).await;
    assert_eq!(last[&("wörter".to_owned(), 5)]["größe"].get(), "\"é\u{fffd}\"");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_character_of_several_bytes_that_has_no_utf_8_costs_other_rows_nothing() {
    let _turn = beside_others().await;
    let (database, receiver) = (with_encoding("EUC_JP").await, Receiver::start().await);
    database.execute("create table words (id int primary key, v text)").await;
    let run = Run::default()
        .webhook("all", &receiver.url("/all"), "events = [\"words.*\"]")
        .expecting("the replication stream is down")
        .expecting("has no place in UTF-8");
    let mut sidecar = Sidecar::start(&database, run).await;
    let odd = "convert_from('\\xfefe', 'EUC_JP')";
    database.execute("insert into words values (1, 'かな')").await;
    database.execute(&format!("insert into words values (2, 'ab' || {odd} || 'c')")).await;
    let came = rows(&receiver, "/all", 2).await;
    assert_eq!(came[&("words".to_owned(), 1)]["v"].get(), "\"かな\"");
    let replaced = came[&("words".to_owned(), 2)]["v"].get().to_owned();
    assert!(replaced.starts_with("\"ab\u{fffd}") && replaced.ends_with("c\""), "{replaced}");
    sidecar.logged("by the server again").await;
    database.execute("insert into words values (3, 'かな')").await;
    assert_eq!(rows(&receiver, "/all", 3).await[&("words".to_owned(), 3)]["v"].get(), "\"かな\"");
    sidecar.stop().await;
}

#[tokio::test]
async fn json_deeper_than_is_followed_goes_out_as_its_text() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute("create table deep (id int primary key, j json, b jsonb)").await;
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"deep.*\"]");
    let _sidecar = Sidecar::start(&database, run).await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (id, depth) in [(1, 60), (2, 1000)] {
        let json = nested(depth);
        database.execute(&format!("insert into deep values ({id}, '{json}', '{json}')")).await;
    }
    let came = rows(&receiver, "/all", 2).await;
    let (shallow, deep) = (&came[&("deep".to_owned(), 1)], &came[&("deep".to_owned(), 2)]);
    assert_eq!((shallow["j"].get(), shallow["b"].get()), (&*nested(60), &*nested(60)));
    assert_eq!((deep["j"].get(), deep["b"].get()), (&*string(&nested(1000)), &*string(&nested(1000))));
}

#[tokio::test]
async fn a_type_named_like_an_array_goes_out_as_its_text() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute("create type _mood as enum ('sad'); create table moods (id int primary key, m _mood)")
        .await;
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"moods.*\"]");
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into moods values (1, 'sad')").await;
    assert_eq!(rows(&receiver, "/all", 1).await[&("moods".to_owned(), 1)]["m"].get(), "\"sad\"");
}

/// What stands in a row of `words` that a backfill has sent, for each text that was put into one.
async fn backfilled(encoding: &str, texts: &[(&str, &str)]) {
    let (database, receiver) = (with_encoding(encoding).await, Receiver::start().await);
    database.execute("create table words (id int, place text, v text, primary key (id, place))").await;
    for (id, (text, _)) in texts.iter().enumerate() {
        database.execute(&format!("insert into words values ({id}, 'a' || {id}, {text})")).await;
    }
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"words.*\"]");
    let mut sidecar = Sidecar::start(&database, run).await;
    let said = done(&sidecar, &["backfill", "all", "--table", "words"]).await;
    let count = texts.len();
    assert!(said.contains(&format!("is done, {count} rows, {count} deliveries")), "{encoding}: {said}");
    let came = rows(&receiver, "/all", count).await;
    for (id, (_, expect)) in (0..).zip(texts) {
        let row = &came[&("words".to_owned(), id)];
        assert_eq!(row["v"].get(), format!("\"{expect}\""), "{encoding}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn existing_rows_with_text_that_has_no_utf_8_are_sent_with_only_that_replaced() {
    let _turn = beside_others().await;
    let plain = ("'plain'", "plain");
    let long = "ä".repeat(9000);
    let (text, expect) =
        ("repeat('ä', 9000) || chr(129) || repeat('ä', 9000)", format!("{long}\u{fffd}{long}"));
    let odd = [plain, ("'Käse €' || chr(129) || 'é'", "Käse €\u{fffd}é"), ("'ß'", "ß"), (text, &*expect)];
    backfilled("WIN1252", &odd).await;
    let two = "convert_from('\\xfefe', 'EUC_JP')";
    let odd = [("'かな'".to_owned(), "かな"), (format!("'か' || {two} || 'な'"), "か\u{fffd}な")];
    backfilled("EUC_JP", &odd.each_ref().map(|(text, expect)| (&**text, *expect))).await;
    backfilled("SQL_ASCII", &[plain, ("E'a\\377b\\303\\251'", "a\u{fffd}bé")]).await;
}

#[tokio::test]
async fn long_integers_are_strings_where_that_is_asked_for_and_conditions_compare_numbers() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    let columns = "(id int primary key, big int8, many int8[], own large, small int4)";
    database
        .execute(&format!(
            "create domain large as int8; create table strings {columns}; create table numbers {columns}"
        ))
        .await;
    let toml = "[delivery]\nint8 = \"string\"\n[tables.numbers]\nint8 = \"number\"\n";
    let keys = "events = [\"strings.*\", \"numbers.*\"]\nfilter = \"record.big > 9007199254740992\"";
    let run = Run::with(toml).webhook("all", &receiver.url("/all"), keys);
    let mut sidecar = Sidecar::start(&database, run).await;
    for table in ["strings", "numbers"] {
        database
            .execute(&format!(
                "insert into {table} values (1, 9007199254740993, '{{9007199254740993,null,-1}}', 4, 5), (2, 9, '{{}}', 1, 1)"
            ))
            .await;
    }
    let came = rows(&receiver, "/all", 2).await;
    let of = |table: &str, column: &str| came[&(table.to_owned(), 1)][column].get().to_owned();
    for (column, string, number) in [
        ("big", "\"9007199254740993\"", "9007199254740993"),
        ("many", "[\"9007199254740993\",null,\"-1\"]", "[9007199254740993,null,-1]"),
        ("own", "\"4\"", "4"),
        ("small", "5", "5"),
    ] {
        assert_eq!((&*of("strings", column), &*of("numbers", column)), (string, number), "{column}");
    }
    // An existing row looks the same.
    done(&sidecar, &["backfill", "all", "--table", "strings"]).await;
    let again = receiver.expect("/all", 3).await;
    assert_eq!(again[2].column("big"), "9007199254740993");
    sidecar.stop().await;
}
