//! Every type that the server has, through the whole path: from a row of a real server to the JSON in a receiver's hands.
//!
//! The `.values` files name types, values and the JSON that each becomes; the matrix puts every value into every form
//! that its type allows: plain, domain, domain over domain, array, nested array, domain over array, array of a
//! domain, composite, array of composites. A type of the system catalog that is in no file and not among those of
//! which no value can be stored fails the test, so a newer server cannot bring one unseen.

mod matrix;
mod odd_corners;
mod random;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{Database, Receiver, Request};

const FILES: [&str; 3] =
    [include_str!("builtin.values"), include_str!("custom.values"), include_str!("contrib.values")];

/// What the types of `custom.values` are made by.
pub(crate) const CUSTOM: &str = include_str!("custom.sql");

/// Types of which no value can be made by a statement.
const NO_VALUES: [&str; 3] = ["gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"];

/// The settings that walhook pins, for the test's own look at the texts.
pub(crate) const PINNED: &str =
    "set datestyle = 'ISO'; set intervalstyle = 'iso_8601'; set bytea_output = 'hex';
    set extra_float_digits = 3; set timezone = 'UTC'; set search_path = 'pg_catalog';";

/// What a value becomes.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// This JSON.
    Json(String),
    /// A string of the server's text.
    Text,
    /// The server's text itself, which is JSON.
    Verbatim,
}

/// A type and its values.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// The extension that brings it.
    pub(crate) extension: Option<String>,
    /// SQL expressions, and what becomes of them.
    pub(crate) values: Vec<(String, Expected)>,
}

pub(crate) fn subjects() -> Vec<Subject> {
    let mut all: Vec<Subject> = Vec::new();
    for file in FILES {
        let mut extension = None;
        for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(value) = line.strip_prefix("  ") {
                all.last_mut().expect("a type before its values").values.push(value_of(value));
            } else if let Some(name) = line.strip_prefix('@') {
                extension = Some(name.to_owned());
            } else {
                let name = line.to_owned();
                all.push(Subject { name, extension: extension.clone(), values: Vec::new() });
            }
        }
    }
    all
}

fn value_of(line: &str) -> (String, Expected) {
    match line.split_once(" ~> ") {
        Some((sql, "*")) => (sql.to_owned(), Expected::Text),
        Some((sql, "=")) => (sql.to_owned(), Expected::Verbatim),
        Some((sql, json)) => (sql.to_owned(), Expected::Json(json.to_owned())),
        None => (format!("'{}'", line.replace('\'', "''")), Expected::Json(string(line))),
    }
}

/// A JSON string.
fn string(text: &str) -> String {
    serde_json::to_string(text).expect("text")
}

/// A row as it arrived: columns with the bytes of their JSON.
type Arrived = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    table: String,
    record: Arrived,
}

/// The table and row of a request, no value of it read into anything.
fn arrived(request: &Request) -> (String, Arrived) {
    let body: Body = serde_json::from_slice(&request.body).expect("a JSON body");
    (body.data.table, body.data.record)
}

/// Everything that came on a path, by table and id.
async fn rows(receiver: &Receiver, path: &str, count: usize) -> BTreeMap<(String, i64), Arrived> {
    let requests = receiver.expect(path, count).await;
    let keyed = requests.iter().map(|request| {
        let (table, row) = arrived(request);
        let id = row["id"].get().parse().expect("a number");
        ((table, id), row)
    });
    keyed.collect()
}

/// The extensions of the files that this server offers, made; the others are named on the output.
pub(crate) async fn create_extensions(database: &Database) -> Vec<String> {
    let mut made = Vec::new();
    let mut named: Vec<String> = subjects().into_iter().filter_map(|subject| subject.extension).collect();
    named.dedup();
    for name in named {
        let known = "select 1 from pg_catalog.pg_available_extensions where name = $1";
        if database.rows(known, &[&name]).await.is_empty() {
            println!("skipped: the server does not offer the extension {name}");
            continue;
        }
        database.execute(&format!("create extension \"{name}\" schema public")).await;
        made.push(name);
    }
    made
}
