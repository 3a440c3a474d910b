//! Ghosts: transactions whose walhook is gone, and whose locks are not.
//!
//! Where a network loses a connection without a word (a machine that lost its power, a middlebox that forgot), the server
//! goes on waiting for its client. What it holds stays locked meanwhile, and the fence is one of those locks: nothing
//! could be recorded, and no successor could take over. Every session of ours bounds that by itself: the server probes an idle
//! connection ([`crate::postgres::PINS`]), gives up one that acknowledges nothing, and ends a transaction that idles
//! ([`Ledger::session`](super::Ledger::session)). None of these helps in the middle of a `COPY` whose other end still
//! answers probes, as a proxy's does. So whoever waits for the fence looks who keeps it, and ends what has waited for its client longer than
//! any of us ever lets it.

use std::time::Duration;

use tokio_postgres::Client;

use super::{Ledger, LedgerError, doing, within};
use crate::domain::limits;

/// How long a lock is waited for before it is asked who keeps it, and from one time to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Those of ours that keep this one waiting, and have waited for their client for longer than a busy machine takes.
const END: &str = "
with recursive blocking (pid, depth) as (
    select b.pid, 1 from pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) as b (pid)
    union
    select b.pid, w.depth + 1
    from blocking w, pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) as b (pid)
    where w.depth < 5
)
select count(pg_catalog.pg_terminate_backend(a.pid))
from pg_catalog.pg_stat_activity a
where a.pid in (select pid from blocking) and a.application_name like 'walhook %' and a.wait_event_type = 'Client'
    and a.state_change < pg_catalog.clock_timestamp() - interval '10 s'";

/// Does what may have to wait for locks on this session, and ends the ghosts that keep them.
pub(super) async fn despite_them<T>(
    ledger: &Ledger,
    waiting: &Client,
    work: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let mut work = Box::pin(work);
    let pid = waiting.query_one("select pg_catalog.pg_backend_pid()", &[]).await;
    let pid: i32 = pid.map_err(doing("preparing to wait"))?.get(0);
    loop {
        let look = async {
            tokio::time::sleep(LOOK_EVERY).await;
            Box::pin(within(limits::ANSWER_WITHIN, end(ledger, pid))).await
        };
        let ended = tokio::select! {
            biased;
            done = &mut work => return done,
            ended = look => ended,
        };
        match ended {
            Ok(0) => {}
            Ok(ended) => {
                tracing::info!(
                    ended,
                    "transactions whose connections are lost kept the ledger; they are ended"
                );
            }
            Err(error) => {
                let reason = crate::telemetry::chain(&error);
                tracing::debug!(reason, "who keeps the ledger cannot be looked for");
            }
        }
    }
}

async fn end(ledger: &Ledger, pid: i32) -> Result<i64, LedgerError> {
    let session = ledger.session("walhook ghosts").await?;
    let row = session.client.query_one(END, &[&pid]).await.map_err(doing("ending lost transactions"))?;
    Ok(row.get(0))
}
