//! The publications hold exactly the tables that webhooks need.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::catalog::Snapshot;
use crate::domain::{Operation, limits};
use crate::postgres::{Server, Session, told};
use crate::source::{
    self, Manage, PublicationNames, SetupError, TableInfo, TableWanted, Unowned, reconcile, tables,
};

/// How often one round looks, where tables go away meanwhile.
const LOOKS: u32 = 3;

/// What upkeep works with.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// The application's database.
    server: Server,
    /// The publications.
    names: PublicationNames,
    /// Whether they are ours to change.
    manage: Manage,
    /// Our own schema, never published.
    own_schema: String,
    /// What the last round found; held during a round, so that there is one at a time.
    last: Arc<Mutex<Report>>,
}

/// What a round of upkeep found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    changed: Vec<String>,
    missing: Vec<String>,
    inserts_only: Vec<String>,
    unowned: Vec<Unowned>,
    narrowed: Vec<String>,
    hurt: Vec<String>,
    problem: Option<String>,
}

/// The tables that the webhooks of a snapshot need. None is insisted on: one without a replica identity publishes its
/// inserts, whatever a webhook of the database would like.
pub fn wanted(snapshot: &Snapshot, known: &[TableInfo]) -> Vec<TableWanted> {
    let mut tables = meant(snapshot, known);
    for table in &mut tables {
        table.explicit = false;
    }
    tables
}

/// The same, with those insisted on that a webhook means by name.
pub fn meant(snapshot: &Snapshot, known: &[TableInfo]) -> Vec<TableWanted> {
    let want = |table: &TableInfo| {
        let wants = snapshot.matcher.wants(&table.schema, &table.table);
        wants.any().then(|| TableWanted {
            schema: table.schema.clone(),
            table: table.table.clone(),
            operations: [
                (Operation::Insert, wants.insert),
                (Operation::Update, wants.update),
                (Operation::Delete, wants.delete),
                (Operation::Truncate, wants.truncate),
            ]
            .into_iter()
            .filter_map(|(operation, wanted)| wanted.then_some(operation))
            .collect(),
            explicit: wants.explicit,
        })
    };
    known.iter().filter_map(want).collect()
}

impl Upkeep {
    /// Upkeep of a database's publications.
    pub fn new(server: Server, names: PublicationNames, manage: Manage, own_schema: String) -> Self {
        Self { server, names, manage, own_schema, last: Arc::default() }
    }

    /// Compares, changes where that is ours to do, and tells what is new.
    pub async fn activate(&self, snapshot: &Snapshot) {
        let mut last = self.last.lock().await;
        let report = self.compare(snapshot).await;
        report.tell_what_is_new(&last);
        *last = report;
    }

    async fn compare(&self, snapshot: &Snapshot) -> Report {
        let round = tokio::time::timeout(limits::ANSWER_WITHIN, self.round(snapshot)).await;
        match round.unwrap_or_else(|_| Err("Postgres has not answered".to_owned())) {
            Ok(report) => Report {
                changed: report.statements,
                missing: report.missing,
                inserts_only: report.inserts_only,
                unowned: report.unowned,
                narrowed: report.narrowed,
                hurt: report.hurt,
                problem: None,
            },
            Err(problem) => Report { problem: Some(problem), ..Report::default() },
        }
    }

    async fn round(&self, snapshot: &Snapshot) -> Result<source::Report, String> {
        let session = self.server.session("walhook upkeep").await;
        let mut session = session.map_err(|e| told(&e, e.detail().as_deref(), e.hint().as_deref()))?;
        let mut looks = 0;
        loop {
            looks += 1;
            match self.look(&mut session, snapshot).await {
                // A table that was dropped or renamed between the look and the statement is not there at the next look.
                Err(e) if e.is_of_a_missing_table() && looks < LOOKS => {}
                looked => return looked.map_err(|e| told(&e, e.detail().as_deref(), e.hint().as_deref())),
            }
        }
    }

    async fn look(&self, session: &mut Session, snapshot: &Snapshot) -> Result<source::Report, SetupError> {
        let known = tables(session, &self.own_schema).await?;
        let wanted = wanted(snapshot, &known);
        reconcile(session, &self.names, &wanted, &known, self.manage).await
    }
}

impl Report {
    /// Logs what an earlier round had not found.
    fn tell_what_is_new(&self, earlier: &Self) {
        for statement in &self.changed {
            tracing::info!(statement, "changed the publication");
        }
        if self.missing != earlier.missing && !self.missing.is_empty() {
            tracing::warn!(tables = ?self.missing, "the publication lacks tables that webhooks need");
        }
        if self.inserts_only != earlier.inserts_only && !self.inserts_only.is_empty() {
            let tables = &self.inserts_only;
            tracing::warn!(
                ?tables,
                "without a replica identity only the inserts of these tables are published"
            );
        }
        if self.unowned != earlier.unowned && !self.unowned.is_empty() {
            let of = |part: fn(&Unowned) -> &String| self.unowned.iter().map(part).collect::<Vec<_>>();
            let (tables, sql, or) = (of(|u| &u.table), of(|u| &u.sql), of(|u| &u.grant));
            tracing::warn!(
                ?tables,
                ?sql,
                ?or,
                "tables that webhooks would take belong to other roles and are not published"
            );
        }
        if self.narrowed != earlier.narrowed && !self.narrowed.is_empty() {
            let tables = &self.narrowed;
            tracing::warn!(?tables, "the publication leaves rows or columns out: no webhook hears of them");
        }
        if self.hurt != earlier.hurt && !self.hurt.is_empty() {
            let (tables, remedy) = (&self.hurt, source::identity_remedy(&self.hurt));
            tracing::warn!(
                ?tables,
                remedy,
                "the publication publishes updates of tables without a replica identity: the application's own UPDATE \
                 and DELETE of them fail"
            );
        }
        if self.problem != earlier.problem
            && let Some(problem) = &self.problem
        {
            tracing::warn!(problem, "the publication could not be looked after");
        }
    }
}
