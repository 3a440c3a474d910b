//! Who did what: one row an act, written in the act's own transaction, so that there is neither one without the other.
//!
//! What others change by SQL is written by the database ([`V18__security`](../../../migrations/V18__security.sql)); what was
//! refused, by [`super::refusals`].

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{Client, Row};

use super::ask::Ask;
use super::replay::like;
use super::row::{pg_time, time_of};
use super::{LedgerError, doing};

/// How somebody came to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// By the command line: the name is the database's role, the address that of its connection.
    Command,
    /// By the admin token.
    Admin {
        /// Where the request came from.
        from: Option<IpAddr>,
    },
    /// By an API key.
    Key {
        /// Its name.
        name: String,
        /// Where the request came from.
        from: Option<IpAddr>,
    },
    /// walhook itself.
    Walhook,
    /// Somebody who could not say who they are.
    Unknown {
        /// Where the request came from.
        from: Option<IpAddr>,
    },
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Act<'a> {
    /// By whom.
    pub actor: &'a Actor,
    /// The verb, as in `webhook.rotate`.
    pub action: &'a str,
    /// The name of what it was done to, where that is one thing.
    pub object: Option<&'a str>,
    /// A JSON object with what else is to be known. Never a secret.
    pub detail: Value,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Its number; later ones are greater.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// How whoever it was came.
    pub actor_kind: String,
    /// Who.
    pub actor: String,
    /// Did what.
    pub action: String,
    /// To what.
    pub object: Option<String>,
    /// How it was and is.
    pub detail: Value,
    /// From where.
    pub address: Option<IpAddr>,
}

const RECORD: &str = "
insert into audit (actor_kind, actor, action, object, detail, from_address)
values ($1, coalesce($2, session_user), $3, $4, $5, case when $1 = 'command' then inet_client_addr() else $6 end)";

const PRUNE: &str = "
delete from audit where id = any(array(
    select id from audit where at < now() - make_interval(secs => $1) order by at, id limit $2))";

/// Entries forgotten in one statement.
const STEP: i64 = 10_000;

/// How somebody may have come.
pub const KINDS: [&str; 6] = ["command", "admin", "key", "walhook", "sql", "unknown"];

const COLUMNS: &str = "id, at, actor_kind, actor, action, object, detail, from_address";

fn written_of(row: &Row) -> Written {
    Written {
        id: row.get(0),
        at: time_of(row.get(1)),
        actor_kind: row.get(2),
        actor: row.get(3),
        action: row.get(4),
        object: row.get(5),
        detail: row.get(6),
        address: row.get(7),
    }
}

impl Actor {
    /// The name: of a key, with its id.
    pub fn name(&self) -> &str {
        match self {
            Self::Command => "command",
            Self::Admin { .. } => "admin",
            Self::Key { name, .. } => name,
            Self::Walhook => "walhook",
            Self::Unknown { .. } => "unknown",
        }
    }

    fn columns(&self) -> (&'static str, Option<&str>, Option<IpAddr>) {
        match self {
            Self::Command => ("command", None, None),
            Self::Admin { from } => ("admin", Some("admin"), *from),
            Self::Key { name, from } => ("key", Some(name), *from),
            Self::Walhook => ("walhook", Some("walhook"), None),
            Self::Unknown { from } => ("unknown", Some("unknown"), *from),
        }
    }
}

/// Records an act: in the transaction that does it, or by itself where nothing is done.
pub async fn record(client: &impl Ask, act: &Act<'_>) -> Result<(), LedgerError> {
    fail::fail_point!("before_audit", |_| std::process::abort());
    let (kind, name, from) = act.actor.columns();
    client
        .execute(RECORD, &[&kind, &name, &act.action, &act.object, &act.detail, &from])
        .await
        .map_err(doing("recording who did what"))?;
    fail::fail_point!("after_audit", |_| std::process::abort());
    Ok(())
}

/// What is looked for: entries for which everything holds that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// What it was done to.
    pub object: Option<String>,
    /// What was done, with `*` for any run of characters.
    pub action: Option<String>,
    /// By whom, with `*` for any run of characters.
    pub actor: Option<String>,
    /// How they came: one of [`KINDS`].
    pub actor_kind: Option<&'static str>,
    /// Then or later.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// The statement of [`page`]; of one object it goes by the index of objects, else by the numbers.
pub fn page_sql(sought: &Sought) -> String {
    let object = if sought.object.is_some() { "object = $3" } else { "$3::text is null" };
    format!(
        "select {COLUMNS} from audit
         where id < $1 and {object}
             and ($4::text is null or action like $4) and ($5::text is null or actor like $5)
             and ($6::text is null or actor_kind = $6)
             and ($7::timestamptz is null or at >= $7) and ($8::timestamptz is null or at < $8)
         order by id desc limit $2"
    )
}

/// Entries before a number, newest first.
pub async fn page(
    client: &impl Ask,
    sought: &Sought,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Written>, LedgerError> {
    let before = before.unwrap_or(i64::MAX);
    let (action, actor) = (sought.action.as_deref().map(like), sought.actor.as_deref().map(like));
    let (since, until) = (sought.since.map(pg_time), sought.until.map(pg_time));
    let kind = sought.actor_kind;
    let rows = client
        .query(&page_sql(sought), &[&before, &limit, &sought.object, &action, &actor, &kind, &since, &until])
        .await
        .map_err(doing("reading the audit"))?;
    Ok(rows.iter().map(written_of).collect())
}

/// Forgets what was done so long ago, in steps. Returns how much.
pub(super) async fn prune(client: &Client, age: Duration) -> Result<u64, LedgerError> {
    let mut forgotten = 0;
    loop {
        let step = client.execute(PRUNE, &[&age.as_secs_f64(), &STEP]).await;
        let step = step.map_err(doing("forgetting old entries of the audit"))?;
        forgotten += step;
        if i64::try_from(step).unwrap_or(i64::MAX) < STEP {
            return Ok(forgotten);
        }
    }
}
