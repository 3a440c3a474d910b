//! Which cluster this is: positions mean nothing outside of it.

use super::SourceError;
use super::link::Link;
use crate::domain::Lsn;
use crate::postgres::Server;

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's identifier, from its making on.
    pub system: u64,
    /// Counts the failovers and restores of the cluster.
    pub timeline: u32,
    /// Up to where the log is flushed.
    pub flushed: Lsn,
    /// The database's name.
    pub database: String,
}

/// Asks a server, over a replication connection of its own: this also proves that replication is allowed.
pub async fn identify(server: &Server) -> Result<Identity, SourceError> {
    let mut link = Link::open(server, "walhook check").await?;
    ask(&mut link).await
}

/// Asks on a link that is open.
pub(super) async fn ask(link: &mut Link) -> Result<Identity, SourceError> {
    let rows = link.query("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let text = |index: usize| row.get(index).and_then(Option::as_deref).unwrap_or_default();
    let odd =
        || SourceError::out_of_order("an answer to IDENTIFY_SYSTEM without system, timeline or position");
    Ok(Identity {
        system: text(0).parse().map_err(|_| odd())?,
        timeline: text(1).parse().map_err(|_| odd())?,
        flushed: text(2).parse().map_err(|_| odd())?,
        database: text(3).to_owned(),
    })
}
