//! From nothing to a connection on which the server is about to stream: is it the right cluster, is the slot usable, begin.

use std::time::Duration;

use super::identity::{self, Identity};
use super::link::Link;
use super::publication::literal;
use super::recode::Recoder;
use super::{Carried, SourceError, SourceOptions, slot};
use crate::domain::{EndLsn, limits};

/// Asks for the server's patience, in milliseconds. A database without an encoding holds bytes that are no text in any:
/// made into UTF-8 they would be an error that ends the stream, so they are taken as they are.
const TIMEOUT_AND_ENCODING: &str = "
select setting, case when pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'
                     then pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) end
from pg_catalog.pg_settings where name = 'wal_sender_timeout'";

/// A connection on which the server is about to stream.
pub(super) struct Begun {
    pub link: Link,
    pub identity: Identity,
    pub floor: EndLsn,
    pub every: Duration,
}

/// Checks that this is the right cluster and a usable slot, and starts.
pub(super) async fn open(options: &SourceOptions, carried: &mut Carried) -> Result<Begun, SourceError> {
    let mut opened = Link::open(&options.server, "walhook").await?;
    let link = &mut opened;
    let identity = identity::ask(link).await?;
    if let Some(expected) = options.system.filter(|expected| *expected != identity.system) {
        return Err(SourceError::OtherSystem { expected, found: identity.system });
    }
    if let Some(expected) = options.timeline.filter(|expected| *expected != identity.timeline) {
        return Err(SourceError::OtherTimeline { expected, found: identity.timeline });
    }
    // Positions mean something else from its end on: what we have confirmed or taken would be skipped there unread.
    if carried.read > identity.flushed {
        return Err(SourceError::Reverted { read: carried.read, end: identity.flushed });
    }
    let state = slot::state_on(link, &options.slot).await?;
    let state = state.ok_or_else(|| SourceError::SlotMissing { slot: options.slot.clone() })?;
    state.usable(&options.slot, &identity.database)?;
    if let Some(failover) = options.failover.filter(|wanted| state.failover.is_some_and(|is| is != *wanted)) {
        slot::alter(link, &options.slot, failover).await?;
    }
    let rows = link.query("the question for wal_sender_timeout", TIMEOUT_AND_ENCODING).await?;
    let timeout_ms = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0);
    let of_server = Duration::from_millis(timeout_ms);
    let every = feedback_every(options.feedback_every, of_server);
    carried.patience.begin(state.confirmed, every, of_server);
    if std::mem::take(&mut carried.to_recode) {
        let recoder = Recoder::learn(link).await?;
        tracing::warn!(
            encoding = recoder.encoding,
            only_ascii_for_a_while = !recoder.is_exact(),
            "a character of the database's encoding has no place in UTF-8; its text is read as it is"
        );
        carried.recoder = Some(recoder);
    }
    if carried.recoder.is_some() {
        Recoder::begin(link).await?;
    }
    let names: Vec<_> =
        options.publications.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let sql = format!(
        "START_REPLICATION SLOT \"{}\" LOGICAL 0/0 (proto_version '1', messages 'true', publication_names {})",
        options.slot.replace('"', "\"\""),
        literal(&names.join(","))
    );
    match link.start(&sql).await {
        // Between the look at the slot and the start somebody else was quicker.
        Err(SourceError::Refused { source, .. }) if source.code == "55006" => {
            Err(SourceError::SlotTaken { slot: options.slot.clone(), pid: None })
        }
        // Or it was dropped.
        Err(SourceError::Refused { source, .. }) if source.code == "42704" => {
            Err(SourceError::SlotMissing { slot: options.slot.clone() })
        }
        started => started.map(|()| Begun { link: opened, identity, floor: state.confirmed, every }),
    }
}

/// A third of the server's patience, and never more than wished. Zero means that the server has endless patience.
fn feedback_every(wished: Duration, server: Duration) -> Duration {
    let wished = wished.min(limits::FEEDBACK_EVERY);
    if server.is_zero() { wished } else { wished.min(server / 3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_is_sent_within_a_third_of_the_servers_patience() {
        let seconds = Duration::from_secs;
        assert_eq!(feedback_every(seconds(60), seconds(60)), limits::FEEDBACK_EVERY);
        assert_eq!(feedback_every(seconds(10), seconds(6)), seconds(2));
        assert_eq!(feedback_every(seconds(5), seconds(0)), seconds(5));
    }
}
