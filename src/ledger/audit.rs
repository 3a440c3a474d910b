//! Who did what: one row an act, written in the act's own transaction, so that there is neither one without the other.

use std::net::IpAddr;

use serde_json::Value;
use tokio_postgres::Transaction;

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

const RECORD: &str = "
insert into audit (actor_kind, actor, action, object, detail, from_address)
values ($1, coalesce($2, session_user), $3, $4, $5, case when $1 = 'command' then inet_client_addr() else $6 end)";

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
