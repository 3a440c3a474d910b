//! `retry = { … }`: a policy, key by key on top of another.

use std::time::Duration;

use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{Backoff, RetryPolicy, SCHEDULES};

const WAITS: usize = 100;
const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=101;
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const AGE_MIN: Duration = Duration::from_secs(1);
const AGE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const STATUSES: std::ops::RangeInclusive<u32> = 400..=599;
/// What exponential backoff is where only some of its keys are written.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(5), factor: 2.0, max: Duration::from_secs(2 * 3600) };
const TRIES: usize = 6;

/// Reads a policy; what is not written stays as in `base`.
pub(super) fn read(mut table: Table<'_>, base: &RetryPolicy) -> RetryPolicy {
    let (schedule, backoff) =
        waits(&mut table, base).unwrap_or_else(|| (base.schedule.clone(), base.backoff));
    let mut policy = RetryPolicy {
        schedule,
        backoff,
        jitter: table.get("jitter", |node| node.fraction(0.0..=1.0)).unwrap_or(base.jitter),
        give_up_on: table.get("give_up_on", statuses).unwrap_or_else(|| base.give_up_on.clone()),
        retry_after_max: table
            .get("retry_after_max", |node| node.duration(Duration::ZERO..=WAIT_MAX))
            .unwrap_or(base.retry_after_max),
        wait_on: table.get("wait_on", waits_on).unwrap_or_else(|| base.wait_on.clone()),
        max_age: table.get("max_age", |node| node.duration(AGE_MIN..=AGE_MAX)).or(base.max_age),
    };
    if let Some(attempts) = table.get("max_attempts", |node| node.integer(ATTEMPTS)) {
        policy.limit_attempts(attempts);
    }
    table.finish();
    policy
}

/// A schedule, written or made by exponential backoff, and by which; `None` where neither is there.
fn waits(table: &mut Table<'_>, base: &RetryPolicy) -> Option<(Vec<Duration>, Option<Backoff>)> {
    let backoff = ["initial", "factor", "max"];
    let is_exponential = backoff.iter().any(|key| table.has(key));
    if let Some(written) = table.take("schedule") {
        for key in backoff.iter().filter(|key| table.has(key)) {
            written.refuse(
                Fault::new(format!("a schedule and \"{key}\" say the same thing twice"))
                    .hint("Write either schedule, or initial, factor and max."),
            );
        }
        if is_exponential {
            for key in backoff {
                drop(table.take(key));
            }
        }
        return Some((schedule(written)?, None));
    }
    if !is_exponential {
        table.mention(&backoff);
        return None;
    }
    let (usual, span) = (base.backoff.unwrap_or(BACKOFF), Duration::ZERO..=WAIT_MAX);
    let initial = table.get("initial", |node| node.duration(span.clone())).unwrap_or(usual.initial);
    let factor = table.get("factor", |node| node.fraction(1.0..=100.0)).unwrap_or(usual.factor);
    let max = table.get("max", |node| node.duration(span)).unwrap_or(usual.max);
    let backoff = Backoff { initial, factor, max };
    let tries = base.backoff.map_or(TRIES, |_| base.schedule.len() + 1);
    Some((backoff.waits(u32::try_from(tries).unwrap_or(u32::MAX)), Some(backoff)))
}

/// A list of waits, or the name of one.
fn schedule(node: Node<'_>) -> Option<Vec<Duration>> {
    if node.value.is_string() && !node.holds_list() {
        let seconds = |waits: &[u64]| waits.iter().copied().map(Duration::from_secs).collect();
        return node.word(&SCHEDULES).map(seconds);
    }
    let waits = node.list(WAITS)?.into_iter();
    Some(waits.filter_map(|wait| wait.duration(Duration::ZERO..=WAIT_MAX)).collect())
}

/// `{ 429 = "1m" }`
fn waits_on(node: Node<'_>) -> Option<Vec<(u16, Duration)>> {
    let entries = node.table()?.names().into_iter();
    let read =
        |(name, node): (String, Node<'_>)| {
            let status = name.parse().ok().filter(|status| STATUSES.contains(&u32::from(*status)));
            if status.is_none() {
                node.refuse(
                    Fault::new(format!("\"{}\" is no status to wait on", name.escape_debug()))
                        .detail(format!("Statuses are {} to {}.", STATUSES.start(), STATUSES.end())),
                );
            }
            Some((status?, node.duration(Duration::ZERO..=WAIT_MAX)?))
        };
    Some(entries.filter_map(read).collect())
}

fn statuses(node: Node<'_>) -> Option<Vec<u16>> {
    let statuses = node.list(STATUSES.count())?.into_iter();
    Some(statuses.filter_map(|status| u16::try_from(status.integer(STATUSES)?).ok()).collect())
}
