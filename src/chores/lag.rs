//! How far the log is behind, in time and bytes, and when that is too far.
//!
//! The server tells how many bytes; it does not tell how old they are. So each look marks where the log ends at that
//! moment, and the oldest mark that is not confirmed yet tells since when something waits. It lags from the moment that
//! either is over its threshold until both are below half of it: once it lags, it does not waver. A process that has just
//! begun knows of no mark; it says nothing good before it has seen one confirmed.
//!
//! While changes come, what has just been read tells its age by itself ([`Reading`]); the marks tell when nothing comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::since;
use crate::domain::{Lsn, limits};
use crate::source::{SlotState, WalStatus};

/// From where on it lags.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// So old.
    pub lag: Duration,
    /// So many bytes.
    pub bytes: u64,
}

/// How far it is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// When it was found to lag.
    pub since: Timestamp,
    /// How old the oldest part of it is that waits, as far as was seen.
    pub age: Duration,
    /// How many bytes wait.
    pub bytes: u64,
    /// Whether the server keeps the log.
    pub wal_status: WalStatus,
    /// How many bytes may still be written before it is lost.
    pub safe_bytes: Option<i64>,
}

/// Whether the log lags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Lag {
    /// Not known yet.
    #[default]
    Unknown,
    /// It does not; so many bytes wait.
    Fine(u64),
    /// It does.
    Behind(Behind),
}

/// How old the changes are that are being read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Of the last one since it was looked at, in microseconds, and one more; zero where none came.
    last: Arc<AtomicU64>,
}

impl Reading {
    /// Changes of this age were read.
    pub fn note(&self, age: Duration) {
        metrics::gauge!("walhook_source_lag_seconds").set(age.as_secs_f64());
        let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.last.store(micros.saturating_add(1), Ordering::Relaxed);
    }

    /// The age of what was read last since this was asked last, if anything was.
    pub(super) fn take(&self) -> Option<Duration> {
        self.last.swap(0, Ordering::Relaxed).checked_sub(1).map(Duration::from_micros)
    }
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Where the log ended, and when, the oldest first; none of them is confirmed.
    open: VecDeque<(Timestamp, Lsn)>,
    reached: bool,
    lagging: Option<Timestamp>,
}

impl Marks {
    /// How old the oldest part is that waits, as far as was seen.
    pub fn age(&self, now: Timestamp) -> Duration {
        self.open.front().map_or(Duration::ZERO, |(at, _)| since(now, *at))
    }

    /// Whether everything that waited when it was looked at first has been confirmed.
    pub fn have_been_reached(&self) -> bool {
        self.reached
    }

    /// Looks at the slot at a time.
    pub fn look(&mut self, now: Timestamp, slot: &SlotState, thresholds: Thresholds) -> Lag {
        let confirmed = slot.confirmed.0;
        while self.open.front().is_some_and(|(_, end)| *end <= confirmed) {
            self.open.pop_front();
            self.reached = true;
        }
        let age = self.age(now);
        let end = Lsn(confirmed.0.saturating_add(slot.lag_bytes));
        if slot.lag_bytes == 0 {
            self.reached = true;
        } else if self.open.len() < limits::LAG_MARKS && self.open.back().is_none_or(|(_, last)| *last < end)
        {
            self.open.push_back((now, end));
        }
        let Thresholds { lag, bytes } = thresholds;
        let begins = age >= lag || slot.lag_bytes >= bytes;
        let lasts = age >= lag / 2 || slot.lag_bytes >= bytes / 2;
        // As the ledger keeps it, in microseconds.
        let lagging = begins.then(|| Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now));
        self.lagging = if lasts { self.lagging.or(lagging) } else { None };
        match self.lagging {
            Some(since) => Lag::Behind(Behind {
                since,
                age,
                bytes: slot.lag_bytes,
                wal_status: slot.wal_status,
                safe_bytes: slot.safe_wal_bytes,
            }),
            None if self.reached => Lag::Fine(slot.lag_bytes),
            None => Lag::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EndLsn;

    const THRESHOLDS: Thresholds = Thresholds { lag: Duration::from_secs(60), bytes: 1000 };

    fn slot(confirmed: u64, lag_bytes: u64) -> SlotState {
        SlotState {
            plugin: "pgoutput".to_owned(),
            database: "app".to_owned(),
            active_pid: None,
            confirmed: EndLsn(Lsn(confirmed)),
            restart: None,
            wal_status: WalStatus::Reserved,
            invalidation_reason: None,
            failover: None,
            synced: false,
            safe_wal_bytes: None,
            lag_bytes,
            retained_bytes: 0,
        }
    }

    /// The words of what is seen at seconds, each with what is confirmed and how much waits.
    fn seen(looks: &[(i64, u64, u64)]) -> Vec<String> {
        let mut marks = Marks::default();
        let look = |(at, confirmed, waits): &(i64, u64, u64)| {
            let now = Timestamp::from_second(*at).expect("a time");
            match marks.look(now, &slot(*confirmed, *waits), THRESHOLDS) {
                Lag::Unknown => "?".to_owned(),
                Lag::Fine(_) => "fine".to_owned(),
                Lag::Behind(behind) => {
                    format!("{}s since {}", behind.age.as_secs(), behind.since.as_second())
                }
            }
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn the_log_lags_when_what_ended_it_a_while_ago_is_not_confirmed() {
        let looks = [(0, 100, 0), (10, 100, 50), (40, 120, 60), (70, 140, 70), (80, 200, 30), (200, 230, 0)];
        // At 70 the end of 10 (150) is not confirmed; at 80 it is, and the ends of 40 and 70 (180, 210) wait or do not.
        assert_eq!(seen(&looks), ["fine", "fine", "fine", "60s since 70", "fine", "fine"]);
    }

    #[test]
    fn it_does_not_waver_and_bytes_count_too() {
        let looks =
            [(0, 100, 0), (10, 100, 999), (20, 150, 1000), (30, 160, 999), (40, 500, 500), (50, 1200, 499)];
        let expect = ["fine", "fine", "10s since 20", "20s since 20", "30s since 20", "fine"];
        assert_eq!(seen(&looks), expect);
    }

    #[test]
    fn a_process_that_has_just_begun_says_nothing_good_before_it_has_seen_the_log_move() {
        assert_eq!(seen(&[(0, 100, 50), (10, 140, 50), (20, 150, 60)]), ["?", "?", "fine"]);
        assert_eq!(seen(&[(0, 100, 5000)]), ["0s since 0"]);
    }

    #[test]
    fn what_is_read_tells_its_age_once() {
        let reading = Reading::default();
        assert_eq!(reading.take(), None);
        reading.note(Duration::from_secs(9));
        reading.note(Duration::ZERO);
        assert_eq!((reading.take(), reading.take()), (Some(Duration::ZERO), None));
    }

    #[test]
    fn i11_the_marks_are_bounded() {
        let mut marks = Marks::default();
        for at in 0..5000_i64 {
            let now = Timestamp::from_second(at).expect("a time");
            marks.look(now, &slot(100, u64::try_from(at).expect("small") + 1), THRESHOLDS);
        }
        assert_eq!(marks.open.len(), limits::LAG_MARKS);
    }
}
