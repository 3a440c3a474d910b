//! What a create under an `Idempotency-Key` was answered.
//!
//! The row is made in the transaction of what it stands for: of two that come at once the second waits for the first,
//! and finds its answer; one that fails leaves nothing behind.

use serde_json::Value;

use super::ask::Ask;
use super::{LedgerError, doing};

/// What is found under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Nothing: the key is taken now, by this transaction.
    New,
    /// The answer of the same request.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The body.
        answer: Value,
    },
    /// Another request was made under this key.
    Other,
}

const TAKE: &str = "
insert into idempotent_answers (id, request) values ($1, $2)
on conflict (id) do update set request = excluded.request, status = null, answer = null, created_at = now()
    where idempotent_answers.created_at < now() - make_interval(secs => $3)
returning 1";

const LOOK: &str = "select request = $2, status, answer from idempotent_answers where id = $1";

/// Those that are too old, and the oldest of too many.
const PRUNE: &str = "
delete from idempotent_answers where id = any(array(
    select id from idempotent_answers
    where created_at < now() - make_interval(secs => $1)
        or created_at < (select created_at from idempotent_answers order by created_at desc offset $2 limit 1)
    order by created_at limit 100))";

/// Of so many keys one has old answers looked for: that is dearer than taking the key, and removes more than so many.
const PRUNED_BY: u8 = 32;

/// Takes a key for a request, or finds what was answered under it within `seconds`. About `most` are kept.
pub async fn take(
    client: &impl Ask,
    id: &[u8],
    request: &[u8],
    (seconds, most): (f64, i64),
) -> Result<Found, LedgerError> {
    let doing_it = || doing("looking for an earlier answer");
    // An id is a hash.
    if id.first().is_none_or(|first| first % PRUNED_BY == 0) {
        client.execute(PRUNE, &[&seconds, &most]).await.map_err(doing_it())?;
    }
    let taken = client.query_opt(TAKE, &[&id, &request, &seconds]).await.map_err(doing_it())?;
    if taken.is_some() {
        return Ok(Found::New);
    }
    let row = client.query_opt(LOOK, &[&id, &request]).await.map_err(doing_it())?;
    let Some(row) = row else { return Ok(Found::Other) };
    let (same, status, answer): (bool, Option<i32>, Option<Value>) = (row.get(0), row.get(1), row.get(2));
    Ok(match (status.and_then(|status| u16::try_from(status).ok()), answer) {
        (Some(status), Some(answer)) if same => Found::Answered { status, answer },
        _ => Found::Other,
    })
}

/// Keeps the answer.
pub async fn keep(client: &impl Ask, id: &[u8], status: u16, answer: &Value) -> Result<(), LedgerError> {
    let sql = "update idempotent_answers set status = $2, answer = $3 where id = $1";
    client.execute(sql, &[&id, &i32::from(status), answer]).await.map_err(doing("keeping an answer"))?;
    Ok(())
}
