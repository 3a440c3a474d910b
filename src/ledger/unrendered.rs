//! Deliveries that could not be rendered: their events, and the bodies that they get after all.

use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::GenericClient;

use super::{LedgerError, doing};
use crate::domain::FailReason;

/// A delivery that could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrendered {
    /// Its event's id.
    pub event_id: String,
    /// Its event's type.
    pub event_type: String,
    /// Its webhook.
    pub webhook: String,
    /// Its event, as a standard body.
    pub event: Vec<u8>,
}

/// The body that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anew {
    /// The body.
    pub body: Bytes,
    /// The headers that its format has beside it, a line `name: value` each.
    pub headers: Option<Arc<str>>,
    /// Its media type.
    pub content_type: Arc<str>,
}

/// What renders an event that was kept.
pub type Render<'a> = &'a (dyn Fn(&Unrendered) -> Result<Anew, FailReason> + Send + Sync);

/// How rendering went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// How many have no body still.
    pub failed: u64,
    /// Why the last of these has none.
    pub reason: Option<String>,
}

const READ: &str = "
select event_id, event_type, webhook, unrendered from deliveries
where id = $1 and status in ('failed', 'cancelled') and unrendered is not null";

/// The event stays until the delivery is on its way: until then it may be rendered otherwise yet.
const WRITE: &str = "
update deliveries set body = $2, headers = $3, content_type = $4
where id = $1 and status in ('failed', 'cancelled') and unrendered is not null";

const FAIL: &str = "
update deliveries set body = null,
    fail_reason = case when status = 'failed' then $2 end
where id = $1 and status in ('failed', 'cancelled') and unrendered is not null";

/// Renders each of these, one after another.
pub(super) async fn render(
    client: &impl GenericClient,
    ids: &[String],
    render: Render<'_>,
) -> Result<Rendered, LedgerError> {
    let doing_it = || doing("rendering deliveries anew");
    let mut all = Rendered::default();
    for id in ids {
        let Some(row) = client.query_opt(READ, &[id]).await.map_err(doing_it())? else { continue };
        let unrendered = Unrendered {
            event_id: row.get(0),
            event_type: row.get(1),
            webhook: row.get(2),
            event: row.get(3),
        };
        match render(&unrendered) {
            Ok(Anew { body, headers, content_type }) => {
                let (body, headers) = (&body[..], headers.as_deref());
                let written = client.execute(WRITE, &[id, &body, &headers, &&*content_type]).await;
                written.map_err(doing_it())?;
            }
            Err(reason) => {
                let reason = reason.describe();
                client.execute(FAIL, &[id, &reason]).await.map_err(doing_it())?;
                all = Rendered { failed: all.failed + 1, reason: Some(reason) };
            }
        }
    }
    Ok(all)
}
