//! What a table looks like to the stream, and how that differs from what it looked like before.
//!
//! The stream tells a table's name and, of each column, name, type and modifier. It tells no attribute numbers: so a
//! column that was renamed is one that went and one that came, and nothing here guesses otherwise.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{Relation, ReplicaIdentity};

/// A table's name, columns and replica identity at one place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What identifies its rows.
    pub identity: ReplicaIdentity,
    /// Its columns, in order.
    pub columns: Vec<ColumnShape>,
}

/// A column of a [`TableShape`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(flatten)]
    pub of_type: TypeShape,
    /// Whether it is part of the replica identity.
    pub in_identity: bool,
}

/// A column's type, as far as the stream tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TypeShape {
    /// Its name in `pg_type`, with its schema outside `pg_catalog`; a domain has that of its base type.
    #[serde(rename = "type")]
    pub name: Option<String>,
    /// Its oid.
    #[serde(rename = "type_oid")]
    pub oid: u32,
    /// Its modifier (length, precision and scale), -1 where there is none.
    #[serde(rename = "type_modifier")]
    pub modifier: i32,
}

/// Two are the same type where oid and modifier are: a type that is renamed is no other.
impl PartialEq for TypeShape {
    fn eq(&self, other: &Self) -> bool {
        (self.oid, self.modifier) == (other.oid, other.modifier)
    }
}

impl Eq for TypeShape {}

/// How a table's shape differs from an earlier one (`data.schema_change`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaChange<'s> {
    /// Columns that were not there before.
    pub added: Vec<&'s ColumnShape>,
    /// Columns that are not there any more.
    pub removed: Vec<&'s ColumnShape>,
    /// Columns of another type, or of another modifier, than before.
    pub retyped: Vec<Retyped<'s>>,
    /// Whether the columns that stayed stand in another order.
    pub reordered: bool,
    /// The table's name and schema, where one of them is another.
    pub renamed: Option<Turn<NameShape<'s>>>,
    /// The replica identity, where it is another.
    pub identity: Option<Turn<IdentityShape<'s>>>,
    /// All columns as they are now.
    pub columns: Vec<&'s ColumnShape>,
}

/// What something was and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn<T> {
    /// Before.
    pub from: T,
    /// Now.
    pub to: T,
}

/// A column that has another type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retyped<'s> {
    /// Its name.
    pub name: &'s str,
    /// The types.
    #[serde(flatten)]
    pub turn: Turn<&'s TypeShape>,
}

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NameShape<'s> {
    /// Its schema.
    pub schema: &'s str,
    /// Its name.
    pub table: &'s str,
}

/// A replica identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityShape<'s> {
    /// Which one.
    pub kind: ReplicaIdentity,
    /// Its columns; `None` where it is the whole row.
    pub columns: Option<Vec<&'s str>>,
}

impl TableShape {
    /// The shape in which the stream describes a table.
    pub fn of(relation: &Relation) -> Self {
        let columns = relation.columns.iter().map(|column| ColumnShape {
            name: column.name.to_string(),
            of_type: TypeShape {
                name: column.type_name.as_deref().map(str::to_owned),
                oid: column.type_oid,
                modifier: column.type_modifier,
            },
            in_identity: column.in_identity,
        });
        Self {
            schema: relation.schema.to_string(),
            table: relation.name.to_string(),
            identity: relation.identity,
            columns: columns.collect(),
        }
    }

    /// How this differs from an earlier shape of the same table, if it does. Columns that `hides` names stay out of it.
    pub fn since<'s>(&'s self, earlier: &'s Self, hides: impl Fn(&str) -> bool) -> Option<SchemaChange<'s>> {
        let (was, is) = (earlier.shown(&hides), self.shown(&hides));
        let by_name = |columns: &[&'s ColumnShape]| -> FxHashMap<&'s str, &'s ColumnShape> {
            columns.iter().map(|column| (column.name.as_str(), *column)).collect()
        };
        let (before, now) = (by_name(&was), by_name(&is));
        let retyped = is.iter().filter_map(|column| {
            let from = &before.get(column.name.as_str())?.of_type;
            let to = &column.of_type;
            (from != to).then_some(Retyped { name: &column.name, turn: Turn { from, to } })
        });
        let stayed = |columns: &[&'s ColumnShape], others: &FxHashMap<&str, &ColumnShape>| -> Vec<&'s str> {
            columns
                .iter()
                .map(|column| column.name.as_str())
                .filter(|name| others.contains_key(name))
                .collect()
        };
        let change = SchemaChange {
            added: is.iter().copied().filter(|column| !before.contains_key(column.name.as_str())).collect(),
            removed: was.iter().copied().filter(|column| !now.contains_key(column.name.as_str())).collect(),
            retyped: retyped.collect(),
            reordered: stayed(&was, &now) != stayed(&is, &before),
            renamed: Turn::between(earlier.name(), self.name()),
            identity: Turn::between(earlier.identity(&was), self.identity(&is)),
            columns: is,
        };
        (!change.is_nothing()).then_some(change)
    }

    fn shown(&self, hides: impl Fn(&str) -> bool) -> Vec<&ColumnShape> {
        self.columns.iter().filter(|column| !hides(&column.name)).collect()
    }

    fn name(&self) -> NameShape<'_> {
        NameShape { schema: &self.schema, table: &self.table }
    }

    fn identity<'s>(&self, shown: &[&'s ColumnShape]) -> IdentityShape<'s> {
        let flagged = || shown.iter().filter(|column| column.in_identity).map(|column| column.name.as_str());
        let columns = (self.identity != ReplicaIdentity::Full).then(|| flagged().collect());
        IdentityShape { kind: self.identity, columns }
    }
}

impl SchemaChange<'_> {
    fn is_nothing(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.retyped.is_empty()
            && !self.reordered
            && self.renamed.is_none()
            && self.identity.is_none()
    }
}

impl<T: PartialEq> Turn<T> {
    fn between(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shape(table: &str, identity: ReplicaIdentity, columns: &[(&str, u32, i32, bool)]) -> TableShape {
        let column = |(name, oid, modifier, in_identity): &(&str, u32, i32, bool)| ColumnShape {
            name: (*name).to_owned(),
            of_type: TypeShape { name: None, oid: *oid, modifier: *modifier },
            in_identity: *in_identity,
        };
        TableShape {
            schema: "public".to_owned(),
            table: table.to_owned(),
            identity,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn names(columns: &[&ColumnShape]) -> Vec<String> {
        columns.iter().map(|column| column.name.clone()).collect()
    }

    #[test]
    fn a_shape_differs_by_columns_types_order_name_and_identity_and_by_nothing_else() {
        use ReplicaIdentity::{Default, Full};
        let was = shape("t", Default, &[("id", 20, -1, true), ("a", 25, -1, false), ("b", 23, -1, false)]);
        let since = |is: &TableShape| is.since(&was, |_| false).map(|change| json!(change));
        assert_eq!(since(&was.clone()), None);
        let mut renamed_type = was.clone();
        renamed_type.columns[1].of_type.name = Some("public.other".to_owned());
        assert_eq!(since(&renamed_type), None);

        let is = shape("u", Default, &[("id", 20, -1, true), ("b", 1043, 14, false), ("c", 25, -1, false)]);
        let change = since(&is).expect("a change");
        assert_eq!((&change["added"][0]["name"], &change["removed"][0]["name"]), (&json!("c"), &json!("a")));
        assert_eq!(
            change["retyped"],
            json!([{
                "name": "b", "from": { "type": null, "type_oid": 23, "type_modifier": -1 },
                "to": { "type": null, "type_oid": 1043, "type_modifier": 14 },
            }])
        );
        assert_eq!(change["renamed"]["from"], json!({ "schema": "public", "table": "t" }));
        assert_eq!((&change["reordered"], &change["identity"]), (&json!(false), &Value::Null));
        assert_eq!(change["columns"].as_array().map(Vec::len), Some(3));

        let swapped =
            shape("t", Default, &[("id", 20, -1, true), ("b", 23, -1, false), ("a", 25, -1, false)]);
        let change = since(&swapped).expect("a change");
        assert_eq!((&change["reordered"], &change["added"]), (&json!(true), &json!([])));

        let full = shape("t", Full, &[("id", 20, -1, true), ("a", 25, -1, true), ("b", 23, -1, true)]);
        let change = since(&full).expect("a change");
        assert_eq!(
            change["identity"],
            json!({ "from": { "kind": "default", "columns": ["id"] }, "to": { "kind": "full", "columns": null } })
        );
        let wider = shape(
            "t",
            Full,
            &[("id", 20, -1, true), ("a", 25, -1, true), ("b", 23, -1, true), ("c", 25, -1, true)],
        );
        assert_eq!(json!(wider.since(&full, |_| false))["identity"], Value::Null);
    }

    #[test]
    fn what_is_hidden_makes_no_difference() {
        use ReplicaIdentity::Default;
        let was = shape("t", Default, &[("id", 20, -1, true), ("note", 25, -1, false)]);
        let is = shape("t", Default, &[("id", 20, -1, true), ("note", 23, -1, false), ("c", 25, -1, false)]);
        let hidden = |name: &str| name == "note";
        let change = is.since(&was, hidden).expect("a change");
        assert!(change.retyped.is_empty());
        assert_eq!(
            (names(&change.added), names(&change.columns)),
            (vec!["c".into()], vec!["id".into(), "c".into()])
        );
        assert_eq!(is.since(&was, |name| hidden(name) || name == "c"), None);
    }

    #[test]
    fn a_shape_is_read_back_as_it_was_written() {
        let was = shape("t", ReplicaIdentity::Index, &[("id", 20, -1, true), ("ü\"", 1043, 14, false)]);
        let text = serde_json::to_string(&was).expect("JSON");
        assert_eq!(serde_json::from_str::<TableShape>(&text).expect("a shape"), was);
    }
}
