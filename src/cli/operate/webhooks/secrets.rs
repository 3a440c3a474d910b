//! `walhook webhooks rotate`, `walhook webhooks reveal`: what a webhook of the database signs with.

use std::time::Duration;

use clap::Args;
use jiff::{Span, SpanRelativeTo};
use serde_json::{Value, json};

use super::super::super::print;
use super::super::call::{Caller, Failure, cell};
use super::{OneArgs, path_of};

/// The longest overlap.
const OVERLAP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The webhook's name
    webhook: String,
    /// How long the secret before it goes on signing, such as 24h or 7d; 0s ends it at once
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = overlap)]
    overlap: Duration,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

fn overlap(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative());
    let exact = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let overlap =
        exact.and_then(|exact| Duration::try_from(exact).ok()).filter(|exact| *exact <= OVERLAP_MAX);
    overlap.ok_or_else(|| "expected a duration of at most a year, such as 24h or 7d".to_owned())
}

pub(super) async fn rotated(args: &RotateArgs, caller: &Caller) -> Result<(), Failure> {
    let RotateArgs { webhook, overlap, json } = args;
    let document = json!({ "overlap": format!("{}s", overlap.as_secs()) });
    let made = caller.post(&format!("{}/rotate-secret", path_of(webhook)), Some(&document)).await?;
    if *json {
        print::line(&made.to_string());
        return Ok(());
    }
    let text = |field: &str| made.get(field).and_then(Value::as_str).map(print::plain);
    let number = |field: &str| made.get(field).and_then(Value::as_u64).unwrap_or_default();
    // The secret alone on standard output: it may go straight into a vault.
    print::line(&text("secret").unwrap_or_default());
    let webhook = print::plain(webhook);
    if let Some(public) = text("public") {
        print::note(&format!("its public half, for the receiver: {public}"));
    }
    print::note(&match text("previous_until") {
        Some(until) => format!(
            "{webhook} signs with it from now on, and until {until} with the one before it too, in webhook-signature; \
             signatures in other headers are of the new one alone"
        ),
        None => format!("{webhook} signs with it from now on, and with the one before it no more"),
    });
    if number("signing") > 2 {
        print::note(&format!("{} secrets of {webhook} sign now", number("signing")));
    }
    if number("dropped") > 0 {
        print::note(&format!(
            "{} that would have ended soonest had to make room, and no longer sign",
            number("dropped")
        ));
    }
    let is_encrypted = made.get("encrypted").and_then(Value::as_bool) == Some(true);
    let shown = if is_encrypted { "" } else { " and stands in the database as plain text" };
    print::note(&format!("it is not shown again{shown}"));
    Ok(())
}

pub(super) async fn revealed(one: &OneArgs, caller: &Caller) -> Result<(), Failure> {
    let found = caller.post(&format!("{}/reveal-secret", path_of(&one.webhook)), None).await?;
    if one.json {
        print::line(&found.to_string());
    } else {
        let secrets = found.get("secrets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for secret in secrets {
            let until = secret.get("until").and_then(Value::as_str);
            let until = until.map(|until| format!("  until {until}")).unwrap_or_default();
            print::line(&print::plain(&format!("{}{until}", cell(secret, "secret"))));
        }
        if secrets.is_empty() {
            print::note(&format!("{} has no secret: it signs nothing", print::plain(&one.webhook)));
        }
    }
    print::note("this is recorded in the ledger's table audit");
    Ok(())
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
