//! The matrix: every value of the files in every form.

use std::fmt::Write;

use super::{CUSTOM, Expected, NO_VALUES, PINNED, Subject, create_extensions, rows, string, subjects};
use crate::support::{Database, Receiver, Run, Sidecar, beside_others};

/// Contrib extensions that come with every server package.
const INSISTED_ON: [&str; 4] = ["citext", "hstore", "ltree", "uuid-ossp"];

/// Every setting that changes the text of a value, or stops a session that is slow, turned against us.
const HOSTILE: [(&str, &str); 12] = [
    ("datestyle", "'SQL, DMY'"),
    ("intervalstyle", "postgres_verbose"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("timezone", "'Asia/Kolkata'"),
    ("client_encoding", "latin1"),
    ("search_path", "public, types"),
    ("quote_all_identifiers", "on"),
    ("statement_timeout", "1"),
    ("idle_session_timeout", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("default_transaction_read_only", "on"),
];

/// What the catalog says of a subject.
struct Known {
    /// Whether it is an array: then an array of it is the same type.
    is_array: bool,
    /// Whether it has an array type.
    has_array: bool,
    /// Whether it is a domain: what the elements of its array are is not announced in the stream, so they keep their text.
    is_domain: bool,
}

async fn known(database: &Database, subject: &Subject) -> Known {
    let query = "select typarray <> 0, exists (select from pg_catalog.pg_type e where e.typarray = t.oid) \
                 or exists (select from pg_catalog.pg_type e where e.typarray = t.typbasetype), \
                 typtype = 'd' from pg_catalog.pg_type t where t.oid = to_regtype($1)::oid";
    let found = database.rows(query, &[&subject.name]).await;
    let row = found.first().unwrap_or_else(|| panic!("the server does not know the type {}", subject.name));
    Known { has_array: row.get(0), is_array: row.get(1), is_domain: row.get(2) }
}

/// The table of the subject with this number.
fn create_table(number: usize, subject: &Subject, known: &Known) -> String {
    let name = &subject.name;
    let mut text = format!(
        "create domain types.d{number} as {name};
         create domain types.dd{number} as types.d{number};
         create type types.c{number} as (f {name}, g text);
         create table types.m{number} (id int primary key, v {name}, d types.d{number}, dd types.dd{number},
           c types.c{number}, ca types.c{number}[]);"
    );
    if known.has_array && !known.is_array {
        write!(
            text,
            "create domain types.da{number} as {name}[];
             alter table types.m{number} add a {name}[], add n {name}[][], add da types.da{number},
               add ad types.d{number}[];"
        )
        .expect("text grows");
    }
    text
}

fn insert(number: usize, id: usize, subject: &Subject, known: &Known, sql: &str) -> String {
    let name = &subject.name;
    let arrays = if !known.has_array || known.is_array {
        String::new()
    } else if name.ends_with("vector") && name != "tsvector" && name != "vector" {
        // An array constructor takes these for arrays of their elements.
        let one = format!("array[x::text, null]::{name}[]");
        let two = format!("array[array[x::text, null], array[null, x::text]]::{name}[]");
        format!(", {one}, {two}, {one}, {one}::types.d{number}[]")
    } else {
        let one = "array[x, null]";
        format!(", {one}, array[{one}, array[null, x]], {one}, array[x::types.d{number}, null]")
    };
    format!(
        "insert into types.m{number} select {id}, x, x, x, row(x, null)::types.c{number},
         array[row(x, null)::types.c{number}, null] {arrays} from (select ({sql})::{name} as x) s;"
    )
}

/// Column by column, what the row with this value must arrive as.
fn expectation(
    known: &Known,
    expected: &Expected,
    text: &str,
    composite: &str,
) -> Vec<(&'static str, String)> {
    let one = match expected {
        Expected::Json(json) => json.clone(),
        Expected::Text => string(text),
        Expected::Verbatim => text.to_owned(),
    };
    let mut all = vec![
        ("c", string(composite)),
        ("ca", format!("[{},null]", string(composite))),
        ("v", one.clone()),
        ("d", one.clone()),
        ("dd", one.clone()),
    ];
    if known.has_array && !known.is_array {
        let element = if known.is_domain { string(text) } else { one };
        all.push(("a", format!("[{element},null]")));
        all.push(("n", format!("[[{element},null],[null,{element}]]")));
        all.push(("da", format!("[{element},null]")));
        all.push(("ad", format!("[{},null]", string(text))));
    }
    all
}

async fn run_matrix(database: &Database) {
    let receiver = Receiver::start().await;
    let extensions = create_extensions(database).await;
    for name in INSISTED_ON {
        assert!(extensions.iter().any(|made| made == name), "{name} comes with every server");
    }
    database.execute(CUSTOM).await;
    database.execute("create schema types").await;
    let subjects: Vec<Subject> = subjects()
        .into_iter()
        .filter(|subject| subject.extension.as_ref().is_none_or(|name| extensions.contains(name)))
        .collect();
    let mut facts = Vec::new();
    for (number, subject) in subjects.iter().enumerate() {
        let known = known(database, subject).await;
        database.execute(&create_table(number, subject, &known)).await;
        facts.push(known);
    }
    let run = Run::default().webhook("all", &receiver.url("/all"), "events = [\"types.*.created\"]");
    let sidecar = Sidecar::start(database, run).await;

    let mut count = 0;
    for (number, (subject, known)) in subjects.iter().zip(&facts).enumerate() {
        for (id, (sql, _)) in subject.values.iter().enumerate() {
            database.execute(&insert(number, id, subject, known, sql)).await;
            count += 1;
        }
    }
    let arrived = rows(&receiver, "/all", count).await;
    database.execute(PINNED).await;
    let mut wrong = Vec::new();
    for (number, (subject, known)) in subjects.iter().zip(&facts).enumerate() {
        // `format` asks the type's output function; a cast to text would change some.
        let query = format!("select format('%s', v), format('%s', c) from types.m{number} order by id");
        let texts = database.rows(&query, &[]).await;
        for (id, ((sql, expected), row)) in subject.values.iter().zip(&texts).enumerate() {
            let came = &arrived[&(format!("m{number}"), i64::try_from(id).expect("small"))];
            for (column, json) in expectation(known, expected, row.get(0), row.get(1)) {
                let got = came[column].get();
                // Space around a value is not part of it.
                if got != json.trim() {
                    wrong.push(format!("{} {column} of {sql}: {got} instead of {json}", subject.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} values arrived in another form:\n{}", wrong.len(), wrong.join("\n"));
    let metrics = sidecar.page("/metrics").await;
    let as_text = metrics.lines().find(|line| line.starts_with("walhook_values_as_text_total"));
    assert_eq!(as_text.map_or("0", |line| line.rsplit(' ').next().expect("a number")), "0");
    println!("{count} values of {} types", subjects.len());
}

#[tokio::test]
async fn every_value_of_every_type_arrives_in_the_form_of_its_type() {
    let _turn = beside_others().await;
    run_matrix(&Database::new().await).await;
}

#[tokio::test]
async fn settings_of_the_role_and_the_database_change_no_value() {
    let _turn = beside_others().await;
    let database = Database::new().await;
    for (name, value) in HOSTILE {
        let target = format!("database {}", database.name);
        let whose = if name.len() % 2 == 0 { target } else { format!("role postgres in {target}") };
        database.execute(&format!("alter {whose} set {name} = {value}")).await;
    }
    run_matrix(&database).await;
}

#[tokio::test]
async fn no_type_of_the_server_is_missing_from_the_matrix() {
    let _turn = beside_others().await;
    let database = Database::new().await;
    let covered: Vec<String> = subjects()
        .into_iter()
        .filter(|subject| subject.extension.is_none() && !subject.values.is_empty())
        .map(|subject| subject.name)
        .chain(NO_VALUES.map(str::to_owned))
        .collect();
    // Pseudo-types cannot be a column's; composites of the catalog are its own rows; the matrix makes the arrays.
    let query = "
        select t.typname::text from pg_catalog.pg_type t
        where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype not in ('p', 'c')
          and not exists (select from pg_catalog.pg_type e where e.typarray = t.oid)
          and t.oid <> all (select coalesce(to_regtype(name)::oid, 0) from unnest($1::text[]) name)
        order by 1";
    let missing: Vec<String> = database.rows(query, &[&covered]).await.iter().map(|row| row.get(0)).collect();
    assert!(missing.is_empty(), "in no .values file: {missing:?}");
}
