//! What the writer is told beside deliveries: webhooks to disable, how they fare, lanes to count.

use std::sync::Arc;

use super::super::{LedgerError, doing, health, within};
use super::{Ack, Command, Open, Patience, Writer};
use crate::domain::Lane;

const DISABLE: &str = "
with disabled as (
    insert into webhook_states (webhook, status, reason) values ($1, 'disabled', $2::text)
    on conflict (webhook) do nothing returning webhook)
insert into audit (actor_kind, actor, action, object, detail)
select 'walhook', 'walhook', 'webhook.disable', webhook,
    jsonb_build_object('after', jsonb_build_object('reason', $2::text)) from disabled";

const VERSION: &str = "select version from catalog_version";

const LANES: &str = "
select lane, count(*)::integer
from (select lane from deliveries_open where webhook = $1 limit $2) open
group by lane";

impl Writer {
    /// Answers what is no delivery.
    pub(super) async fn control(
        &self,
        open: &mut Option<Open>,
        command: Command,
        answers: &mut Vec<Ack>,
    ) -> Result<(), LedgerError> {
        let mut patience = Patience::default();
        loop {
            let tried = async {
                let client = &self.open(open).await?.session.client;
                match &command {
                    Command::Disable { webhook, reason } => {
                        let doing_it = || doing("disabling a webhook");
                        client.execute(DISABLE, &[&&**webhook, reason]).await.map_err(doing_it())?;
                        let version = client.query_one(VERSION, &[]).await.map_err(doing_it())?.get(0);
                        Ok(Some(Ack::Disabled { webhook: Arc::clone(webhook), version }))
                    }
                    Command::Health { webhook, health } => {
                        let noted = health::note(client, webhook, health.as_ref()).await;
                        noted.map_err(doing("noting a webhook's health"))?;
                        self.news.send_modify(|n| *n += 1);
                        Ok(None)
                    }
                    Command::Lanes { webhook, most } => {
                        let limit = i64::try_from(*most).unwrap_or(i64::MAX).saturating_add(1);
                        let rows = client.query(LANES, &[&&**webhook, &limit]).await;
                        let rows = rows.map_err(doing("counting a webhook's lanes"))?;
                        let count =
                            |row: &tokio_postgres::Row| u32::try_from(row.get::<_, i32>(1)).unwrap_or(0);
                        let lanes: Vec<_> = rows.iter().map(|row| (Lane(row.get(0)), count(row))).collect();
                        let total: usize = lanes.iter().map(|(_, n)| usize::try_from(*n).unwrap_or(0)).sum();
                        let lanes = (total <= *most).then_some(lanes);
                        Ok(Some(Ack::Lanes { webhook: Arc::clone(webhook), lanes }))
                    }
                    Command::Insert(..) | Command::Finish(_) => Ok(None),
                }
            };
            match within(patience.answer(), tried).await {
                Ok(answer) => {
                    self.is_well();
                    answers.extend(answer);
                    return Ok(());
                }
                Err(error) => self.wait_out(open, error, &mut patience).await?,
            }
        }
    }
}
