//! How long what waits has waited: as numbers for whoever watches.
//!
//! A label stays for as long as the process runs, so no more than [`limits::METRIC_WEBHOOKS`] webhooks have their own, in
//! the order in which they came to wait; the oldest of all others is told under one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;

use crate::clock::since;
use crate::domain::limits;
use crate::ledger::LedgerError;
use crate::ledger::claim::open_webhooks;
use crate::ledger::numbers::{Oldest, STATES, oldest};

/// The label of the webhooks without their own; no webhook can be named so.
const OTHERS: &str = "(others)";
/// Webhooks asked for in one statement.
const STEP: usize = 500;

/// A webhook and a state.
type Label = (Arc<str>, &'static str);

/// The webhooks that have a label.
#[derive(Debug, Default)]
pub(super) struct Labels {
    webhooks: HashSet<Arc<str>>,
}

/// Looks once.
pub(super) async fn activate(
    client: &Client,
    labels: &mut Labels,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let webhooks = open_webhooks(client).await?;
    let names: Vec<&str> = webhooks.iter().map(AsRef::as_ref).collect();
    let mut found = Vec::new();
    for step in names.chunks(STEP) {
        found.extend(oldest(client, step).await?);
    }
    for ((webhook, status), age) in labels.ages(&found, now) {
        metrics::gauge!("walhook_waiting_oldest_seconds", "webhook" => webhook.to_string(), "status" => status)
            .set(age.as_secs_f64());
    }
    Ok(())
}

impl Labels {
    /// The age by label: zero where nothing waits any more.
    fn ages(&mut self, found: &[Oldest], now: Timestamp) -> HashMap<Label, Duration> {
        for oldest in found {
            if self.webhooks.len() < limits::METRIC_WEBHOOKS {
                self.webhooks.insert(Arc::clone(&oldest.webhook));
            }
        }
        let nothing =
            |webhook: &Arc<str>| STATES.map(|status| ((Arc::clone(webhook), status), Duration::ZERO));
        let mut ages: HashMap<Label, Duration> = self.webhooks.iter().flat_map(nothing).collect();
        let others: Arc<str> = OTHERS.into();
        if self.webhooks.len() == limits::METRIC_WEBHOOKS {
            ages.extend(nothing(&others));
        }
        for oldest in found {
            let label = self.webhooks.get(&oldest.webhook).unwrap_or(&others);
            let age = ages.entry((Arc::clone(label), oldest.status)).or_default();
            *age = (*age).max(since(now, oldest.committed_at));
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(webhook: &str, second: i64) -> Oldest {
        let committed_at = Timestamp::from_second(second).unwrap();
        Oldest { webhook: webhook.into(), status: "retrying", committed_at }
    }

    #[test]
    fn ages_go_back_to_zero_and_labels_have_a_bound() {
        let now = Timestamp::from_second(1000).unwrap();
        let mut labels = Labels::default();
        assert!(labels.ages(&[], now).is_empty());
        let ages = labels.ages(&[waits("crm", 990)], now);
        assert_eq!(
            (ages[&("crm".into(), "retrying")], ages[&("crm".into(), "held")]),
            (Duration::from_secs(10), Duration::ZERO)
        );
        assert_eq!(labels.ages(&[], now)[&("crm".into(), "retrying")], Duration::ZERO);
        let many: Vec<Oldest> = (0..2000).map(|n| waits(&format!("w{n}"), n)).collect();
        let ages = labels.ages(&many, now);
        assert_eq!(ages.len(), (limits::METRIC_WEBHOOKS + 1) * STATES.len());
        assert_eq!(ages[&(OTHERS.into(), "retrying")], Duration::from_secs(1000 - 499));
    }
}
