//! What the server says of itself beyond the necessary: for who judges how well it will serve.

use std::collections::BTreeMap;

use super::SetupError;
use crate::postgres::Session;

/// A setting of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its value with its unit, as `SHOW` gives it.
    pub text: String,
    /// Its value as a number, where it is one: in bytes or milliseconds where it has a unit. -1 and 0 stay what they
    /// are: off, or without a limit.
    pub number: Option<i64>,
}

/// A physical slot that a standby streams from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbySlot {
    /// Its name.
    pub slot: String,
    /// Whether the standby tells which rows it still reads (`hot_standby_feedback`).
    pub feedback: bool,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Slots that can still be made, and how many there may be.
    pub slots: (i64, i64),
    /// Senders that can still be started, and how many there may be.
    pub senders: (i64, i64),
    /// The slots of its standbys.
    pub standbys: Vec<StandbySlot>,
    /// Bytes that decoding for our slot has spooled to disk since its statistics began.
    pub spilled_bytes: i64,
    /// Those of [`NAMES`] that the server knows and our role may see.
    values: BTreeMap<String, Setting>,
}

/// The settings that are read.
const NAMES: [&str; 5] = [
    "max_slot_wal_keep_size",
    "wal_sender_timeout",
    "logical_decoding_work_mem",
    "idle_replication_slot_timeout",
    "synchronized_standby_slots",
];

impl ServerSettings {
    /// The value of a setting; `None` where this version has none of this name.
    pub fn of(&self, name: &str) -> Option<&Setting> {
        self.values.get(name)
    }

    /// Its number; `None` also where it is none.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.of(name)?.number
    }
}

/// Reads them. `slot` is ours.
pub async fn server_settings(session: &Session, slot: &str) -> Result<ServerSettings, SetupError> {
    let failed = SetupError::query("read the server's settings");
    let sql = "
        select current_setting('max_replication_slots')::int8,
            (select count(*) from pg_catalog.pg_replication_slots),
            current_setting('max_wal_senders')::int8,
            (select count(*) from pg_catalog.pg_stat_activity a where a.backend_type = 'walsender'),
            (select coalesce(sum(s.spill_bytes), 0)::int8 from pg_catalog.pg_stat_replication_slots s
                where s.slot_name = $1)";
    let row = session.client.query_one(sql, &[&slot]).await.map_err(&failed)?;
    let number = |index: usize| row.try_get::<_, i64>(index).map_err(&failed);
    let (slots, senders) = ((number(0)?, number(1)?), (number(2)?, number(3)?));
    let spilled_bytes = number(4)?;
    let sql = "
        select s.slot_name::text, s.xmin is not null
        from pg_catalog.pg_replication_slots s
        where s.slot_type = 'physical' and s.active and not s.temporary
        order by 1";
    let mut standbys = Vec::new();
    for row in session.client.query(sql, &[]).await.map_err(&failed)? {
        let slot = row.try_get(0).map_err(&failed)?;
        standbys.push(StandbySlot { slot, feedback: row.try_get(1).map_err(&failed)? });
    }
    let free = |(most, used): (i64, i64)| (most.saturating_sub(used), most);
    Ok(ServerSettings {
        slots: free(slots),
        senders: free(senders),
        standbys,
        spilled_bytes,
        values: values(session).await?,
    })
}

async fn values(session: &Session) -> Result<BTreeMap<String, Setting>, SetupError> {
    let failed = SetupError::query("read the server's settings");
    let sql = "
        select s.name::text, s.setting, s.unit, pg_catalog.current_setting(s.name)
        from pg_catalog.pg_settings s where s.name = any($1)";
    let mut values = BTreeMap::new();
    for row in session.client.query(sql, &[&&NAMES[..]]).await.map_err(&failed)? {
        let (raw, unit): (String, Option<String>) =
            (row.try_get(1).map_err(&failed)?, row.try_get(2).map_err(&failed)?);
        let number = raw.parse::<i64>().ok().and_then(|raw| in_base_units(raw, unit.as_deref()));
        let setting = Setting { text: row.try_get(3).map_err(&failed)?, number };
        values.insert(row.try_get(0).map_err(&failed)?, setting);
    }
    Ok(values)
}

/// A number of `pg_settings` in bytes or milliseconds.
fn in_base_units(raw: i64, unit: Option<&str>) -> Option<i64> {
    let factor = match unit {
        None | Some("B" | "ms") => 1,
        Some("kB") => 1024,
        Some("8kB") => 8 * 1024,
        Some("MB") => 1024 * 1024,
        Some("s") => 1000,
        Some("min") => 60 * 1000,
        Some(_) => return None,
    };
    if raw <= 0 { Some(raw) } else { raw.checked_mul(factor) }
}

/// The roles of this cluster that have one of these names.
pub async fn roles_among(session: &Session, names: &[&str]) -> Result<Vec<String>, SetupError> {
    let failed = SetupError::query("read the roles");
    let sql = "select r.rolname::text from pg_catalog.pg_roles r where r.rolname = any($1)";
    let rows = session.client.query(sql, &[&names]).await.map_err(&failed)?;
    rows.iter().map(|row| row.try_get(0).map_err(&failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bytes_and_milliseconds_and_keep_what_means_no_limit() {
        let check = |raw, unit, expect| assert_eq!(in_base_units(raw, unit), expect);
        check(-1, Some("MB"), Some(-1));
        check(0, Some("ms"), Some(0));
        check(10, Some("MB"), Some(10 * 1024 * 1024));
        check(65_536, Some("kB"), Some(64 * 1024 * 1024));
        check(60, Some("s"), Some(60_000));
        check(7, None, Some(7));
        check(7, Some("furlong"), None);
        check(i64::MAX, Some("MB"), None);
    }
}
