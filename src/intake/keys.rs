//! Which columns tell rows of a table apart: those of the replica identity, or, where that is the whole row, those
//! of the primary key.
//!
//! With `REPLICA IDENTITY FULL` the stream flags every column, so the primary key is looked up in the live catalog.
//! A stream that lags may meet a table whose key has changed since; that only widens or narrows a lane.

use crate::domain::{Relation, ReplicaIdentity};
use crate::postgres::{Server, Session};

/// Looks keys up.
pub(super) struct Keys {
    server: Server,
    session: Option<Session>,
}

/// What orders the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// The values at these positions.
    Columns(Vec<usize>),
    /// Nothing tells its rows apart, and they can change: all are one lane.
    WholeTable,
    /// Its rows never change (only inserts are published): each is its own lane.
    EachRow,
}

const PRIMARY_KEY: &str = "
select a.attname::text
from pg_catalog.pg_index i
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = $1 and i.indisprimary";

impl Keys {
    pub fn new(server: Server) -> Self {
        Self { server, session: None }
    }

    /// The key of a table as the stream describes it.
    pub async fn of(&mut self, relation: &Relation) -> Key {
        if relation.identity != ReplicaIdentity::Full {
            let flagged = relation.columns.iter().enumerate().filter(|(_, column)| column.in_identity);
            let positions: Vec<usize> = flagged.map(|(position, _)| position).collect();
            return if positions.is_empty() { Key::EachRow } else { Key::Columns(positions) };
        }
        let names = match self.primary_key(relation.id).await {
            Ok(names) => names,
            Err(reason) => {
                tracing::debug!(
                    table = relation.config_name(),
                    reason,
                    "the primary key cannot be looked up"
                );
                Vec::new()
            }
        };
        let positions: Option<Vec<usize>> = names.iter().map(|name| relation.position(name)).collect();
        match positions {
            Some(positions) if !positions.is_empty() => Key::Columns(positions),
            _ => Key::WholeTable,
        }
    }

    async fn primary_key(&mut self, table: u32) -> Result<Vec<String>, String> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => {
                self.server.session("walhook keys").await.map_err(|error| crate::telemetry::chain(&error))?
            }
        };
        let rows = session.client.query(PRIMARY_KEY, &[&table]).await;
        self.session = Some(session);
        Ok(rows.map_err(|error| crate::telemetry::chain(&error))?.iter().map(|row| row.get(0)).collect())
    }
}
