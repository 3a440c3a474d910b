//! What is told, and when.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::chores::lag::Behind;
use crate::ledger::health::Health;
use crate::ledger::notices::{Failures, Told};
use crate::ledger::overview::Gap;
use crate::ledger::states::{Suspension, WebhookState};
use crate::source::WalStatus;

const EVERY: Duration = Duration::from_secs(60);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// A ledger in small, and what is told from it.
#[derive(Default)]
struct World {
    known: Known,
    lag: Lag,
}

impl World {
    fn state(&mut self, webhook: &str, suspension: Suspension, since: i64) {
        let state = WebhookState { suspension, reason: "410".to_owned(), since: at(since) };
        self.known.states.insert(webhook.into(), state);
    }

    fn fails(&mut self, webhook: &str, opened: Option<i64>) {
        let open = opened.map(|second| (at(second), Duration::from_secs(5)));
        let health = Health { failing_since: at(1), failures: 3, reason: "HTTP 500".to_owned(), open };
        self.known.health.insert(webhook.into(), health);
    }

    fn gives_up(&mut self, webhook: &str, count: i64, now: i64) {
        if let Some(known) = self.known.failures.iter_mut().find(|known| &*known.webhook == webhook) {
            known.failures += count;
            return;
        }
        self.known.failures.push(Failures {
            webhook: webhook.into(),
            failures: count,
            first_at: at(now),
            last_at: at(now),
            delivery: "dlv_1".to_owned(),
            reason: "given up".to_owned(),
            error: None,
        });
    }

    fn decide(&self, now: i64) -> Decision {
        let slot = "slot".into();
        let is_declared = |name: &str| name != "gone";
        let rules = Rules { now: at(now), every: EVERY, slot: &slot, is_declared: &is_declared };
        Decision::of(&self.known, &self.lag, &rules)
    }

    /// A round at a time: what is told, in words, and written down.
    fn round(&mut self, now: i64) -> Vec<String> {
        let decision = self.decide(now);
        for news in &decision.tell {
            let told = Told { notice: news.notice, since: news.since, at: at(now) };
            self.known.told.insert((news.notice.topic(), Arc::clone(&news.name)), told);
            match &news.fact {
                Fact::GivenUp(_) => self.known.failures.retain(|failures| failures.webhook != news.name),
                Fact::Gap(gap) => self.known.gaps.retain(|known| known.noticed_at > gap.noticed_at),
                _ => {}
            }
        }
        for (topic, name, _) in decision.forget {
            self.known.told.remove(&(topic, name));
        }
        self.known.failures.retain(|failures| !decision.drop.contains(&failures.webhook));
        decision.tell.iter().map(|news| format!("{} {}", news.notice, news.name)).collect()
    }
}

#[test]
fn how_a_webhook_stands_is_told_once_and_that_it_is_over() {
    let mut world = World::default();
    world.fails("crm", None);
    assert!(world.round(0).is_empty(), "its breaker is closed");
    world.fails("crm", Some(5));
    assert_eq!(world.round(10), ["webhook.failing crm"]);
    assert!(world.round(11).is_empty() && world.round(500).is_empty());
    world.state("crm", Suspension::Disabled, 600);
    assert_eq!(world.round(601), ["webhook.disabled crm"]);
    world.known.states.clear();
    world.known.health.clear();
    assert_eq!(world.round(700), ["webhook.recovered crm"]);
    assert!(world.round(701).is_empty());
    assert!(!world.known.told.is_empty() && world.round(760).is_empty() && world.known.told.is_empty());
}

#[test]
fn who_flaps_is_told_of_once_in_a_while_and_as_it_stands_then() {
    let mut world = World::default();
    let mut told = Vec::new();
    for second in 0..600 {
        match second % 7 {
            0 => world.fails("crm", Some(second)),
            3 => drop(world.known.health.remove("crm")),
            _ => {}
        }
        told.extend(world.round(second));
    }
    assert!((2..=10).contains(&told.len()), "{told:?}");
    let turns = told.windows(2).all(|two| two[0] != two[1]);
    assert!(turns && told[0] == "webhook.failing crm", "{told:?}");
}

#[test]
fn a_pause_by_hand_is_no_trouble_and_no_end_of_one() {
    let mut world = World::default();
    world.state("crm", Suspension::Paused, 5);
    assert!(world.round(10).is_empty());
    world.known.states.clear();
    world.fails("crm", Some(20));
    assert_eq!(world.round(20), ["webhook.failing crm"]);
    world.state("crm", Suspension::Paused, 30);
    assert!(world.round(500).is_empty());
    world.known.states.clear();
    world.known.health.clear();
    assert_eq!(world.round(600), ["webhook.recovered crm"]);
}

#[test]
fn failures_are_told_together_and_how_many_there_were_meanwhile() {
    let mut world = World::default();
    world.gives_up("crm", 1, 10);
    assert_eq!(world.round(10), ["delivery.failed crm"]);
    world.gives_up("crm", 500, 12);
    assert_eq!(world.decide(12).again, Some(Duration::from_secs(58)));
    assert!(world.round(12).is_empty() && world.round(69).is_empty());
    let decision = world.decide(70);
    let Fact::GivenUp(failures) = &decision.tell[0].fact else { panic!("{decision:?}") };
    assert_eq!((failures.failures, decision.tell[0].since), (500, at(12)));
    assert_eq!(world.round(70), ["delivery.failed crm"]);
    assert!(world.round(140).is_empty() && world.known.told.is_empty(), "nothing is remembered for ever");
}

#[test]
fn of_a_webhook_that_is_declared_nowhere_any_more_nothing_is_told_or_kept() {
    let mut world = World::default();
    world.gives_up("gone", 3, 1);
    world.fails("gone", Some(1));
    let told = Told { notice: Notice::WebhookFailing, since: at(1), at: at(1) };
    world.known.told.insert((Topic::Webhook, "gone".into()), told);
    assert!(world.round(100).is_empty());
    assert!(world.known.told.is_empty() && world.known.failures.is_empty());
}

#[test]
fn the_lag_is_told_when_it_begins_and_when_it_ends_and_a_restart_tells_neither_again() {
    let mut world = World::default();
    let behind = |since| {
        let (age, wal_status) = (Duration::from_secs(70), WalStatus::Reserved);
        Lag::Behind(Behind { since: at(since), age, bytes: 5, wal_status, safe_bytes: None })
    };
    assert!(world.round(0).is_empty());
    world.lag = behind(10);
    assert_eq!(world.round(10), ["source.lagging slot"]);
    // Another process looks, and knows nothing yet; then it finds the same.
    world.lag = Lag::Unknown;
    assert!(world.round(100).is_empty());
    world.lag = behind(110);
    assert!(world.round(110).is_empty());
    world.lag = Lag::Fine(0);
    let decision = world.decide(200);
    assert_eq!(decision.tell[0].since, at(10), "the end is named after the beginning that was told");
    assert_eq!(world.round(200), ["source.recovered slot"]);
    assert!(world.round(201).is_empty());
}

#[test]
fn each_gap_is_told_however_soon_after_another() {
    let mut world = World::default();
    let gap = |second| Gap {
        from_lsn: None,
        to_lsn: "0/1".to_owned(),
        noticed_at: at(second),
        reason: "the slot is gone".to_owned(),
    };
    world.known.gaps = vec![gap(1), gap(2)];
    assert_eq!(world.round(3), ["source.gap slot", "source.gap slot"]);
    world.known.gaps = vec![gap(4)];
    assert_eq!(world.round(4), ["source.gap slot"]);
}

#[test]
fn i11_much_news_is_told_in_portions() {
    let mut world = World::default();
    let all = limits::NOTICES_AT_ONCE * 2 + 1;
    for number in 0..all {
        world.gives_up(&format!("hook{number}"), 1, 1);
    }
    assert_eq!(world.decide(1).again, Some(Duration::ZERO));
    let rounds: Vec<usize> = (1..=4).map(|second| world.round(second).len()).collect();
    assert_eq!(rounds, [limits::NOTICES_AT_ONCE, limits::NOTICES_AT_ONCE, 1, 0]);
}

/// What happens to a webhook.
#[derive(Debug, Clone)]
enum Step {
    Fail,
    Work,
    Disable,
    Pause,
    Resume,
    GiveUp(i64),
}

fn step() -> impl Strategy<Value = (i64, Step)> {
    let what = prop_oneof![
        Just(Step::Fail),
        Just(Step::Work),
        Just(Step::Disable),
        Just(Step::Pause),
        Just(Step::Resume),
        (1..100_i64).prop_map(Step::GiveUp),
    ];
    (0..90_i64, what)
}

proptest! {
    #[test]
    fn whatever_happens_notices_are_spaced_alternate_and_count_every_failure(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (mut world, mut now) = (World::default(), 0);
        let mut told: HashMap<Topic, Vec<(i64, Notice)>> = HashMap::new();
        let (mut failed, mut counted) = (0, 0);
        let end = (1000, Step::Resume);
        for (wait, step) in steps.into_iter().chain([(0, Step::Work), end]) {
            now += wait;
            match step {
                Step::Fail => world.fails("crm", Some(now)),
                Step::Work => drop(world.known.health.remove("crm")),
                Step::Disable => world.state("crm", Suspension::Disabled, now),
                Step::Pause => world.state("crm", Suspension::Paused, now),
                Step::Resume => world.known.states.clear(),
                Step::GiveUp(count) => {
                    failed += count;
                    world.gives_up("crm", count, now);
                }
            }
            for news in world.decide(now).tell {
                told.entry(news.notice.topic()).or_default().push((now, news.notice));
                if let Fact::GivenUp(failures) = &news.fact {
                    counted += failures.failures;
                }
            }
            world.round(now);
        }
        for list in told.values() {
            prop_assert!(list.windows(2).all(|two| two[1].0 - two[0].0 >= 60), "{:?}", list);
        }
        prop_assert_eq!(failed, counted);
        let standing = told.remove(&Topic::Webhook).unwrap_or_default();
        prop_assert!(standing.windows(2).all(|two| two[0].1 != two[1].1), "{:?}", standing);
        prop_assert!(standing.last().is_none_or(|(_, last)| last.is_good()), "{:?}", standing);
    }
}
