//! `walhook webhooks rotate`, `walhook webhooks reveal`: on the database itself.

use std::process::ExitCode;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::super::super::print;
use super::super::Here;
use crate::control::secrets::{reveal, rotate};
use crate::control::{Actor, ControlError};
use crate::ledger::audit;

/// The longest overlap.
const OVERLAP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn overlap(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative());
    let exact = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let overlap =
        exact.and_then(|exact| Duration::try_from(exact).ok()).filter(|exact| *exact <= OVERLAP_MAX);
    overlap.ok_or_else(|| "expected a duration of at most a year, such as 24h or 7d".to_owned())
}

pub(super) async fn rotated(webhook: &str, overlap: Duration, here: &Here) -> Result<ExitCode, ControlError> {
    let made = rotate(&here.desk(), &Actor::command_line(), webhook, overlap).await?;
    // The secret alone on standard output: it may go straight into a vault.
    print::line(made.secret.expose_secret());
    let webhook = print::plain(webhook);
    if let Some(public) = &made.public {
        print::note(&format!("its public half, for the receiver: {public}"));
    }
    print::note(&match made.until {
        Some(until) => format!(
            "{webhook} signs with it from now on, and until {until} with the one before it too, in webhook-signature; \
             signatures in other headers are of the new one alone"
        ),
        None => format!("{webhook} signs with it from now on, and with the one before it no more"),
    });
    if made.signing > 2 {
        print::note(&format!("{} secrets of {webhook} sign now", made.signing));
    }
    if made.dropped > 0 {
        print::note(&format!(
            "{} that would have ended soonest had to make room, and no longer sign",
            made.dropped
        ));
    }
    let shown = if made.is_encrypted { "" } else { " and stands in the database as plain text" };
    print::note(&format!("it is not shown again{shown}"));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn revealed(webhook: &str, as_json: bool, here: &Here) -> Result<ExitCode, ControlError> {
    let secrets = reveal(&here.config, &here.places, webhook, &audit::Actor::Command).await?;
    if as_json {
        let entry = |secret: &crate::domain::SigningSecret| {
            json!({
                "secret": secret.text.expose_secret(), "until": secret.until.map(|until| until.to_string()),
            })
        };
        let entries: Vec<_> = secrets.iter().map(entry).collect();
        print::line(&json!({ "webhook": webhook, "secrets": entries }).to_string());
    } else {
        for secret in &secrets {
            let until = secret.until.map(|until| format!("  until {until}")).unwrap_or_default();
            print::line(&format!("{}{until}", print::plain(secret.text.expose_secret())));
        }
        if secrets.is_empty() {
            print::note(&format!("{} has no secret: it signs nothing", print::plain(webhook)));
        }
    }
    print::note("this is recorded in the ledger's table audit");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_is_a_span_of_at_most_a_year() {
        for (text, seconds) in
            [("24h", 86_400), ("7d", 604_800), ("1d12h", 129_600), ("0s", 0), ("90m", 5400)]
        {
            assert_eq!(overlap(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "24", "-1h", "2y", "400d", "soon"] {
            assert!(overlap(wrong).is_err(), "{wrong}");
        }
    }
}
