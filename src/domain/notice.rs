//! Notices: events about the machinery itself. No change makes them; they tell of what stands in the ledger.

use std::fmt;

/// What a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// A webhook's circuit breaker has opened.
    WebhookFailing,
    /// A webhook has been disabled: by hand, by 410, or after nothing but failures.
    WebhookDisabled,
    /// A webhook that was failing or disabled is sent to again.
    WebhookRecovered,
    /// Deliveries of a webhook were given up.
    DeliveryFailed,
    /// The log waits longer than it should.
    SourceLagging,
    /// It does no more.
    SourceRecovered,
    /// Log was lost before it could be read.
    SourceGap,
}

/// What is told of at its own pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// How a webhook stands.
    Webhook,
    /// Deliveries of a webhook that were given up.
    Delivery,
    /// How far the log is behind.
    Source,
    /// Log that was lost.
    Gap,
}

impl Topic {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Delivery => "delivery",
            Self::Source => "source",
            Self::Gap => "gap",
        }
    }

    /// The topic of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Webhook, Self::Delivery, Self::Source, Self::Gap].into_iter().find(|t| t.as_str() == word)
    }
}

impl Notice {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::WebhookFailing,
        Self::WebhookDisabled,
        Self::WebhookRecovered,
        Self::DeliveryFailed,
        Self::SourceLagging,
        Self::SourceRecovered,
        Self::SourceGap,
    ];

    /// The event's type.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::WebhookFailing => "webhook.failing",
            Self::WebhookDisabled => "webhook.disabled",
            Self::WebhookRecovered => "webhook.recovered",
            Self::DeliveryFailed => "delivery.failed",
            Self::SourceLagging => "source.lagging",
            Self::SourceRecovered => "source.recovered",
            Self::SourceGap => "source.gap",
        }
    }

    /// The notice of an event type, where it is one.
    pub fn of_type(event_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|notice| notice.event_type() == event_type)
    }

    /// What it is about.
    pub fn topic(self) -> Topic {
        match self {
            Self::WebhookFailing | Self::WebhookDisabled | Self::WebhookRecovered => Topic::Webhook,
            Self::DeliveryFailed => Topic::Delivery,
            Self::SourceLagging | Self::SourceRecovered => Topic::Source,
            Self::SourceGap => Topic::Gap,
        }
    }

    /// How its type begins: `webhook.`, `delivery.` or `source.`, with the dot.
    pub fn family(self) -> &'static str {
        match self.topic() {
            Topic::Webhook => "webhook.",
            Topic::Delivery => "delivery.",
            Topic::Source | Topic::Gap => "source.",
        }
    }

    /// Whether it tells that something is over.
    pub fn is_good(self) -> bool {
        matches!(self, Self::WebhookRecovered | Self::SourceRecovered)
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notices_type_begins_with_its_family_and_leads_back_to_it() {
        for notice in Notice::ALL {
            assert!(notice.event_type().starts_with(notice.family()), "{notice}");
            assert_eq!(Notice::of_type(notice.event_type()), Some(notice));
        }
        assert_eq!(Notice::of_type("orders.created"), None);
    }
}
