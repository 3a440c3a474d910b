//! What is new: the facts, compared with what was told of them last. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::chores::lag::{Behind, Lag};
use crate::clock::since;
use crate::domain::{Notice, Topic, limits};
use crate::ledger::health::Health;
use crate::ledger::notices::{Failures, Known, Told};
use crate::ledger::overview::Gap;
use crate::ledger::states::Suspension;

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct News {
    pub notice: Notice,
    /// The webhook, or the slot.
    pub name: Arc<str>,
    /// Since when it is so; of what is over, since when it was. Names the notice, so it is a time of the fact's own.
    pub since: Timestamp,
    pub fact: Fact,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    Failing(Health),
    Disabled(String),
    Recovered,
    GivenUp(Failures),
    Lagging(Behind),
    CaughtUp(u64),
    Gap(Gap),
}

/// What follows from the facts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decision {
    pub tell: Vec<News>,
    /// What was told, is over, and long enough ago.
    pub forget: Vec<(Topic, Arc<str>, Timestamp)>,
    /// Webhooks that are declared nowhere any more, whose failures nobody can do anything about.
    pub drop: Vec<Arc<str>>,
    /// When to look again although nothing wakes us.
    pub again: Option<Duration>,
}

/// What the decision goes by beside the facts.
pub(super) struct Rules<'a> {
    pub now: Timestamp,
    /// The least time between two notices about one thing.
    pub every: Duration,
    pub slot: &'a Arc<str>,
    pub is_declared: &'a dyn Fn(&str) -> bool,
}

impl Decision {
    pub(super) fn of(known: &Known, lag: &Lag, rules: &Rules<'_>) -> Self {
        let mut decision = Self::default();
        decision.webhooks(known, rules);
        decision.failures(known, rules);
        decision.source(known, lag, rules);
        decision.gaps(known, rules);
        if decision.tell.len() > limits::NOTICES_AT_ONCE {
            decision.tell.truncate(limits::NOTICES_AT_ONCE);
            decision.again = Some(Duration::ZERO);
        }
        decision
    }

    fn webhooks(&mut self, known: &Known, rules: &Rules<'_>) {
        let told = known.told.keys().filter(|(topic, _)| *topic == Topic::Webhook).map(|(_, name)| name);
        let names: BTreeSet<_> = known.states.keys().chain(known.health.keys()).chain(told).collect();
        for name in names {
            let last = known.told.get(&(Topic::Webhook, Arc::clone(name)));
            let news = match (known.states.get(name), known.health.get(name)) {
                _ if !(rules.is_declared)(name) => None,
                (Some(state), _) => match state.suspension {
                    Suspension::Disabled => {
                        Some((Notice::WebhookDisabled, state.since, Fact::Disabled(state.reason.clone())))
                    }
                    // That is no trouble, and no end of one.
                    Suspension::Paused => continue,
                },
                (None, Some(health)) => {
                    health.open.map(|(at, _)| (Notice::WebhookFailing, at, Fact::Failing(health.clone())))
                }
                (None, None) => None,
            };
            match (news, last) {
                (Some((notice, ..)), Some(last)) if last.notice == notice => {}
                (Some((notice, since, fact)), last) => {
                    self.news(News { notice, name: Arc::clone(name), since, fact }, last, rules);
                }
                (None, Some(last)) if last.notice.is_good() || !(rules.is_declared)(name) => {
                    self.over(Topic::Webhook, name, last, rules);
                }
                (None, Some(last)) => {
                    let (name, since) = (Arc::clone(name), last.since);
                    let news = News { notice: Notice::WebhookRecovered, name, since, fact: Fact::Recovered };
                    self.news(news, Some(last), rules);
                }
                (None, None) => {}
            }
        }
    }

    fn failures(&mut self, known: &Known, rules: &Rules<'_>) {
        for failures in &known.failures {
            let name = &failures.webhook;
            if !(rules.is_declared)(name) {
                self.drop.push(Arc::clone(name));
                continue;
            }
            let last = known.told.get(&(Topic::Delivery, Arc::clone(name)));
            let news = News {
                notice: Notice::DeliveryFailed,
                name: Arc::clone(name),
                since: failures.first_at,
                fact: Fact::GivenUp(failures.clone()),
            };
            self.news(news, last, rules);
        }
        for ((topic, name), last) in known.told.iter().filter(|((topic, _), _)| *topic == Topic::Delivery) {
            if !known.failures.iter().any(|failures| failures.webhook == *name) {
                self.over(*topic, name, last, rules);
            }
        }
    }

    fn source(&mut self, known: &Known, lag: &Lag, rules: &Rules<'_>) {
        let last = known.told.get(&(Topic::Source, Arc::clone(rules.slot)));
        let lagged = last.filter(|last| last.notice == Notice::SourceLagging);
        let (notice, since, fact) = match (lag, lagged) {
            (Lag::Behind(behind), None) => {
                (Notice::SourceLagging, behind.since, Fact::Lagging(behind.clone()))
            }
            (Lag::Fine(bytes), Some(told)) => (Notice::SourceRecovered, told.since, Fact::CaughtUp(*bytes)),
            (Lag::Fine(_), None) => {
                if let Some(last) = last {
                    self.over(Topic::Source, rules.slot, last, rules);
                }
                return;
            }
            _ => return,
        };
        self.news(News { notice, name: Arc::clone(rules.slot), since, fact }, last, rules);
    }

    /// Each gap is told, however soon after another.
    fn gaps(&mut self, known: &Known, rules: &Rules<'_>) {
        self.tell.extend(known.gaps.iter().map(|gap| News {
            notice: Notice::SourceGap,
            name: Arc::clone(rules.slot),
            since: gap.noticed_at,
            fact: Fact::Gap(gap.clone()),
        }));
    }

    /// Tells it now, or when the time has passed since the last notice.
    fn news(&mut self, news: News, last: Option<&Told>, rules: &Rules<'_>) {
        match last.map(|last| rules.every.saturating_sub(since(rules.now, last.at))) {
            Some(wait) if !wait.is_zero() => self.look_again(wait),
            _ => self.tell.push(news),
        }
    }

    /// What is over is remembered for as long as it keeps the next notice back.
    fn over(&mut self, topic: Topic, name: &Arc<str>, last: &Told, rules: &Rules<'_>) {
        if since(rules.now, last.at) >= rules.every {
            self.forget.push((topic, Arc::clone(name), last.at));
        }
    }

    fn look_again(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |known| known.min(wait)));
    }
}
