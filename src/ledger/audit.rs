//! Who did what: one row an act, written in the act's own transaction, so that there is neither one without the other.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{GenericClient, Row, Transaction};

use super::row::time_of;
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
    fn columns(&self) -> (&'static str, Option<&str>, Option<IpAddr>) {
        match self {
            Self::Command => ("command", None, None),
            Self::Admin { from } => ("admin", Some("admin"), *from),
            Self::Key { name, from } => ("key", Some(name), *from),
            Self::Walhook => ("walhook", None, None),
        }
    }
}

/// Records an act in the transaction that does it.
pub async fn record(transaction: &Transaction<'_>, act: &Act<'_>) -> Result<(), LedgerError> {
    let (kind, name, from) = act.actor.columns();
    transaction
        .execute(RECORD, &[&kind, &name, &act.action, &act.object, &act.detail, &from])
        .await
        .map_err(doing("recording who did what"))?;
    Ok(())
}

/// Entries before a number, newest first; of one object, where one is named.
pub async fn page(
    client: &impl GenericClient,
    object: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Written>, LedgerError> {
    let before = before.unwrap_or(i64::MAX);
    let rows = if let Some(object) = object {
        let sql =
            format!("select {COLUMNS} from audit where object = $1 and id < $2 order by id desc limit $3");
        client.query(&sql, &[&object, &before, &limit]).await
    } else {
        let sql = format!("select {COLUMNS} from audit where id < $1 order by id desc limit $2");
        client.query(&sql, &[&before, &limit]).await
    };
    Ok(rows.map_err(doing("reading the audit"))?.iter().map(written_of).collect())
}
