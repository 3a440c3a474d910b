//! Who waits for a slot.
//!
//! An instance that stands by keeps one session open that does nothing: it has the instance's name, and a shared advisory
//! lock made of the slot's. So whoever looks finds those who stand by among the server's own lists, without a table and
//! without a statement in between, and one that is gone is gone from there too.

use jiff::Timestamp;

use super::SetupError;
use crate::postgres::{ConnectError, Server, Session};

/// The first number of the advisory lock of those who wait for a slot; the second is made of the slot's name.
const WAITING: i32 = 0x7768_7362;
/// What the names of their sessions begin with.
const NAME: &str = "walhook standby ";

/// An instance that waits for the slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Standby {
    /// Which one: its host and process.
    pub instance: String,
    /// Where its session comes from, if not by a local socket; `None` too where this role may not see it.
    pub address: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

const STANDBYS: &str = "
select a.application_name, pg_catalog.host(a.client_addr), a.backend_start
from pg_catalog.pg_locks l
join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
    and l.classid::int8 = $1 and l.objid::int8 = pg_catalog.hashtext($2)::int8 & 4294967295
order by a.backend_start, a.pid";

/// Stands by, under a name, as long as the session is open.
pub async fn stand_by(server: &Server, slot: &str, instance: &str) -> Result<Session, ConnectError> {
    let session = server.session(&format!("{NAME}{instance}")).await?;
    let sql = "select pg_catalog.pg_try_advisory_lock_shared($1, pg_catalog.hashtext($2))";
    match session.client.execute(sql, &[&WAITING, &slot]).await {
        Ok(_) => Ok(session),
        Err(error) => Err(ConnectError::startup(server, error)),
    }
}

/// Those that stand by for a slot of the session's database, the first that came first.
pub async fn standbys(session: &Session, slot: &str) -> Result<Vec<Standby>, SetupError> {
    let rows = session.client.query(STANDBYS, &[&i64::from(WAITING), &slot]).await;
    let rows = rows.map_err(SetupError::query("look for instances that stand by"))?;
    let standby = |row: &tokio_postgres::Row| {
        let name: &str = row.get(0);
        let since: Option<std::time::SystemTime> = row.get(2);
        Standby {
            instance: name.strip_prefix(NAME).unwrap_or(name).to_owned(),
            address: row.get(1),
            since: since.and_then(|at| at.try_into().ok()),
        }
    };
    Ok(rows.iter().map(standby).collect())
}
