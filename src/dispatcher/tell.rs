//! Telling of attempts: one line for each at `debug`, and the news of a webhook, that it fails, works again, or gives
//! deliveries up, once and not for every delivery.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Attempt, Delivery, Verdict};

/// The least time between two warnings that a webhook gives deliveries up.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What has been told of a webhook.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Since when every attempt has failed, and how many that were.
    failing: Option<(Instant, u64)>,
    /// When the last warning was.
    warned: Option<Instant>,
    /// Deliveries given up since then.
    given_up: u64,
}

/// A batch that goes out.
pub(super) fn batch(whole: &Delivery, count: usize, number: u32) {
    let (id, webhook) = (whole.id.as_str(), &*whole.webhook);
    tracing::debug!(batch.id = id, webhook, count, attempt = number, "a batch goes out");
}

/// One attempt, as it ended.
pub(super) fn attempt(delivery: &Delivery, attempt: &Attempt, verdict: &Verdict) {
    let (id, webhook, number) = (delivery.id.as_str(), &*delivery.webhook, attempt.number);
    match verdict {
        Verdict::Delivered => {
            tracing::debug!(delivery.id = id, webhook, attempt = number, "delivered");
        }
        Verdict::Retry(wait) => {
            let (reason, retry_in) = (attempt.outcome.describe(), wait.as_secs_f64());
            tracing::debug!(delivery.id = id, webhook, attempt = number, reason, retry_in, "attempt failed");
        }
        Verdict::Failed(why) => {
            let (reason, why) = (attempt.outcome.describe(), why.describe());
            tracing::debug!(delivery.id = id, webhook, attempt = number, reason, why, "delivery given up");
        }
    }
}

impl Told {
    /// Tells the news of a webhook, if this attempt brings any.
    pub fn of(&mut self, webhook: &str, attempt: &Attempt, verdict: &Verdict, at: Instant) {
        if *verdict == Verdict::Delivered {
            if let Some((since, attempts)) = self.failing.take() {
                let seconds = at.saturating_duration_since(since).as_secs();
                tracing::info!(webhook, attempts, seconds, "the webhook works again");
            }
            return;
        }
        if self.failing.is_none() {
            tracing::info!(webhook, reason = attempt.outcome.describe(), "attempts of the webhook fail");
        }
        let (_, attempts) = self.failing.get_or_insert((at, 0));
        *attempts += 1;
        if let Verdict::Failed(why) = verdict {
            self.given_up += 1;
            if self.warned.is_none_or(|warned| at.saturating_duration_since(warned) >= WARN_EVERY) {
                self.warned = Some(at);
                let deliveries = std::mem::take(&mut self.given_up);
                let (reason, why) = (attempt.outcome.describe(), why.describe());
                tracing::warn!(
                    webhook,
                    deliveries,
                    reason,
                    why,
                    "gave deliveries up; `walhook retry` sends them again"
                );
            }
        }
    }
}
