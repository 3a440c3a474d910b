//! `walhook keys`: who may use the API, as the API does it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::{HeaderMap, Method};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};

use super::super::print;
use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, part, show};
use super::table::Align;
use crate::clock::Clock;
use crate::control::keys::Scope;

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key; it is shown once
    #[command(after_help = "Example:\n  walhook keys create dashboard --scope webhook:read --expires 90d")]
    Create {
        /// What it is for
        name: String,
        /// What it may do: webhook:read, webhook:write, incoming:write, admin; more than one as you like
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = scope)]
        scopes: Vec<Scope>,
        /// Whose it is: then it opens what is this tenant's alone
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// When it expires: a time with its zone, or in how long, such as 90d
        #[arg(long, value_name = "TIME", value_parser = when)]
        expires: Option<When>,
        /// Print the API's document
        #[arg(long)]
        json: bool,
    },
    /// List the keys: what they are for, what they may do, when they were used
    #[command(after_help = "Example:\n  walhook keys list --all --json")]
    List(PageArgs),
    /// Refuse a key from now on, at every instance
    #[command(after_help = "Example:\n  walhook keys revoke wk_0123456789abcdef")]
    Revoke {
        /// The part of the key before its last underscore
        id: String,
        /// Print the API's document
        #[arg(long)]
        json: bool,
    },
}

/// A moment as it was typed.
#[derive(Debug, Clone)]
enum When {
    At(Timestamp),
    In(Span),
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::named(text).ok_or_else(|| format!("expected one of {names}"))
}

fn when(text: &str) -> Result<When, String> {
    if let Ok(at) = text.parse() {
        return Ok(When::At(at));
    }
    let span = text.parse::<Span>().ok().filter(|span| span.is_positive());
    let expected =
        "expected a time with its zone, such as 2027-01-31T08:00:00Z, or in how long, such as 90d or 12h";
    span.map(When::In).ok_or_else(|| expected.to_owned())
}

impl When {
    /// The moment, where it is now `now`; a span that reaches beyond time is its end.
    fn at(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => *at,
            Self::In(span) => {
                let then = now.to_zoned(TimeZone::UTC).checked_add(*span);
                then.map_or(Timestamp::MAX, |then| then.timestamp())
            }
        }
    }
}

pub(super) async fn run(args: &KeysArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    match &args.verb {
        Verb::Create { name, scopes, tenant, expires, json } => {
            let expires_at = expires.as_ref().map(|when| when.at(clock.now()));
            let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            let document =
                json!({ "name": name, "scopes": scopes, "tenant": tenant, "expires_at": expires_at });
            let made = caller.post("/keys", Some(&document)).await?;
            if *json {
                print::line(&made.to_string());
            } else {
                print::note("The key is shown this once; only its hash is kept.");
                print::line(&print::plain(&cell(&made, "key")));
            }
        }
        Verb::List(page) => {
            let list = gather(caller, "/keys", &[], page).await?;
            let columns = ["ID", "NAME", "SCOPES", "TENANT", "STATE", "EXPIRES", "LAST USED"];
            show(&list, page, &columns.map(|name| (name, Align::Left)), |key| row(key, clock.now()));
        }
        Verb::Revoke { id, json } => {
            let path = format!("/keys/{}", part(id));
            let key = caller.ask(Method::DELETE, &path, HeaderMap::new(), None).await?.document;
            print::line(&if *json {
                key.to_string()
            } else {
                print::plain(&format!("{} ({}) is refused from now on", cell(&key, "id"), cell(&key, "name")))
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(key: &Value, now: Timestamp) -> Vec<String> {
    let time = |field| cell(key, field).parse::<Timestamp>().ok();
    let minute = |field| time(field).map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string());
    let state = match (time("revoked_at"), time("expires_at")) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now => "expired",
        _ => "valid",
    };
    vec![
        cell(key, "id"),
        cell(key, "name"),
        cell(key, "scopes").replace(',', " "),
        cell(key, "tenant"),
        state.to_owned(),
        minute("expires_at"),
        minute("last_used_at"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_expires_at_a_time_or_in_so_long() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let at = |text: &str| when(text).map(|when| when.at(now).to_string());
        assert_eq!(at("2027-01-31T10:00:00+02:00").unwrap(), "2027-01-31T08:00:00Z");
        assert_eq!(at("90d").unwrap(), "2026-05-01T08:00:00Z");
        for wrong in ["", "soon", "-2h", "0s", "90"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_says_which_keys_are_valid() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let key = |expires: &str, revoked: &str| {
            let key = json!({
                "id": "wk_1", "name": "a", "scopes": ["webhook:read", "webhook:write"], "tenant": null,
                "expires_at": expires, "last_used_at": null, "revoked_at": revoked,
            });
            row(&key, now).join("|")
        };
        let (past, future) = ("2026-01-31T08:00:00Z", "2026-02-01T08:00:00.5Z");
        assert_eq!(key(past, ""), "wk_1|a|webhook:read webhook:write|-|expired|2026-01-31 08:00|-");
        assert_eq!(key(past, past), "wk_1|a|webhook:read webhook:write|-|revoked|2026-01-31 08:00|-");
        assert_eq!(key(future, ""), "wk_1|a|webhook:read webhook:write|-|valid|2026-02-01 08:00|-");
    }
}
