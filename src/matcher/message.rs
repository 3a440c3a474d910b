//! Who wants a logical message, or a notice: an event without a table.

use std::sync::Arc;

use super::facts::Facts;
use super::interest::{ConditionFailure, Owed, Owing, Subscriber};
use super::pattern::names_notice;
use super::{Condition, Matcher};
use crate::domain::{Notice, Operation};

/// The webhooks that want messages, or notices, of one type, resolved once per type and snapshot.
#[derive(Debug, Clone)]
pub struct MessageInterest {
    event_type: Arc<str>,
    operation: Operation,
    subscribers: Vec<Subscriber>,
}

impl Matcher {
    /// Who wants messages of a type: the webhooks with a pattern that matches it.
    pub fn message_interest(&self, event_type: &str) -> MessageInterest {
        let subscribers = self.subscribers(event_type);
        MessageInterest { event_type: event_type.into(), operation: Operation::Message, subscribers }
    }

    /// Who wants a notice: the webhooks with a pattern that names it.
    pub fn notice_interest(&self, notice: Notice) -> MessageInterest {
        let event_type = notice.event_type();
        let mut webhooks = self.own.exact.get(event_type).cloned().unwrap_or_default();
        for (_, of) in self.own.starred.iter().filter(|(pattern, _)| names_notice(pattern, notice)) {
            webhooks.extend(of);
        }
        webhooks.sort_unstable();
        webhooks.dedup();
        let subscribers = self.with_filters(webhooks);
        MessageInterest { event_type: event_type.into(), operation: Operation::Notice, subscribers }
    }
}

impl MessageInterest {
    /// The type.
    pub fn event_type(&self) -> &Arc<str> {
        &self.event_type
    }

    /// Whether nobody wants it.
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// The deliveries that a message, or a notice, owes. Filters see its payload, which is JSON, as `record`; a payload that cannot be
    /// read (`None`) is owed to all, so that each learns of it. Never panics.
    pub fn owed(&self, record: Option<&[u8]>) -> Owing {
        let mut owing = Owing::default();
        let mut facts: Option<Facts<'_>> = None;
        let mut answers: Vec<(&Arc<Condition>, bool)> = Vec::new();
        for subscriber in &self.subscribers {
            let holds = match (&subscriber.filter, record) {
                (None, _) | (_, None) => true,
                (Some(filter), Some(record)) => {
                    let facts = facts
                        .get_or_insert_with(|| Facts::of_message(self.operation, &self.event_type, record));
                    let known = answers.iter().find(|(known, _)| Arc::ptr_eq(known, filter));
                    if let Some((_, answer)) = known {
                        *answer
                    } else {
                        let answer = facts.ask(filter).unwrap_or_else(|reason| {
                            owing.failures.push(ConditionFailure { condition: filter.clone(), reason });
                            false
                        });
                        answers.push((filter, answer));
                        answer
                    }
                }
            };
            if holds {
                let event_type = Arc::clone(&self.event_type);
                owing.deliveries.push(Owed { event_type, named: false, webhook: subscriber.webhook });
            }
        }
        owing
    }
}
