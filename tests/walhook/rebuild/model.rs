//! Tables as a receiver would rebuild them from nothing but events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::Database;

type Row = BTreeMap<String, Value>;

#[derive(Debug)]
struct Table {
    columns: Vec<String>,
    /// What identifies a row whose old key was not sent.
    identity: &'static str,
    /// Whether the whole old row is sent.
    is_full: bool,
    rows: Vec<Row>,
}

/// All of them.
pub(super) struct Model {
    tables: BTreeMap<String, Table>,
}

fn row_of(value: &Value) -> Option<Row> {
    let object = value.as_object()?;
    Some(object.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

impl Model {
    pub fn new(tables: &[&str]) -> Self {
        let columns = ["id", "alt", "c0", "c1", "c2"].map(str::to_owned).to_vec();
        let empty = |name: &&str| {
            let columns = columns.clone();
            ((*name).to_owned(), Table { columns, identity: "id", is_full: false, rows: Vec::new() })
        };
        Self { tables: tables.iter().map(empty).collect() }
    }

    /// Applies an event, and gives what names its row, for those of a row.
    pub fn apply(&mut self, body: &Value) -> Option<String> {
        let data = &body["data"];
        let name = data["table"].as_str().expect("a name");
        if name == "ddl" {
            let record = &data["record"];
            let table = self.tables.get_mut(record["tbl"].as_str().expect("a name")).expect("a known table");
            table.alter(&record["what"]);
            return None;
        }
        let table = self.tables.get_mut(name).expect("a known table");
        let (new, old) = (row_of(&data["record"]), row_of(&data["old"]));
        let key = new
            .as_ref()
            .or(old.as_ref())
            .and_then(|row| row.get(table.identity))
            .map(|value| format!("{name} {}={value}", table.identity));
        match (data["operation"].as_str().expect("a word"), new, old) {
            ("insert", Some(new), None) => table.insert(new, data),
            ("update", Some(new), old) => table.update(new, old, data),
            ("delete", None, Some(old)) => {
                table.take(&old, body);
            }
            ("truncate", None, None) => table.rows.clear(),
            _ => panic!("an event of an unknown shape: {body}"),
        }
        key
    }

    /// Fails where the server holds something else.
    pub async fn compare(&self, database: &Database, name: &str) {
        let table = &self.tables[name];
        let columns = database
            .rows(
                "select attname::text from pg_attribute where attrelid = $1::text::regclass and attnum > 0 \
                   and not attisdropped order by attname",
                &[&name],
            )
            .await;
        let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
        let texts: Vec<String> = columns.iter().map(|name| format!("{name}::text")).collect();
        let query = format!("select id, array[{}] from {name} order by id", texts.join(", "));
        let there: Vec<Vec<Option<String>>> =
            database.rows(&query, &[]).await.iter().map(|row| row.get(1)).collect();
        let mut here: Vec<&Row> = table.rows.iter().collect();
        here.sort_by_key(|row| row["id"].as_i64());
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let mut own: Vec<String> = table.columns.clone();
        own.sort();
        assert_eq!(own, columns, "columns of {name}");
        let here: Vec<Vec<Option<String>>> =
            here.iter().map(|row| columns.iter().map(|name| text(&row[name])).collect()).collect();
        assert_eq!(here.len(), there.len(), "rows of {name}");
        for (here, there) in here.iter().zip(&there) {
            assert_eq!(here, there, "a row of {name}, {columns:?}");
        }
    }
}

impl Table {
    fn insert(&mut self, new: Row, data: &Value) {
        assert_eq!(data["unavailable"], json!([]), "a new row is whole");
        assert!(new.keys().eq(self.sorted().iter()), "columns of their time: {:?}, {data}", self.columns);
        self.rows.push(new);
    }

    fn update(&mut self, mut new: Row, old: Option<Row>, data: &Value) {
        let find = old.unwrap_or_else(|| {
            let key = new.get(self.identity).expect("the key").clone();
            Row::from([(self.identity.to_owned(), key)])
        });
        let before = self.take(&find, data);
        assert!(!self.is_full || data["unavailable"] == json!([]), "the old row has it: {data}");
        for name in data["unavailable"].as_array().expect("a list") {
            let name = name.as_str().expect("a name");
            let value = before.get(name).expect("a column of its time").clone();
            assert_eq!(new.insert(name.to_owned(), value), None, "unavailable and yet there");
        }
        assert!(new.keys().eq(self.sorted().iter()), "columns of their time: {:?}, {data}", self.columns);
        self.rows.push(new);
    }

    /// Takes out the row with these values.
    fn take(&mut self, find: &Row, event: &Value) -> Row {
        let fits = |row: &Row| find.iter().all(|(name, value)| row.get(name) == Some(value));
        let place = self.rows.iter().position(fits);
        let place = place.unwrap_or_else(|| panic!("no such row: {event}\n{:#?}", self.rows));
        self.rows.swap_remove(place)
    }

    fn sorted(&self) -> Vec<String> {
        let mut names = self.columns.clone();
        names.sort();
        names
    }

    fn alter(&mut self, what: &Value) {
        let name = |key: &str| what[key].as_str().map(str::to_owned);
        if let Some(added) = name("add") {
            for row in &mut self.rows {
                row.insert(added.clone(), what["value"].clone());
            }
            self.columns.push(added);
        } else if let Some(gone) = name("drop") {
            self.columns.retain(|column| *column != gone);
            self.rows.iter_mut().for_each(|row| drop(row.remove(&gone)));
        } else if let (Some(old), Some(new)) = (name("rename"), name("to")) {
            for row in &mut self.rows {
                let value = row.remove(&old).expect("a column");
                row.insert(new.clone(), value);
            }
            self.columns.retain(|column| *column != old);
            self.columns.push(new);
        } else if let (Some(column), Some(form)) = (name("retype"), name("form")) {
            for row in &mut self.rows {
                let value = row.get_mut(&column).expect("a column");
                *value = match (&*form, &*value) {
                    ("string", Value::Number(number)) => json!(number.to_string()),
                    ("longer", Value::String(text)) => json!(format!("{text}0")),
                    (_, value) => value.clone(),
                };
            }
        } else {
            self.identity = if what["identity"] == "index" { "alt" } else { "id" };
            self.is_full = what["identity"] == "full";
        }
    }
}
