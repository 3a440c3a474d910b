//! Which JSON a column's type calls for.
//!
//! The oids are those of `pg_type.dat`, which never change. In the system catalog the array of type `x` is named `_x`;
//! `create type` follows the same custom, so the name of an announced type tells its arrays too. What the elements
//! of such an array are is not announced, a domain of numbers included: they keep their text. A type whose own name begins with
//! `_` is taken for an array; its values go out as their text, unless that reads as an array.

use rustc_hash::FxHashMap;
use tokio_postgres::types::Type;

use crate::domain::{ValueKind, limits};

/// Names of types outside the system catalog, as the stream announced them: oid to schema and name.
///
/// A server announces the types of a table right before the table, each time it describes it. So the names may be
/// forgotten after any table, and are when there are many.
#[derive(Debug, Default)]
pub struct TypeNames {
    names: FxHashMap<u32, (Box<str>, Box<str>)>,
}

impl TypeNames {
    /// Remembers a name; a later one replaces it.
    pub fn announce(&mut self, oid: u32, schema: &str, name: &str) {
        // Room for all columns of the next table: `table_described` keeps the rest below `limits::RELATIONS`.
        if self.names.len() < limits::RELATIONS + limits::COLUMNS {
            self.names.insert(oid, (schema.into(), name.into()));
        }
    }

    /// Schema and name of an announced type.
    pub fn get(&self, oid: u32) -> Option<(&str, &str)> {
        self.names.get(&oid).map(|(schema, name)| (&**schema, &**name))
    }

    /// The name of a type as people know it: announced, or of the system catalog.
    pub(super) fn name(&self, type_oid: u32) -> Option<Box<str>> {
        match self.get(type_oid) {
            Some(("pg_catalog", name)) => Some(name.into()),
            Some((schema, name)) => Some(format!("{schema}.{name}").into()),
            None => Type::from_oid(type_oid).map(|of_catalog| of_catalog.name().into()),
        }
    }

    /// The kind of a column of that type.
    pub fn kind(&self, type_oid: u32) -> ValueKind {
        match self.get(type_oid) {
            Some(("pg_catalog", name)) => kind_of(type_oid, Some(name)),
            Some((_, name)) => in_catalog(type_oid).unwrap_or_else(|| of_custom(name)),
            None => kind_of(type_oid, None),
        }
    }

    /// Forgets everything if there is much of it: called after a table is complete.
    pub(super) fn table_described(&mut self) {
        if self.names.len() > limits::RELATIONS {
            self.names.clear();
        }
    }
}

/// The kind of a type by its oid and, for one that is not in the system catalog, by the unqualified name under which it
/// is announced: that of the base type for a domain. Unknown without a name: text.
pub fn kind_of(type_oid: u32, name: Option<&str>) -> ValueKind {
    in_catalog(type_oid).or_else(|| name.map(of_name)).unwrap_or(ValueKind::Text)
}

fn in_catalog(oid: u32) -> Option<ValueKind> {
    let scalar = |oid| {
        Some(match oid {
            16 => ValueKind::Bool,
            17 => ValueKind::Bytea,
            20 => ValueKind::LongInteger,
            21 | 23 | 26 => ValueKind::Integer,
            114 | 3802 => ValueKind::Json,
            700 | 701 => ValueKind::Float,
            1114 => ValueKind::Timestamp,
            1184 => ValueKind::TimestampTz,
            1700 => ValueKind::Numeric,
            _ => return None,
        })
    };
    let element = match oid {
        1000 => 16,
        1001 => 17,
        1016 => 20,
        1005 | 1007 | 1028 => 23,
        199 | 3807 => 114,
        1021 | 1022 => 700,
        1115 => 1114,
        1185 => 1184,
        1231 => 1700,
        1020 => return Some(array_of(ValueKind::Text, b';')),
        oid if is_array_of_text(oid) => return Some(array_of(ValueKind::Text, b',')),
        oid => return scalar(oid).or((oid < FIRST_ANNOUNCED).then_some(ValueKind::Text)),
    };
    scalar(element).map(|element| array_of(element, b','))
}

/// Types with a smaller oid belong to the system catalog and are never announced (`FirstGenbkiObjectId`).
const FIRST_ANNOUNCED: u32 = 10_000;

/// The other arrays of the system catalog.
fn is_array_of_text(oid: u32) -> bool {
    matches!(
        oid,
        143 | 210 | 270..=273 | 629 | 651 | 719 | 775 | 791 | 1002 | 1003 | 1006 | 1008..=1015 | 1017..=1019 | 1027
            | 1034 | 1040 | 1041 | 1182 | 1183 | 1187 | 1263 | 1270 | 1561 | 1563 | 2201 | 2207..=2211
            | 2949 | 2951 | 3221 | 3643..=3645 | 3735 | 3770 | 3905 | 3907 | 3909 | 3911 | 3913 | 3927
            | 4073 | 4090 | 4097 | 4192 | 5039 | 6150..=6153 | 6155 | 6157
    )
}

fn of_name(name: &str) -> ValueKind {
    if let Some(element) = name.strip_prefix('_') {
        let delimiter = if element == "box" { b';' } else { b',' };
        return array_of(scalar_of_name(element), delimiter);
    }
    scalar_of_name(name)
}

fn scalar_of_name(name: &str) -> ValueKind {
    match name {
        "bool" => ValueKind::Bool,
        "bytea" => ValueKind::Bytea,
        "int8" => ValueKind::LongInteger,
        "int2" | "int4" | "oid" => ValueKind::Integer,
        "json" | "jsonb" => ValueKind::Json,
        "float4" | "float8" => ValueKind::Float,
        "timestamp" => ValueKind::Timestamp,
        "timestamptz" => ValueKind::TimestampTz,
        "numeric" => ValueKind::Numeric,
        _ => ValueKind::Text,
    }
}

/// A type of the user's own, whatever it is named after.
fn of_custom(name: &str) -> ValueKind {
    match name {
        // PostGIS gives its two main types a delimiter of their own.
        "_geometry" | "_geography" => array_of(ValueKind::Text, b':'),
        name if name.starts_with('_') => array_of(ValueKind::Text, b','),
        _ => ValueKind::Text,
    }
}

fn array_of(element: ValueKind, delimiter: u8) -> ValueKind {
    ValueKind::Array(Box::new(element), delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_its_oid_or_by_its_announced_name() {
        let list = |element, delimiter| ValueKind::Array(Box::new(element), delimiter);
        for (oid, name, expected) in [
            (16, None, ValueKind::Bool),
            (20, None, ValueKind::LongInteger),
            (21, None, ValueKind::Integer),
            (25, None, ValueKind::Text),
            (22, None, ValueKind::Text),
            (1082, None, ValueKind::Text),
            (1007, None, list(ValueKind::Integer, b',')),
            (1016, None, list(ValueKind::LongInteger, b',')),
            (1006, None, list(ValueKind::Text, b',')),
            (1020, None, list(ValueKind::Text, b';')),
            (1231, None, list(ValueKind::Numeric, b',')),
            (3807, None, list(ValueKind::Json, b',')),
            (6157, None, list(ValueKind::Text, b',')),
            (16500, None, ValueKind::Text),
            (16500, Some("int8"), ValueKind::LongInteger),
            (16500, Some("_int8"), list(ValueKind::LongInteger, b',')),
            (16500, Some("mood"), ValueKind::Text),
            (16500, Some("_mood"), list(ValueKind::Text, b',')),
            (16500, Some("_timestamptz"), list(ValueKind::TimestampTz, b',')),
            (16500, Some("_box"), list(ValueKind::Text, b';')),
            (23, Some("_mood"), ValueKind::Integer),
        ] {
            assert_eq!(kind_of(oid, name), expected, "{oid} {name:?}");
        }
    }

    #[test]
    fn a_type_of_the_users_own_is_not_taken_for_one_of_the_catalog() {
        let mut types = TypeNames::default();
        types.announce(1, "app", "json");
        types.announce(20_000, "app", "json");
        types.announce(20_001, "pg_catalog", "json");
        types.announce(20_002, "public", "_geometry");
        assert_eq!(types.kind(20_000), ValueKind::Text);
        assert_eq!(types.kind(20_001), ValueKind::Json);
        assert_eq!(types.kind(20_002), ValueKind::Array(Box::new(ValueKind::Text), b':'));
        assert_eq!(types.get(20_000), Some(("app", "json")));
        let name = |oid| types.name(oid);
        assert_eq!((name(20_000).as_deref(), name(20_001).as_deref()), (Some("app.json"), Some("json")));
        assert_eq!((name(1007).as_deref(), name(19_999)), (Some("_int4"), None));
    }

    #[test]
    fn names_never_pile_up() {
        let mut types = TypeNames::default();
        let many = u32::try_from(limits::RELATIONS + limits::COLUMNS).unwrap();
        for oid in 0..many + 10 {
            types.announce(oid, "app", "t");
        }
        assert_eq!(types.names.len(), limits::RELATIONS + limits::COLUMNS);
        types.table_described();
        assert_eq!(types.names.len(), 0);
    }
}
