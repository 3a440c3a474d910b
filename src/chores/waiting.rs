//! How long what waits has waited, and why: as numbers for whoever watches.
//!
//! No more than [`limits::METRIC_WEBHOOKS`] webhooks have a label of their own at once, each for as long as anything of it
//! waits; the oldest of all others is told under one. What waits no more is not told of, so the lines are not the
//! recorder's, which never forgets a label.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;

use crate::clock::since;
use crate::domain::limits;
use crate::ledger::LedgerError;
use crate::ledger::claim::open_webhooks;
use crate::ledger::numbers::{Oldest, oldest};
use crate::telemetry;

/// The metric.
const NAME: &str = "walhook_waiting_oldest_seconds";
/// The label of the webhooks without their own; no webhook can be named so.
const OTHERS: &str = "(others)";
/// Webhooks asked for in one statement.
const STEP: usize = 500;

/// A webhook, a state, a reason.
type Label = (Arc<str>, &'static str, &'static str);

/// The webhooks that have a label.
#[derive(Debug, Default)]
pub(super) struct Labels {
    webhooks: BTreeSet<Arc<str>>,
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
    telemetry::set_passing(NAME, &lines(&labels.ages(&found, now)));
    Ok(())
}

/// A line a label, in the text format of Prometheus.
fn lines(ages: &BTreeMap<Label, Duration>) -> String {
    let mut lines = String::new();
    for ((webhook, status, reason), age) in ages {
        let webhook = webhook.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let age = age.as_secs_f64();
        let written =
            writeln!(lines, "{NAME}{{webhook=\"{webhook}\",status=\"{status}\",reason=\"{reason}\"}} {age}");
        written.expect("a string takes everything");
    }
    lines
}

impl Labels {
    /// The age by label.
    fn ages(&mut self, found: &[Oldest], now: Timestamp) -> BTreeMap<Label, Duration> {
        let waits: HashSet<&Arc<str>> = found.iter().map(|oldest| &oldest.webhook).collect();
        self.webhooks.retain(|webhook| waits.contains(webhook));
        for oldest in found {
            if self.webhooks.len() < limits::METRIC_WEBHOOKS {
                self.webhooks.insert(Arc::clone(&oldest.webhook));
            }
        }
        let (others, mut ages): (Arc<str>, BTreeMap<Label, Duration>) = (OTHERS.into(), BTreeMap::new());
        for oldest in found {
            let label = self.webhooks.get(&oldest.webhook).unwrap_or(&others);
            let age = ages.entry((Arc::clone(label), oldest.status, oldest.reason)).or_default();
            *age = (*age).max(since(now, oldest.since));
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(webhook: &str, second: i64) -> Oldest {
        let since = Timestamp::from_second(second).unwrap();
        Oldest { webhook: webhook.into(), status: "retrying", reason: "retry", committed_at: since, since }
    }

    fn label(webhook: &str) -> Label {
        (webhook.into(), "retrying", "retry")
    }

    #[test]
    fn what_waits_no_more_gives_its_label_to_others_and_labels_have_a_bound() {
        let now = Timestamp::from_second(10_000).unwrap();
        let mut labels = Labels::default();
        assert!(labels.ages(&[], now).is_empty());
        let ages = labels.ages(&[waits("crm", 9_990)], now);
        assert_eq!(ages, BTreeMap::from([(label("crm"), Duration::from_secs(10))]));
        assert!(labels.ages(&[], now).is_empty());
        let many: Vec<Oldest> = (0..2000).map(|n| waits(&format!("w{n}"), n)).collect();
        let ages = labels.ages(&many, now);
        assert_eq!(ages.len(), limits::METRIC_WEBHOOKS + 1);
        assert_eq!(ages[&label(OTHERS)], Duration::from_secs(10_000 - 500));
        // The first five hundred wait no more: others have names again.
        let ages = labels.ages(&many[1500..], now);
        assert!(ages.contains_key(&label("w1999")) && !ages.contains_key(&label(OTHERS)), "{ages:?}");
    }

    #[test]
    fn a_line_says_whose_age_it_is_whatever_the_webhook_is_called() {
        let ages =
            BTreeMap::from([((Arc::from("a\"b\\c\nd"), "held", "paused"), Duration::from_millis(1500))]);
        let expect = "walhook_waiting_oldest_seconds{webhook=\"a\\\"b\\\\c\\nd\",status=\"held\",reason=\"paused\"} 1.5\n";
        assert_eq!(lines(&ages), expect);
    }
}
