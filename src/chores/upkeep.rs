//! The publications hold exactly the tables that webhooks need.

use crate::catalog::Snapshot;
use crate::postgres::{Server, told};
use crate::source::{self, Manage, PublicationNames, SetupError, TableInfo, TableWanted, reconcile, tables};

/// What upkeep works with.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// The application's database.
    pub server: Server,
    /// The publications.
    pub names: PublicationNames,
    /// Whether they are ours to change.
    pub manage: Manage,
    /// Our own schema, never published.
    pub own_schema: String,
}

/// What a round of upkeep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    changed: Vec<String>,
    missing: Vec<String>,
    problem: Option<String>,
}

/// The tables that the webhooks of a snapshot need.
pub fn wanted(snapshot: &Snapshot, known: &[TableInfo]) -> Vec<TableWanted> {
    let want = |table: &TableInfo| {
        let wants = snapshot.matcher.wants(&table.schema, &table.table);
        wants.any().then(|| TableWanted {
            schema: table.schema.clone(),
            table: table.table.clone(),
            updates_or_deletes: wants.update || wants.delete,
            explicit: wants.explicit,
        })
    };
    known.iter().filter_map(want).collect()
}

impl Upkeep {
    /// Compares, and changes where that is ours to do.
    pub async fn activate(&self, snapshot: &Snapshot) -> Report {
        match self.round(snapshot).await {
            Ok(report) => {
                Report { changed: report.statements, missing: report.missing, problem: None }
            }
            Err(error) => {
                let problem = told(&error, error.detail().as_deref(), error.hint().as_deref());
                Report { problem: Some(problem), ..Report::default() }
            }
        }
    }

    async fn round(&self, snapshot: &Snapshot) -> Result<source::Report, SetupError> {
        let mut session = self.server.session("walhook upkeep").await?;
        let known = tables(&session, &self.own_schema).await?;
        let wanted = wanted(snapshot, &known);
        reconcile(&mut session, &self.names, &wanted, &known, self.manage).await
    }
}

impl Report {
    /// Logs what an earlier round had not found.
    pub(super) fn tell_what_is_new(&self, earlier: &Self) {
        for statement in &self.changed {
            tracing::info!(statement, "changed the publication");
        }
        if self.missing != earlier.missing && !self.missing.is_empty() {
            tracing::warn!(tables = ?self.missing, "the publication lacks tables that webhooks need");
        }
        if self.problem != earlier.problem
            && let Some(problem) = &self.problem
        {
            tracing::warn!(problem, "the publication could not be looked after");
        }
    }
}
