//! A webhook's secret, replaced: the new one is the current one at once, and what it replaces goes on signing beside it for
//! a while, so that the receiver can follow in its own time.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;

use super::{refuse_of_file, secrets_of, unknown};
use crate::catalog;
use crate::control::{About, Actor, ControlError, Desk, declared, webhooks};
use crate::domain::{SignatureScheme, SigningSecret, limits};
use crate::ledger::{LedgerError, secrets};
use crate::sign::{self, Shape, new_secret, public_half};

/// What to write for a webhook of the file.
const IN_THE_FILE: &str = "Make a new secret with `walhook secrets new`, put it first and the old one behind it with an end: \
     secret = [{ env = \"NEW\" }, { env = \"OLD\", until = \"2026-12-01T00:00:00Z\" }]. SIGHUP reads the file again.";

/// A webhook's new secret. It is shown this once.
#[derive(Debug)]
pub struct Rotated {
    /// The new secret.
    pub secret: SecretString,
    /// The half of it that the receiver gets, where it is a key pair.
    pub public: Option<String>,
    /// Until when the one before it signs too; `None`: there was none, or it ended at once.
    pub until: Option<Timestamp>,
    /// How many secrets sign from now on, this one included.
    pub signing: usize,
    /// How many older ones that still signed had to make room.
    pub dropped: usize,
    /// Whether it stands encrypted in the database.
    pub is_encrypted: bool,
}

/// Makes a new secret for the webhook of a row; the one before it signs too for as long as `overlap`. A running instance
/// follows within a second.
pub async fn rotate(
    desk: &Desk,
    actor: &Actor,
    webhook: &str,
    overlap: Duration,
) -> Result<Rotated, ControlError> {
    let config = &*desk.config();
    if actor.sight.tenant().is_some() {
        webhooks::get(desk, actor, webhook).await?;
    }
    refuse_of_file(config, webhook, IN_THE_FILE)?;
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let (snapshot, _) = declared(config, &session).await?;
    let failed = |source| LedgerError::Statement { doing: "rotating a webhook's secret", source };
    let transaction = session.transaction().await.map_err(failed)?;
    let held = secrets::lock(&transaction, webhook).await?;
    let held = held.ok_or_else(|| unknown(&snapshot, webhook))?;
    let mut before = secrets_of(config, &held)?;
    if snapshot.by_name(webhook).is_none() {
        // Its row is set aside: perhaps because of a secret that cannot sign, which would keep it so.
        before
            .retain(|secret| sign::check(&[secret.text.clone().into()], &SignatureScheme::Standard).is_ok());
    }
    let secret = new_secret(before.first().map_or(Shape::Shared, |current| Shape::of(&current.text)))?;
    let now = desk.clock.now();
    let until = now.checked_add(overlap).unwrap_or(Timestamp::MAX);
    let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
    let next = successors(secret.clone(), before, now, until);
    let (kept, dropped) =
        next.map_err(|count| ControlError::TooManySecrets { webhook: webhook.to_owned(), count })?;

    let keys = &config.security.encryption_keys;
    let text = catalog::secrets_text(webhook, &kept, keys)?;
    secrets::set_secret(&transaction, webhook, &text).await?;
    let until = kept.get(1).and_then(|before| before.until).filter(|end| *end == until);
    let is_encrypted = !keys.is_empty();
    let detail = json!({
        "until": until.map(|until| until.to_string()), "signing": kept.len(), "dropped": dropped, "encrypted": is_encrypted,
    });
    actor.note_that(&transaction, ("webhook.rotate", webhook), detail).await?;
    transaction.commit().await.map_err(failed)?;
    let public = public_half(&secret);
    Ok(Rotated { secret, public, until, signing: kept.len(), dropped, is_encrypted })
}

/// The secrets after a rotation, and how many that still signed are not among them. The one that was current signs until
/// `until`, the others as they did. What has ended goes; beyond the limit so do those that end soonest, but never the one
/// that has just been replaced. An error is the number of those without an end, where they leave no room.
fn successors(
    new: SecretString,
    before: Vec<SigningSecret>,
    now: Timestamp,
    until: Timestamp,
) -> Result<(Vec<SigningSecret>, usize), usize> {
    let mut kept = vec![SigningSecret::from(new)];
    let ending = |(index, secret): (usize, SigningSecret)| match index {
        0 => SigningSecret { until: Some(until), ..secret },
        _ => secret,
    };
    let is_over = |secret: &SigningSecret| secret.until.is_some_and(|until| until <= now);
    kept.extend(before.into_iter().enumerate().map(ending).filter(|secret| !is_over(secret)));
    let mut dropped = 0;
    while kept.len() > limits::SECRETS {
        let ends = kept.iter().enumerate().skip(2).filter_map(|(index, secret)| Some((secret.until?, index)));
        let Some((_, soonest)) = ends.min() else { return Err(kept.len() - 2) };
        kept.remove(soonest);
        dropped += 1;
    }
    Ok((kept, dropped))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Secrets by name, with the second of their end.
    fn secrets(of: &[(&str, Option<i64>)]) -> Vec<SigningSecret> {
        of.iter().map(|(text, until)| SigningSecret { text: (*text).into(), until: until.map(at) }).collect()
    }

    /// At second 100, with an overlap up to second 200 (or another).
    fn check(before: &[(&str, Option<i64>)], until: i64, expect: &[(&str, Option<i64>)], dropped: usize) {
        let (kept, gone) = successors("new".into(), secrets(before), at(100), at(until)).unwrap();
        let shown: Vec<_> =
            kept.iter().map(|s| (s.text.expose_secret(), s.until.map(Timestamp::as_second))).collect();
        assert_eq!((shown.as_slice(), gone), (expect, dropped));
    }

    #[test]
    fn the_new_secret_is_first_and_the_one_before_it_ends() {
        check(&[], 200, &[("new", None)], 0);
        check(&[("a", None)], 200, &[("new", None), ("a", Some(200))], 0);
        check(&[("a", None)], 100, &[("new", None)], 0);
        let before = [("a", None), ("over", Some(100)), ("b", Some(101)), ("for ever", None)];
        let after = [("new", None), ("a", Some(200)), ("b", Some(101)), ("for ever", None)];
        check(&before, 200, &after, 0);
    }

    #[test]
    fn however_often_it_is_rotated_the_number_of_secrets_has_a_bound() {
        let mut current = secrets(&[("0", None)]);
        for turn in 1..50 {
            let now = at(100 + turn);
            let until = at(100 + turn + 86_400);
            current = successors(turn.to_string().into(), current, now, until).unwrap().0;
            assert!(current.len() <= limits::SECRETS);
            assert_eq!(current[0].text.expose_secret(), turn.to_string());
            assert_eq!(current[1].text.expose_secret(), (turn - 1).to_string(), "the last one still signs");
            assert!(current[0].until.is_none() && current[1].until == Some(until));
        }
        // What ends soonest went first.
        let left: Vec<_> = current.iter().map(|secret| secret.text.expose_secret().to_owned()).collect();
        assert_eq!(left, (40..50).rev().map(|turn| turn.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn secrets_without_an_end_are_not_dropped_for_room() {
        let before: Vec<_> = (0..10).map(|_| ("for ever", None)).collect();
        let refused = successors("new".into(), secrets(&before), at(100), at(200));
        assert_eq!(refused.map(|(kept, dropped)| (kept.len(), dropped)), Err(9));
    }
}
