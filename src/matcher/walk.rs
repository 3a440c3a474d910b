//! What a condition names, found by walking its syntax tree once, at load.
//!
//! The language has no cost limit of its own, so what could run long is refused here: the macros that loop
//! (`all`, `exists`, `map`, …), and deep nesting, which would cost stack at each evaluation.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use crate::domain::limits;

/// The names a condition may use.
pub(super) const NAMES: [&str; 7] = ["record", "old", "changed", "operation", "schema", "table", "type"];

const FUNCTIONS: [&str; 22] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "dyn",
    "type",
    "timestamp",
    "duration",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
];

/// Which columns of a row are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowUse {
    /// Columns named one by one.
    pub(super) columns: BTreeSet<Box<str>>,
    /// Whether the row as a whole is used, or a column whose name is only known when it runs.
    pub(super) whole: bool,
    /// Whether the row is named at all, if only to compare it with null.
    pub(super) named: bool,
}

/// What a condition reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) record: RowUse,
    pub(super) old: RowUse,
    pub(super) changed: bool,
    pub(super) event_type: bool,
    /// Regular expressions written out, with their places.
    pub(super) patterns: Vec<(u64, String)>,
}

/// A part of the tree that is refused, by the id of its place.
pub(super) struct Refusal {
    pub(super) id: u64,
    pub(super) message: String,
}

/// Walks the tree.
pub(super) fn walk(root: &IdedExpr) -> Result<Use, Refusal> {
    let mut walker = Walker::default();
    walker.expr(root, 0)?;
    Ok(walker.found)
}

#[derive(Default)]
struct Walker {
    found: Use,
}

impl Walker {
    fn row(&mut self, expr: &IdedExpr) -> Option<&mut RowUse> {
        match &expr.expr {
            Expr::Ident(name) if name == "record" => Some(&mut self.found.record),
            Expr::Ident(name) if name == "old" => Some(&mut self.found.old),
            _ => None,
        }
    }

    fn expr(&mut self, expr: &IdedExpr, depth: usize) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal { id: expr.id, message });
        if depth > limits::CONDITION_DEPTH {
            return refuse(format!(
                "it nests, or chains operators, more than {} deep; split it with && or use a list: record.x in [1, 2]",
                limits::CONDITION_DEPTH
            ));
        }
        match &expr.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => self.select(select, depth),
            Expr::Call(call) => self.call(expr, call, depth),
            Expr::List(list) => list.elements.iter().try_for_each(|item| self.expr(item, depth + 1)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expr(&entry.key, depth + 1)?;
                    self.expr(&entry.value, depth + 1)
                }
                EntryExpr::StructField(field) => self.expr(&field.value, depth + 1),
            }),
            Expr::Comprehension(_) => refuse(
                "all, exists, exists_one, map and filter are not available; of the macros only has(…) is"
                    .to_owned(),
            ),
            Expr::Struct(_) => refuse("message literals are not available".to_owned()),
        }
    }

    fn ident(&mut self, expr: &IdedExpr, name: &str) -> Result<(), Refusal> {
        if let Some(row) = self.row(expr) {
            row.named = true;
            row.whole = true;
            return Ok(());
        }
        match name {
            "changed" => self.found.changed = true,
            "type" => self.found.event_type = true,
            name if NAMES.contains(&name) => {}
            _ => {
                let message = format!("{name:?} is no name a condition knows{}", hint(name, &NAMES));
                return Err(Refusal { id: expr.id, message });
            }
        }
        Ok(())
    }

    fn select(&mut self, select: &SelectExpr, depth: usize) -> Result<(), Refusal> {
        if let Some(row) = self.row(&select.operand) {
            row.named = true;
            row.columns.insert(select.field.as_str().into());
            return Ok(());
        }
        self.expr(&select.operand, depth + 1)
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr, depth: usize) -> Result<(), Refusal> {
        if self.known_use(call) {
            return Ok(());
        }
        let name = call.func_name.as_str();
        let operator = name.starts_with(|c: char| !c.is_ascii_alphabetic());
        if !operator && !FUNCTIONS.contains(&name) {
            let message = format!("{name:?} is no function a condition knows{}", hint(name, &FUNCTIONS));
            return Err(Refusal { id: expr.id, message });
        }
        if let ("matches", Some(last)) = (name, call.args.last())
            && let Expr::Literal(LiteralValue::String(pattern)) = &last.expr
        {
            self.found.patterns.push((last.id, pattern.inner().to_owned()));
        }
        if let Some(target) = &call.target {
            self.expr(target, depth + 1)?;
        }
        call.args.iter().try_for_each(|argument| self.expr(argument, depth + 1))
    }

    /// `record["a"]`, `"a" in record` and `record == null` do not need the whole row.
    fn known_use(&mut self, call: &CallExpr) -> bool {
        let [left, right] = call.args.as_slice() else { return false };
        let (row, other) = match call.func_name.as_str() {
            operators::INDEX => (left, right),
            operators::IN => (right, left),
            operators::EQUALS | operators::NOT_EQUALS => {
                if matches!(right.expr, Expr::Literal(LiteralValue::Null)) {
                    (left, right)
                } else {
                    (right, left)
                }
            }
            _ => return false,
        };
        let equality = matches!(call.func_name.as_str(), operators::EQUALS | operators::NOT_EQUALS);
        match (self.row(row), &other.expr) {
            (Some(row), Expr::Literal(LiteralValue::String(column))) if !equality => {
                row.named = true;
                row.columns.insert(column.inner().into());
                true
            }
            (Some(row), Expr::Literal(LiteralValue::Null)) if equality => {
                row.named = true;
                true
            }
            _ => false,
        }
    }
}

fn hint(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 2 => format!("; did you mean {known}?"),
        _ if known.len() == NAMES.len() => format!("; there are {}", known.join(", ")),
        _ => String::new(),
    }
}
