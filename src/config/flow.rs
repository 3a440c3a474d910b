//! `rate_limit`, `breaker`, `disable_after`, `held_for`, and `concurrency = "auto"`.

use std::time::Duration;

use serde_json::Value;

use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{BreakerPolicy, Flow, RateLimit, limits};

const CONCURRENCY_MAX: u32 = 1000;
const RATE_MAX: u32 = 100_000;
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(3600);
const PROBE_MIN: Duration = Duration::from_millis(100);
const PROBE_MAX: Duration = Duration::from_secs(24 * 3600);
const AFTER_MIN: Duration = Duration::from_secs(1);
const AFTER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How many requests may be in flight, and whether their number follows the receiver.
pub(super) type Concurrency = (u32, bool);

/// Reads the keys of the flow; what is not written stays as in `base`.
pub(super) fn read(table: &mut Table<'_>, base: &Flow) -> Flow {
    let disable_after = if table.take_false("disable_after") {
        None
    } else {
        table.get("disable_after", |node| node.duration(AFTER_MIN..=AFTER_MAX)).or(base.disable_after)
    };
    Flow {
        adaptive: base.adaptive,
        rate_limit: table.get("rate_limit", rate_limit).or(base.rate_limit),
        breaker: breaker(table, base.breaker),
        disable_after,
        held_for: table.get("held_for", |node| node.duration(AFTER_MIN..=AFTER_MAX)).unwrap_or(base.held_for),
    }
}

/// A whole number, or `"auto"`. A row of the database holds either as text.
pub(super) fn concurrency(node: Node<'_>) -> Option<Concurrency> {
    let number = match &node.value {
        Value::String(text) if text.trim() == "auto" => return Some((limits::CONCURRENCY_AUTO, true)),
        Value::String(text) => text.trim().parse::<u32>().ok().filter(|_| node.doc.is_row()),
        _ => None,
    };
    let node = match number {
        Some(number) => Node { value: number.into(), ..node },
        None => node,
    };
    node.integer(1..=CONCURRENCY_MAX).map(|number| (number, false))
}

/// `"100/s"`, `"600/m"`, `"1000/h"`.
pub(super) fn rate_limit(node: Node<'_>) -> Option<RateLimit> {
    node.parse("a rate such as \"100/s\"", |text| {
        let refused = || {
            Fault::new(format!("expected a rate, found \"{}\"", text.escape_debug())).detail(format!(
                "A rate is a whole number from 1 to {RATE_MAX} for each second, minute or hour: \"100/s\", \"600/m\", \"1000/h\"."
            ))
        };
        let (count, unit) = text.split_once('/').ok_or_else(refused)?;
        let per = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => MINUTE,
            "h" => HOUR,
            _ => return Err(refused()),
        };
        let count = count.trim().parse().ok().filter(|count| (1..=RATE_MAX).contains(count));
        Ok(RateLimit { count: count.ok_or_else(refused)?, per })
    })
}

/// A table, or `false` for none.
fn breaker(table: &mut Table<'_>, base: Option<BreakerPolicy>) -> Option<BreakerPolicy> {
    if table.take_false("breaker") {
        return None;
    }
    let is_written = table.has("breaker");
    let read = table.section("breaker", |section| policy(section, &base.unwrap_or_default()));
    if is_written { read.or(base) } else { base }
}

fn policy(mut table: Table<'_>, base: &BreakerPolicy) -> BreakerPolicy {
    let waits = PROBE_MIN..=PROBE_MAX;
    let policy = BreakerPolicy {
        failure_rate: table
            .get("failure_rate", |node| node.fraction(0.01..=1.0))
            .unwrap_or(base.failure_rate),
        min_attempts: table.get("min_attempts", |node| node.integer(1..=10_000)).unwrap_or(base.min_attempts),
        window: table.get("window", |node| node.duration(WINDOW_MIN..=WINDOW_MAX)).unwrap_or(base.window),
        probe_after: table
            .get("probe_after", |node| node.duration(waits.clone()))
            .unwrap_or(base.probe_after),
        probe_max: table.get("probe_max", |node| node.duration(waits)).unwrap_or(base.probe_max),
    };
    // What was wrong in [delivery] already is told there.
    if policy != *base && policy.probe_after > policy.probe_max {
        table.refuse("probe_after is longer than probe_max");
    }
    table.finish();
    policy
}
