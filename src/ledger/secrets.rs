//! What is secret in the rows of webhooks, as it stands there: plain or encrypted. Who reads it opens it.
//!
//! Encrypting goes in steps of a bounded number of rows, and by compare-and-set: a row that somebody has written since it
//! was read is left as it is, to be read again, and so is one that somebody is writing. So nobody waits, and no change is
//! undone.

use secrecy::zeroize::Zeroizing;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};

use super::{LedgerError, doing, withheld};
use crate::domain::limits;

/// The columns that can hold secrets. All but the first are jsonb.
pub const COLUMNS: [&str; 4] = ["secret", "auth", "headers", "tls"];

/// What a webhook's row holds in [`COLUMNS`], as text. It has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The webhook.
    pub webhook: String,
    /// In the order of [`COLUMNS`]; of jsonb the text. `None` is null.
    pub columns: [Option<Zeroizing<String>>; COLUMNS.len()],
}

/// A row before and after.
pub struct Change {
    /// As it was read.
    pub before: Held,
    /// As it is to be.
    pub after: Held,
}

const ONE: &str = "
select name, secret, auth::text, headers::text, tls::text from webhooks where name = $1 for update";

const PAGE: &str = "
select name, secret, auth::text, headers::text, tls::text from webhooks
where ($1::text is null or name > $1) and coalesce(secret, auth::text, headers::text, tls::text) is not null
order by name limit $2";

const SET_SECRET: &str = "update webhooks set secret = $2, updated_at = now() where name = $1";

/// Every statement that changes webhooks ends with this row. Whoever has it first, and then waits for no other, is in
/// nobody's circle.
const LOCK_VERSION: &str = "select 1 from catalog_version for update";

const EXCHANGE: &str = "
with free as (select name from webhooks where name = any($1) for update skip locked)
update webhooks w
set secret = n.secret, auth = n.auth::jsonb, headers = n.headers::jsonb, tls = n.tls::jsonb
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
    n (name, was_secret, was_auth, was_headers, was_tls, secret, auth, headers, tls)
join free on free.name = n.name
where w.name = n.name
    and w.secret is not distinct from n.was_secret and w.auth is not distinct from n.was_auth::jsonb
    and w.headers is not distinct from n.was_headers::jsonb and w.tls is not distinct from n.was_tls::jsonb
returning w.name";

/// What a webhook's row holds; nobody else writes it until the transaction ends. `None`: there is no such row.
pub async fn lock(transaction: &Transaction<'_>, webhook: &str) -> Result<Option<Held>, LedgerError> {
    let row = transaction.query_opt(ONE, &[&webhook]).await.map_err(doing("reading a webhook's secrets"))?;
    Ok(row.as_ref().map(held))
}

/// What the next rows hold, in the order of their names, of those that hold anything. Empty: there is none after.
pub async fn page(client: &Client, after: Option<&str>) -> Result<Vec<Held>, LedgerError> {
    let most = i64::try_from(limits::ENCRYPTED_AT_ONCE).unwrap_or(i64::MAX);
    let rows = client.query(PAGE, &[&after, &most]).await.map_err(doing("reading webhooks' secrets"))?;
    Ok(rows.iter().map(held).collect())
}

/// Writes what a webhook signs with.
pub async fn set_secret(transaction: &Transaction<'_>, webhook: &str, text: &str) -> Result<(), LedgerError> {
    let written = transaction.execute(SET_SECRET, &[&webhook, &text]).await;
    written.map_err(withheld("writing a webhook's secret"))?;
    Ok(())
}

/// Exchanges what these rows hold, where they still hold what was read. Gives the names of those that did.
pub async fn exchange(transaction: &Transaction<'_>, changes: &[Change]) -> Result<Vec<String>, LedgerError> {
    let names: Vec<&str> = changes.iter().map(|change| change.before.webhook.as_str()).collect();
    let column = |of: fn(&Change) -> &Held, at: usize| -> Vec<Option<&str>> {
        let text = |change| of(change).columns.get(at).and_then(Option::as_ref).map(|text| text.as_str());
        changes.iter().map(text).collect()
    };
    let was = [0, 1, 2, 3].map(|at| column(|change| &change.before, at));
    let is = [0, 1, 2, 3].map(|at| column(|change| &change.after, at));
    let columns = was.iter().chain(&is).map(|column| column as &(dyn ToSql + Sync));
    let parameters: Vec<_> = std::iter::once(&names as &(dyn ToSql + Sync)).chain(columns).collect();
    transaction.execute(LOCK_VERSION, &[]).await.map_err(doing("waiting for other changes of webhooks"))?;
    let rows = transaction.query(EXCHANGE, &parameters).await;
    let rows = rows.map_err(withheld("encrypting webhooks' secrets"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn held(row: &Row) -> Held {
    let text = |at: usize| row.get::<_, Option<String>>(at).map(Zeroizing::new);
    Held { webhook: row.get(0), columns: [text(1), text(2), text(3), text(4)] }
}
