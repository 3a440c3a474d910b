//! Making the database a source: everything is checked first, then the publications, then the slot.

use super::publication::{qualified, tables};
use super::reconcile::{Report, Unowned, planned, reconcile};
use super::remove::drop_publication;
use super::slot::{self, SlotState, slot_state};
use super::{PublicationNames, SetupError, SourceError, TableInfo, TableWanted};
use crate::postgres::Session;

/// The oldest server whose `pgoutput` does what we need.
const OLDEST: i32 = 140_000;
/// The oldest server that copies logical slots to its standbys.
const FAILOVER_SINCE: i32 = 170_000;

/// Whether publications are changed by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manage {
    /// We make and alter them.
    Change,
    /// They are somebody else's: we only look.
    Look,
}

/// Whether our state knows of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotHistory {
    /// There was none: one is made.
    Never,
    /// There was one: if it is gone, changes are lost, and that must be said.
    Made,
}

/// What is wanted of the database.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// The slot.
    pub slot: String,
    /// Whether there should be one already.
    pub history: SlotHistory,
    /// Whether a slot that is made is copied to standbys.
    pub failover: bool,
    /// The publications.
    pub names: PublicationNames,
    /// Whether they are ours to change.
    pub manage: Manage,
    /// The tables that webhooks need.
    pub wanted: Vec<TableWanted>,
    /// Those of them without which nothing begins.
    pub insisted: Vec<TableWanted>,
    /// The schema of our own tables.
    pub own_schema: String,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `server_version_num`.
    pub version: i32,
    /// `server_version`.
    pub version_text: String,
    /// Our role.
    pub role: String,
    /// `wal_sender_timeout` in milliseconds; 0 is endless.
    pub wal_sender_timeout_ms: i64,
}

impl Facts {
    /// Whether slots can be copied to standbys.
    pub fn can_failover(&self) -> bool {
        self.version >= FAILOVER_SINCE
    }

    /// Refuses to have slots copied to standbys where the server cannot.
    pub fn insist_on_failover(&self, wanted: bool) -> Result<(), SetupError> {
        if wanted && !self.can_failover() {
            return Err(SetupError::NoFailover { found: self.version_text.clone() });
        }
        Ok(())
    }
}

/// A database that is ready to stream from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What the server says of itself.
    pub facts: Facts,
    /// What was done to the publications.
    pub report: Report,
    /// The slot.
    pub slot: SlotState,
    /// Whether it was made just now.
    pub slot_created: bool,
}

/// Looks at version, settings and privileges. Every problem is in the list, not only the first.
pub async fn check(session: &Session, slot: &str) -> Result<(Facts, Vec<SetupError>), SetupError> {
    let sql = "
        select current_setting('server_version_num')::int4, current_setting('server_version'), current_user::text,
            current_setting('wal_level'),
            current_setting('max_replication_slots')::int4,
            (select count(*)::int4 from pg_catalog.pg_replication_slots),
            exists (select from pg_catalog.pg_replication_slots s where s.slot_name = $1),
            current_setting('max_wal_senders')::int4,
            (select count(*)::int4 from pg_catalog.pg_stat_activity a where a.backend_type = 'walsender'),
            (select r.rolreplication or r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user)
                or exists (select from pg_catalog.pg_roles r where r.rolname in ('rds_replication', 'rds_superuser')
                    and pg_catalog.pg_has_role(r.oid, 'MEMBER')),
            (select s.setting::int8 from pg_catalog.pg_settings s where s.name = 'wal_sender_timeout')";
    let failed = SetupError::query("read the server's settings");
    let row = session.client.query_one(sql, &[&slot]).await.map_err(&failed)?;
    let number = |index: usize| row.try_get::<_, i32>(index).map_err(&failed);
    let text = |index: usize| row.try_get::<_, String>(index).map_err(&failed);
    let truth = |index: usize| row.try_get::<_, bool>(index).map_err(&failed);
    let facts = Facts {
        version: number(0)?,
        version_text: text(1)?,
        role: text(2)?,
        wal_sender_timeout_ms: row.try_get(10).map_err(&failed)?,
    };
    let mut problems = Vec::new();
    if facts.version < OLDEST {
        problems.push(SetupError::Version { found: facts.version_text.clone() });
    }
    let level = text(3)?;
    if level != "logical" {
        problems.push(SetupError::Setting {
            setting: "wal_level",
            found: format!("\"{level}\""),
            needed: "Logical replication needs wal_level = logical.".to_owned(),
            remedy: "ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres (on a managed service, set it in \
                     the parameter group or by the logical replication switch)."
                .to_owned(),
        });
    }
    let (used, most, ours) = (number(5)?, number(4)?, truth(6)?);
    if !ours && used >= most {
        problems.push(used_up("max_replication_slots", used, most));
    }
    let (used, most) = (number(8)?, number(7)?);
    if !ours && used >= most {
        problems.push(used_up("max_wal_senders", used, most));
    }
    if !truth(9)? {
        problems.push(SetupError::Privilege { role: facts.role.clone() });
    }
    Ok((facts, problems))
}

fn used_up(setting: &'static str, used: i32, most: i32) -> SetupError {
    SetupError::Setting {
        setting,
        found: format!("used up ({used} of {most})"),
        needed: "walhook needs one.".to_owned(),
        remedy: format!("ALTER SYSTEM SET {setting} = {}; then restart Postgres.", most.saturating_add(4)),
    }
}

/// Whether the publications are as they should be, or can be made so by our role; changes nothing. What is wanted and
/// cannot be had is an error where it is insisted on, with the SQL for who can change it. Where it is not, upkeep tells
/// it, and what there is to stream from is the answer: nothing is to be changed then.
async fn judge(
    session: &Session,
    wish: &Preparation,
    known: &[TableInfo],
) -> Result<Option<Report>, SetupError> {
    let best = planned(session, &wish.names, &wish.wanted, known, wish.manage).await?;
    let is_meant = |unowned: &&Unowned| {
        wish.insisted.iter().any(|t| t.explicit && qualified(&t.schema, &t.table) == unowned.table)
    };
    let meant: Vec<Unowned> = best.report.unowned.iter().filter(is_meant).cloned().collect();
    let Some(refused) = best.refused else {
        if meant.is_empty() {
            return Ok(None);
        }
        let sql = meant.iter().map(|unowned| unowned.sql.clone()).collect();
        return Err(SetupError::NeedsOwner { publication: wish.names.all.clone(), sql, unowned: meant });
    };
    let least = planned(session, &wish.names, &wish.insisted, known, Manage::Look).await?;
    if meant.is_empty() && least.refused.is_none() { Ok(Some(least.report)) } else { Err(refused) }
}

/// Checks everything, brings the publications to what is wanted, and makes the slot where there never was one. The
/// first problem is the error, and nothing is changed then.
pub async fn prepare(session: &mut Session, wish: &Preparation) -> Result<Prepared, SetupError> {
    let (facts, problems) = check(session, &wish.slot).await?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    facts.insist_on_failover(wish.failover)?;
    let before = slot_state(session, &wish.slot).await?;
    if before.is_none() && wish.history == SlotHistory::Made {
        return Err(Box::new(SourceError::SlotMissing { slot: wish.slot.clone() }).into());
    }
    let known = tables(session, &wish.own_schema).await?;
    let report = match judge(session, wish, &known).await? {
        Some(report) => report,
        None => reconcile(session, &wish.names, &wish.wanted, &known, wish.manage).await?,
    };
    let slot_created = before.is_none();
    let slot = match before {
        Some(state) => state,
        None => match make_slot(session, wish).await {
            Ok(state) => state,
            Err(error) => {
                undo(session, &wish.slot, &report).await;
                return Err(error);
            }
        },
    };
    Ok(Prepared { facts, report, slot, slot_created })
}

async fn make_slot(session: &Session, wish: &Preparation) -> Result<SlotState, SetupError> {
    fail::fail_point!("before_slot_is_made");
    let begins = slot::create(session, &wish.slot, wish.failover).await?;
    let made = slot_state(session, &wish.slot).await?;
    let made = made.ok_or_else(|| Box::new(SourceError::SlotMissing { slot: wish.slot.clone() }))?;
    // Somebody may stream from it already.
    Ok(SlotState { confirmed: begins.unwrap_or(made.confirmed), ..made })
}

/// Takes back what was made for a slot that begins: the slot, unless somebody streams from it already, and then the
/// publications that were made with it. What cannot be taken back is said, and stays.
pub async fn undo(session: &Session, slot: &str, report: &Report) {
    let taking_back = async {
        slot::drop_slot(session, slot).await?;
        for publication in &report.made {
            drop_publication(session, publication).await?;
        }
        Ok::<_, SetupError>(())
    };
    if let Err(error) = taking_back.await {
        let detail = error.detail();
        tracing::warn!(slot, publications = ?report.made, %error, detail, "what was made could not be taken back");
    }
}
