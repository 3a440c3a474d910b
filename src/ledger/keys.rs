//! The keys of the API: what is kept of them.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::ask::Ask;
use super::row::{pg_time, time_of};
use super::{LedgerError, doing};

/// A key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The part that may be shown.
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Whose it is; `None`: the operator's.
    pub tenant: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Since when it is refused for good.
    pub revoked_at: Option<Timestamp>,
}

/// A key as whoever verifies it needs it.
#[derive(Debug)]
pub struct Held {
    /// What it is.
    pub key: ApiKey,
    /// SHA-256 of the secret part.
    pub hash: Vec<u8>,
    /// Whether it has expired, by the database's clock.
    pub expired: bool,
    /// Whether its last use is long enough ago to be written anew.
    pub unused_of_late: bool,
}

const COLUMNS: &str = "id, name, scopes, tenant, created_at, expires_at, last_used_at, revoked_at";

const INSERT: &str = "
insert into api_keys (id, name, hash, scopes, tenant, expires_at)
select $1, $2, $3, $4, $5, $6 where (select count(*) from api_keys where revoked_at is null) < $7
returning ";

const TOUCH: &str = "
update api_keys set last_used_at = now()
where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')";

const REVOKE: &str = "
update api_keys set revoked_at = coalesce(revoked_at, now()) where id = $1 returning ";

fn key_of(row: &Row) -> ApiKey {
    let time = |index: usize| row.get::<_, Option<_>>(index).map(time_of);
    ApiKey {
        id: row.get(0),
        name: row.get(1),
        scopes: row.get(2),
        tenant: row.get(3),
        created_at: time_of(row.get(4)),
        expires_at: time(5),
        last_used_at: time(6),
        revoked_at: time(7),
    }
}

/// Keeps a key; `None` where there are `most` already.
pub async fn insert(
    client: &impl Ask,
    (id, name, scopes, tenant): (&str, &str, &[&str], Option<&str>),
    hash: &[u8],
    expires_at: Option<Timestamp>,
    most: i64,
) -> Result<Option<ApiKey>, LedgerError> {
    let expires_at = expires_at.map(pg_time);
    let sql = format!("{INSERT}{COLUMNS}");
    let row = client.query_opt(&sql, &[&id, &name, &hash, &scopes, &tenant, &expires_at, &most]).await;
    Ok(row.map_err(doing("keeping a key"))?.as_ref().map(key_of))
}

/// The key of an id.
pub async fn held(client: &impl Ask, id: &str) -> Result<Option<Held>, LedgerError> {
    let sql = format!(
        "select {COLUMNS}, hash, coalesce(expires_at <= now(), false),
            coalesce(last_used_at < now() - interval '1 minute', true)
        from api_keys where id = $1"
    );
    let row = client.query_opt(&sql, &[&id]).await.map_err(doing("looking up a key"))?;
    Ok(row.map(|row| Held {
        key: key_of(&row),
        hash: row.get(8),
        expired: row.get(9),
        unused_of_late: row.get(10),
    }))
}

/// Notes that a key was used, once a minute at most.
pub async fn touch(client: &impl Ask, id: &str) -> Result<(), LedgerError> {
    client.execute(TOUCH, &[&id]).await.map_err(doing("noting a key's use"))?;
    Ok(())
}

/// The keys after an id, in the order of ids.
pub async fn page(client: &impl Ask, after: Option<&str>, limit: i64) -> Result<Vec<ApiKey>, LedgerError> {
    let sql = format!("select {COLUMNS} from api_keys where id > coalesce($1, '') order by id limit $2");
    let rows = client.query(&sql, &[&after, &limit]).await.map_err(doing("listing keys"))?;
    Ok(rows.iter().map(key_of).collect())
}

/// Refuses a key from now on; `None` where there is none of this id.
pub async fn revoke(client: &impl Ask, id: &str) -> Result<Option<ApiKey>, LedgerError> {
    let row = client.query_opt(&format!("{REVOKE}{COLUMNS}"), &[&id]).await;
    Ok(row.map_err(doing("revoking a key"))?.as_ref().map(key_of))
}
