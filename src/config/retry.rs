//! `retry = { … }`: a policy, key by key on top of another.

use std::time::Duration;

use super::node::{Node, Table};
use crate::domain::RetryPolicy;

const WAITS: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const STATUSES: std::ops::RangeInclusive<u32> = 400..=599;

/// Reads a policy; what is not written stays as in `base`.
pub(super) fn read(mut table: Table<'_>, base: &RetryPolicy) -> RetryPolicy {
    let policy = RetryPolicy {
        schedule: table.get("schedule", schedule).unwrap_or_else(|| base.schedule.clone()),
        jitter: table.get("jitter", |node| node.fraction(0.0..=1.0)).unwrap_or(base.jitter),
        give_up_on: table.get("give_up_on", statuses).unwrap_or_else(|| base.give_up_on.clone()),
        retry_after_max: table
            .get("retry_after_max", |node| node.duration(Duration::ZERO..=WAIT_MAX))
            .unwrap_or(base.retry_after_max),
    };
    table.finish();
    policy
}

fn schedule(node: Node<'_>) -> Option<Vec<Duration>> {
    let waits = node.list(WAITS)?.into_iter();
    Some(waits.filter_map(|wait| wait.duration(Duration::ZERO..=WAIT_MAX)).collect())
}

fn statuses(node: Node<'_>) -> Option<Vec<u16>> {
    let statuses = node.list(STATUSES.count())?.into_iter();
    Some(statuses.filter_map(|status| u16::try_from(status.integer(STATUSES)?).ok()).collect())
}
