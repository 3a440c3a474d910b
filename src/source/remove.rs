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

/// Whether our role may change the publications: make those that are missing, and alter those that are there.
pub async fn may_publish(session: &Session, names: &PublicationNames) -> Result<bool, SetupError> {
    let sql = "
        select (pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
                or (select count(*) = 2 from pg_catalog.pg_publication p where p.pubname = any($1)))
            and not exists (
                select from pg_catalog.pg_publication p
                where p.pubname = any($1) and not pg_catalog.pg_has_role(p.pubowner, 'USAGE'))";
    let both = [&*names.all, &*names.inserts];
    let failed = SetupError::query("read the rights on the publications");
    let row = session.client.query_one(sql, &[&&both[..]]).await.map_err(&failed)?;
    row.try_get(0).map_err(&failed)
}
