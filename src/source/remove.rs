//! Taking the publications away again. The slot's end is [`super::drop_slot`].

use super::publication::quoted;
use super::{PublicationNames, SetupError};
use crate::postgres::Session;

/// Which of the two publications there are.
pub async fn publications(session: &Session, names: &PublicationNames) -> Result<Vec<String>, SetupError> {
    let both = [&*names.all, &*names.inserts];
    let sql = "select p.pubname::text from pg_catalog.pg_publication p where p.pubname = any($1) order by 1";
    let failed = SetupError::query("look for the publications");
    let rows = session.client.query(sql, &[&&both[..]]).await.map_err(&failed)?;
    rows.iter().map(|row| row.try_get(0).map_err(&failed)).collect()
}

/// Drops a publication, if it is there.
pub async fn drop_publication(session: &Session, name: &str) -> Result<(), SetupError> {
    let sql = format!("drop publication if exists {}", quoted(name));
    session.client.batch_execute(&sql).await.map_err(SetupError::query("drop the publication"))
}
