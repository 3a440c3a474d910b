//! Who wants a logical message: an event of any type, without a table.

use std::sync::Arc;

use super::facts::Facts;
use super::interest::{ConditionFailure, Owed, Owing, Subscriber};
use super::{Condition, Matcher};

/// The webhooks that want messages of one type, resolved once per type and snapshot.
#[derive(Debug, Clone)]
pub struct MessageInterest {
    event_type: Arc<str>,
    subscribers: Vec<Subscriber>,
}

impl Matcher {
    /// Who wants messages of a type: the webhooks with a pattern that matches it.
    pub fn message_interest(&self, event_type: &str) -> MessageInterest {
        MessageInterest { event_type: event_type.into(), subscribers: self.subscribers(event_type) }
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

    /// The deliveries that a message owes. Filters see its payload, which is JSON, as `record`; a payload that cannot be
    /// read (`None`) is owed to all, so that each learns of it. Never panics.
    pub fn owed(&self, record: Option<&[u8]>) -> Owing {
        let mut owing = Owing::default();
        let mut facts: Option<Facts<'_>> = None;
        let mut answers: Vec<(&Arc<Condition>, bool)> = Vec::new();
        for subscriber in &self.subscribers {
            let holds = match (&subscriber.filter, record) {
                (None, _) | (_, None) => true,
                (Some(filter), Some(record)) => {
                    let facts = facts.get_or_insert_with(|| Facts::of_message(&self.event_type, record));
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
