//! Which columns tell rows of a table apart: those of the replica identity, or, where that is the whole row or nothing,
//! those of the primary key.
//!
//! With `REPLICA IDENTITY FULL` the stream flags every column, with `NOTHING` none, so the primary key is looked up in
//! the live catalog: a table may have another identity before and after, and its rows stay in their lanes. What the
//! key's index only carries along (`INCLUDE`) is no key: it may change, and the row is the same.
//! A stream that lags may meet a table whose key has changed since; that only widens or narrows a lane.

use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Relation, ReplicaIdentity, limits};
use crate::postgres::{Server, Session};
use crate::telemetry::chain;

/// How long to wait before the catalog is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long it may be in vain before somebody is told: nothing is taken in meanwhile.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// Looks keys up, and remembers them: a table's lanes must not change because a look-up failed, or because the table
/// has been dropped since.
pub(super) struct Keys {
    server: Server,
    session: Option<Session>,
    /// Why one cannot be looked up, as long as that is so.
    trouble: watch::Sender<Option<String>>,
    primary: FxHashMap<u32, Vec<String>>,
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
cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality k(attnum, place)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = $1 and i.indisprimary and k.place <= i.indnkeyatts
order by a.attnum";

impl Keys {
    pub fn new(server: Server, trouble: watch::Sender<Option<String>>) -> Self {
        Self { server, session: None, trouble, primary: FxHashMap::default() }
    }

    /// The key of a table as the stream describes it.
    pub async fn of(&mut self, relation: &Relation) -> Key {
        if matches!(relation.identity, ReplicaIdentity::Default | ReplicaIdentity::Index) {
            let flagged = relation.columns.iter().enumerate().filter(|(_, column)| column.in_identity);
            let positions: Vec<usize> = flagged.map(|(position, _)| position).collect();
            return if positions.is_empty() { Key::EachRow } else { Key::Columns(positions) };
        }
        let names = self.primary_key(relation).await;
        let positions: Option<Vec<usize>> = names.iter().map(|name| relation.position(name)).collect();
        match positions {
            Some(positions) if !positions.is_empty() => Key::Columns(positions),
            _ if relation.identity == ReplicaIdentity::Nothing => Key::EachRow,
            _ => Key::WholeTable,
        }
    }

    /// The names of the primary key's columns; asks until there is an answer.
    async fn primary_key(&mut self, relation: &Relation) -> Vec<String> {
        let names = self.answer(relation).await;
        if self.trouble.send_if_modified(|trouble| trouble.take().is_some()) {
            tracing::info!(table = relation.config_name(), "the primary key was looked up");
        }
        names
    }

    async fn answer(&mut self, relation: &Relation) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let asked = tokio::time::timeout(limits::ANSWER_WITHIN, self.ask(relation.id)).await;
            match asked.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(names) if names.is_empty() => {
                    return self.primary.get(&relation.id).cloned().unwrap_or_default();
                }
                Ok(names) => {
                    self.primary.insert(relation.id, names.clone());
                    return names;
                }
                Err(reason) => {
                    let table = relation.config_name();
                    if begun.elapsed() < TELL_AFTER {
                        tracing::debug!(table, reason, "the primary key cannot be looked up yet");
                    } else {
                        self.tell(&table, &reason);
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Tells it once, and shows the reason of now.
    fn tell(&self, table: &str, reason: &str) {
        if self.trouble.borrow().is_none() {
            tracing::warn!(
                table,
                reason,
                "the primary key cannot be looked up; nothing is taken in until it is"
            );
        }
        self.trouble.send_replace(Some(format!("the primary key of {table} cannot be looked up: {reason}")));
    }

    async fn ask(&mut self, table: u32) -> Result<Vec<String>, String> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => self.server.session("walhook keys").await.map_err(|error| chain(&error))?,
        };
        let rows = session.client.query(PRIMARY_KEY, &[&table]).await.map_err(|error| chain(&error))?;
        self.session = Some(session);
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
