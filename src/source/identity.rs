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
    /// The timelines before, each with where the next forked off; only known to [`identify`].
    pub ancestors: Vec<(u32, Lsn)>,
}

/// Asks a server, over a replication connection of its own: this also proves that replication is allowed.
pub async fn identify(server: &Server) -> Result<Identity, SourceError> {
    let mut link = Link::open(server, "walhook check").await?;
    let mut identity = ask(&mut link).await?;
    if identity.timeline > 1 {
        let command = format!("TIMELINE_HISTORY {}", identity.timeline);
        // A server without the file cannot say where it comes from: then it comes from nowhere we know.
        match link.query("TIMELINE_HISTORY", &command).await {
            Ok(rows) => {
                let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
                identity.ancestors = ancestors(&text.unwrap_or_default());
            }
            Err(SourceError::Refused { source, .. }) => tracing::warn!(%source, "no history of the timeline"),
            Err(error) => return Err(error),
        }
    }
    Ok(identity)
}

/// Reads a history file: a line for each timeline before, with where it ended and why.
fn ancestors(text: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
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
        ancestors: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_is_read_line_by_line_whatever_else_is_in_it() {
        let text = "# a comment\n1\t0/3000148\tno recovery target specified\n\n2\t1/40\tbefore 2000-01-01 05:00:00+01\n";
        assert_eq!(ancestors(text), [(1, Lsn(0x300_0148)), (2, Lsn(0x1_0000_0040))]);
        assert!(ancestors("").is_empty());
    }
}
