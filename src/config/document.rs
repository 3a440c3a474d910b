//! What is being read: where its values stand, what may be looked up, and the problems found so far.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::environment::variable_of;
use super::path::Path;
use super::problem::{Fault, Place, Problem, Problems, nearest};
use super::sources::Sources;
use super::toml_file::{Spot, line_and_column};
use super::{Checks, Complaint};

/// A configuration being read. Shared by every node of its tree.
pub(super) struct Document<'d> {
    pub origin: Origin<'d>,
    pub checks: &'d Checks<'d>,
    /// Which environment variable set which key.
    pub variables: Vec<(Path, String)>,
    problems: RefCell<Vec<Problem>>,
    /// The pattern of every key that a reader asked for.
    known: RefCell<BTreeSet<String>>,
    /// Variables that no reader asked for.
    unknown: RefCell<BTreeSet<String>>,
}

/// Who wrote it, and so what it may look up.
pub(super) enum Origin<'d> {
    /// The operator: a file and the environment.
    Operator { path: PathBuf, text: String, spots: HashMap<String, Spot>, sources: &'d Sources },
    /// Whoever may write rows; described for messages.
    Row(String),
}

impl<'d> Document<'d> {
    pub fn new(origin: Origin<'d>, checks: &'d Checks<'d>, variables: Vec<(Path, String)>) -> Self {
        Self {
            origin,
            checks,
            variables,
            problems: RefCell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Notes that a reader asked for this key.
    pub fn know(&self, path: &Path) {
        self.known.borrow_mut().insert(path.pattern());
    }

    pub fn report(&self, path: &Path, fault: Fault) {
        self.push(fault.at(self.place(path), path));
    }

    pub fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Whether a row of the database is being read.
    pub fn is_row(&self) -> bool {
        matches!(self.origin, Origin::Row(_))
    }

    /// Whether this very key was set by an environment variable: then its text may stand for any type.
    pub fn is_variable(&self, path: &Path) -> bool {
        self.variables.iter().any(|(set, _)| set == path)
    }

    /// Refuses a key that no reader asked for: in the file with the nearest of `valid`, and in the environment.
    pub fn unknown(&self, path: &Path, name: &str, valid: &[&str]) {
        let within = |inner: &Path| {
            std::iter::successors(Some(inner.clone()), Path::parent).any(|outer| outer == *path)
        };
        let variables: Vec<_> =
            self.variables.iter().filter(|(set, _)| within(set)).map(|(_, name)| name.clone()).collect();
        if variables.is_empty() || self.spot(path).is_some() {
            let keys = valid.join(", ");
            let fault = Fault::new("unknown key").detail(format!("The keys here are {keys}."));
            self.report(path, fault.nearest(name, valid.iter().copied()));
        }
        self.unknown.borrow_mut().extend(variables);
    }

    /// Runs a check of someone else's on a text, and reports its complaint where the text itself stands.
    pub fn complain(&self, path: &Path, what: &str, text: &str, complaint: &Complaint) {
        let at = match (complaint.line, complaint.column) {
            (Some(line), Some(column)) => format!(" (at line {line}, column {column} of the {what})"),
            (Some(line), None) => format!(" (at line {line} of the {what})"),
            (None, Some(column)) => format!(" (at column {column} of the {what})"),
            (None, None) => String::new(),
        };
        let fault = Fault::new(format!("the {what} is not valid: {}{at}", complaint.message));
        let fault = match what {
            "condition" => {
                fault.hint("Conditions are CEL over record, old, changed, operation, schema, table and type.")
            }
            "template" => fault.hint("Templates are handlebars; \"walhook render\" tries one on a sample."),
            _ => fault,
        };
        let place = self.place_within(path, text, complaint).unwrap_or_else(|| self.place(path));
        self.push(fault.at(place, path));
    }

    /// Everything that was found, in the order of the file, then of the environment; or nothing.
    pub fn finish(self) -> Result<BTreeSet<String>, Problems> {
        let known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        let settable: Vec<_> = known
            .iter()
            .filter(|pattern| !pattern.contains("[]") && !pattern.contains('*'))
            .map(|pattern| variable_of(pattern))
            .collect();
        for variable in self.unknown.into_inner() {
            let mut fault = Fault::new("there is no such key")
                .detail("A key's variable is WALHOOK_ and its path in capitals, with __ between levels.");
            if let Some(name) = nearest(&variable, settable.iter().map(String::as_str)) {
                fault = fault.hint(format!("Perhaps you meant {name}."));
            }
            problems.push(fault.at(Place::Variable(variable), &Path::default()));
        }
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        if problems.is_empty() { Ok(known) } else { Err(Problems(problems)) }
    }

    /// Where a key stands, or what holds it, where it is missing.
    fn place(&self, path: &Path) -> Place {
        for outer in std::iter::successors(Some(path.clone()), Path::parent) {
            if let Some((_, name)) = self.variables.iter().find(|(set, _)| *set == outer) {
                return Place::Variable(name.clone());
            }
            if let Some((spot, Origin::Operator { path, text, .. })) =
                self.spot(&outer).zip(Some(&self.origin))
            {
                let at = Some(line_and_column(text, spot.key.start));
                return Place::File { path: path.clone(), at };
            }
        }
        match &self.origin {
            Origin::Operator { path, .. } => Place::File { path: path.clone(), at: None },
            Origin::Row(row) => Place::Row(row.clone()),
        }
    }

    fn spot(&self, path: &Path) -> Option<&Spot> {
        match &self.origin {
            Origin::Operator { spots, .. } => spots.get(&path.to_string()),
            Origin::Row(_) => None,
        }
    }

    /// Where in the file a complaint about a value's text points to, if the value is written there as it is.
    fn place_within(&self, path: &Path, value: &str, complaint: &Complaint) -> Option<Place> {
        let Origin::Operator { path: file, text, .. } = &self.origin else { return None };
        if self.is_variable(path) {
            return None;
        }
        let written = self.spot(path)?.value.clone();
        let start = written.start + text.get(written)?.find(value)?;
        let (line, column) = line_and_column(text, start);
        let down = complaint.line?.saturating_sub(1);
        let right = complaint.column.unwrap_or(1);
        let column = if down == 0 { column + right.saturating_sub(1) } else { right };
        Some(Place::File { path: file.clone(), at: Some((line + down, column)) })
    }
}
