//! Random transactions that are always valid, because the generator knows the shape of every table as it goes.

use std::fmt::Write;

use serde_json::{Value, json};

/// Keys are few, so that they are used again.
const KEYS: i64 = 25;
/// Columns a table has beside its keys, at most.
const COLUMNS: usize = 7;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int4,
    Int8,
    /// `numeric(14, N)`.
    Numeric(usize),
    Text,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
struct Table {
    name: &'static str,
    columns: Vec<Column>,
    /// Whether updates can be published just now.
    updatable: bool,
    made: u32,
}

/// Makes the statements.
pub(crate) struct Generator {
    dice: fastrand::Rng,
    tables: Vec<Table>,
}

impl Kind {
    fn sql(self) -> String {
        match self {
            Self::Int4 => "int4".to_owned(),
            Self::Int8 => "int8".to_owned(),
            Self::Numeric(scale) => format!("numeric(14,{scale})"),
            Self::Text => "text".to_owned(),
        }
    }

    /// A value as SQL and as the JSON that it becomes.
    fn value(self, dice: &mut fastrand::Rng) -> (String, Value) {
        match self {
            Self::Int4 => {
                let number = dice.i32(..);
                (number.to_string(), json!(number))
            }
            Self::Int8 => {
                let number = dice.i64(i64::MIN + 1..);
                (number.to_string(), json!(number))
            }
            Self::Numeric(scale) => {
                let text = format!("{}.{:0scale$}", dice.i32(1..100_000), dice.u32(0..10));
                (text.clone(), json!(text))
            }
            Self::Text => {
                // Every third is so large that it is stored outside of its row.
                let letter = dice.alphabetic();
                let text = if dice.u8(0..3) == 0 {
                    letter.to_string().repeat(2500)
                } else {
                    format!("{letter}\"é\\")
                };
                (format!("'{text}'"), json!(text))
            }
        }
    }
}

impl Generator {
    pub fn new(dice: fastrand::Rng, names: &[&'static str]) -> Self {
        let kinds = [Kind::Int4, Kind::Numeric(2), Kind::Text];
        let columns = kinds.into_iter().enumerate();
        let columns: Vec<_> = columns.map(|(n, kind)| Column { name: format!("c{n}"), kind }).collect();
        let table = |name: &&'static str| Table { name, columns: columns.clone(), updatable: true, made: 3 };
        Self { dice, tables: names.iter().map(table).collect() }
    }

    /// How long to rest before the next one.
    pub fn pause_ms(&mut self) -> u64 {
        self.dice.u64(0..25)
    }

    /// A transaction; some are undone as a whole, some in part.
    pub fn transaction(&mut self) -> String {
        let mut text = String::from("begin;\n");
        let before = self.tables.clone();
        for _ in 0..self.dice.u8(1..=5) {
            if self.dice.u8(0..10) == 0 {
                let kept = self.tables.clone();
                text.push_str("savepoint s;\n");
                for _ in 0..self.dice.u8(1..=3) {
                    self.step(&mut text);
                }
                if self.dice.bool() {
                    text.push_str("rollback to s;\n");
                    self.tables = kept;
                }
                text.push_str("release s;\n");
            } else {
                self.step(&mut text);
            }
        }
        if self.dice.u8(0..10) == 0 {
            self.tables = before;
            text.push_str("rollback");
        } else {
            text.push_str("commit");
        }
        text
    }

    fn step(&mut self, text: &mut String) {
        let at = self.dice.usize(..self.tables.len());
        match self.dice.u8(0..100) {
            0..35 => self.insert(at, text),
            35..60 => self.update(at, text),
            60..68 => self.change_key(at, text),
            68..80 => self.delete(at, text),
            80..82 => self.truncate(at, text),
            82..97 => self.alter(at, text),
            _ => self.without_identity(at, text),
        }
    }

    fn insert(&mut self, at: usize, text: &mut String) {
        let table = &self.tables[at];
        let (mut names, mut values) = (String::new(), String::new());
        for column in &table.columns {
            if self.dice.u8(0..5) > 0 {
                write!(names, ", {}", column.name).expect("text grows");
                write!(values, ", {}", column.kind.value(&mut self.dice).0).expect("text grows");
            }
        }
        let id = self.dice.i64(0..KEYS);
        writeln!(
            text,
            "insert into {} (id, alt{names}) values ({id}, nextval('alts'){values}) on conflict do nothing;",
            table.name
        )
        .expect("text grows");
    }

    fn update(&mut self, at: usize, text: &mut String) {
        let table = &self.tables[at];
        if table.columns.is_empty() || !table.updatable {
            return;
        }
        let column = &table.columns[self.dice.usize(..table.columns.len())];
        let value =
            if self.dice.u8(0..6) == 0 { "null".to_owned() } else { column.kind.value(&mut self.dice).0 };
        let whom = if self.dice.u8(0..6) == 0 {
            format!("id % 5 = {}", self.dice.u8(0..5))
        } else {
            format!("id = {}", self.dice.i64(0..KEYS))
        };
        writeln!(text, "update {} set {} = {value} where {whom};", table.name, column.name)
            .expect("text grows");
    }

    /// The primary key, or the other key, or both.
    fn change_key(&mut self, at: usize, text: &mut String) {
        let table = &self.tables[at];
        if !table.updatable {
            return;
        }
        let (name, from, to) = (table.name, self.dice.i64(0..KEYS), self.dice.i64(0..KEYS));
        let other = if self.dice.bool() { ", alt = nextval('alts')" } else { "" };
        let free = format!("not exists (select from {name} where id = {to})");
        match self.dice.u8(0..3) {
            0 => writeln!(text, "update {name} set alt = nextval('alts') where id = {from};"),
            _ => writeln!(text, "update {name} set id = {to}{other} where id = {from} and {free};"),
        }
        .expect("text grows");
    }

    fn delete(&mut self, at: usize, text: &mut String) {
        if self.tables[at].updatable {
            let id = self.dice.i64(0..KEYS);
            writeln!(text, "delete from {} where id = {id};", self.tables[at].name).expect("text grows");
        }
    }

    fn truncate(&mut self, at: usize, text: &mut String) {
        let other = (at + 1) % self.tables.len();
        let with = if self.dice.bool() { format!(", {}", self.tables[other].name) } else { String::new() };
        writeln!(text, "truncate {}{with};", self.tables[at].name).expect("text grows");
    }

    /// Changes the shape, and writes down how.
    fn alter(&mut self, at: usize, text: &mut String) {
        let column = self.dice.usize(..COLUMNS);
        let table = &mut self.tables[at];
        let (sql, what) = match self.dice.u8(0..5) {
            0 if table.columns.len() < COLUMNS => add(table, &mut self.dice),
            1 if column < table.columns.len() => {
                let gone = table.columns.remove(column).name;
                (format!("drop {gone}"), json!({ "drop": gone }))
            }
            2 if column < table.columns.len() => {
                table.made += 1;
                let new = format!("c{}", table.made);
                let old = std::mem::replace(&mut table.columns[column].name, new.clone());
                (format!("rename {old} to {new}"), json!({ "rename": old, "to": new }))
            }
            3 if column < table.columns.len() => retype(&mut table.columns[column]),
            4 => {
                let (sql, name) = match self.dice.u8(0..3) {
                    0 => ("default".to_owned(), "default"),
                    1 => ("full".to_owned(), "full"),
                    _ => (format!("using index {}_alt_key", table.name), "index"),
                };
                (format!("replica identity {sql}"), json!({ "identity": name }))
            }
            _ => return,
        };
        let name = table.name;
        writeln!(text, "alter table {name} {sql};").expect("text grows");
        writeln!(text, "insert into ddl (tbl, what) values ('{name}', '{what}');").expect("text grows");
    }

    /// For a while within the transaction, the table has no identity: rows can only be added.
    fn without_identity(&mut self, at: usize, text: &mut String) {
        let name = self.tables[at].name;
        let note = |text: &mut String, identity: &str| {
            writeln!(
                text,
                "alter table {name} replica identity {identity};\n\
                 insert into ddl (tbl, what) values ('{name}', '{{\"identity\": \"{identity}\"}}');"
            )
            .expect("text grows");
        };
        note(text, "nothing");
        self.tables[at].updatable = false;
        for _ in 0..self.dice.u8(1..=3) {
            self.insert(at, text);
        }
        self.tables[at].updatable = true;
        note(text, "default");
    }
}

fn add(table: &mut Table, dice: &mut fastrand::Rng) -> (String, Value) {
    table.made += 1;
    let name = format!("c{}", table.made);
    let kinds = [Kind::Int4, Kind::Int8, Kind::Numeric(2), Kind::Text];
    let kind = kinds[dice.usize(..kinds.len())];
    table.columns.push(Column { name: name.clone(), kind });
    let (default, value) = if dice.bool() { kind.value(dice) } else { ("null".to_owned(), Value::Null) };
    let stored =
        if kind == Kind::Text { format!(", alter {name} set storage external") } else { String::new() };
    (format!("add {name} {} default {default}{stored}", kind.sql()), json!({ "add": name, "value": value }))
}

/// To a type that holds the same value, perhaps in another form.
fn retype(column: &mut Column) -> (String, Value) {
    let (to, form) = match column.kind {
        Kind::Int4 => (Kind::Int8, "same"),
        Kind::Int8 => (Kind::Text, "string"),
        Kind::Numeric(scale) if scale < 5 => (Kind::Numeric(scale + 1), "longer"),
        Kind::Numeric(_) | Kind::Text => (Kind::Text, "same"),
    };
    column.kind = to;
    let name = &column.name;
    let sql = to.sql();
    (
        format!("alter {name} drop default, alter {name} type {sql} using {name}::{sql}"),
        json!({ "retype": name, "form": form }),
    )
}
