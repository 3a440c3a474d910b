//! `walhook keys`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::json;

use super::super::print;
use super::Here;
use super::table::{Align, table};
use crate::control::keys::{self, NewKey, Scope};
use crate::control::{Actor, ControlError};
use crate::ledger::keys::ApiKey;

/// Keys asked for at once.
const PAGE: u32 = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysArgs {
    #[command(subcommand)]
    verb: Verb,
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
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// List the keys: what they are for, what they may do, when they were used
    #[command(after_help = "Example:\n  walhook keys list --json")]
    List {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse a key from now on, at every instance
    #[command(after_help = "Example:\n  walhook keys revoke wk_0123456789abcdef")]
    Revoke {
        /// The part of the key before its last underscore
        id: String,
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

fn as_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id, "name": key.name, "scopes": key.scopes, "tenant": key.tenant, "created_at": key.created_at,
        "expires_at": key.expires_at, "last_used_at": key.last_used_at, "revoked_at": key.revoked_at,
    })
}

pub(super) async fn run(args: &KeysArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let (desk, actor) = (here.desk(), Actor::command_line());
    match &args.verb {
        Verb::Create { name, scopes, tenant, expires, json } => {
            let expires_at = expires.as_ref().map(|when| when.at(here.clock.now()));
            let new =
                NewKey { name: name.clone(), scopes: scopes.clone(), tenant: tenant.clone(), expires_at };
            let made = keys::create(&desk, &actor, &new).await?;
            if *json {
                let mut told = as_json(&made.key);
                if let Some(told) = told.as_object_mut() {
                    told.insert("key".to_owned(), made.secret.into());
                }
                print::line(&told.to_string());
            } else {
                print::note("The key is shown this once; only its hash is kept.");
                print::line(&made.secret);
            }
        }
        Verb::List { json } => {
            let all = all(&desk, &actor).await?;
            if *json {
                print::line(&json!(all.iter().map(as_json).collect::<Vec<_>>()).to_string());
            } else {
                print::line(&lines(&all, here.clock.now()).join("\n"));
            }
        }
        Verb::Revoke { id } => {
            let key = keys::revoke(&desk, &actor, id).await?;
            print::line(&format!("{} ({}) is refused from now on", key.id, print::plain(&key.name)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(desk: &crate::control::Desk, actor: &Actor) -> Result<Vec<ApiKey>, ControlError> {
    let mut all: Vec<ApiKey> = Vec::new();
    loop {
        let after = all.last().map(|key| key.id.clone());
        let page = keys::list(desk, actor, after.as_deref(), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn lines(all: &[ApiKey], now: Timestamp) -> Vec<String> {
    let left = Align::Left;
    let columns = [
        ("ID", left),
        ("NAME", left),
        ("SCOPES", left),
        ("TENANT", left),
        ("STATE", left),
        ("EXPIRES", left),
        ("LAST USED", left),
    ];
    let minute =
        |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string());
    let row = |key: &ApiKey| {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now => "expired",
            _ => "valid",
        };
        let scopes = key.scopes.join(" ");
        vec![
            key.id.clone(),
            key.name.clone(),
            scopes,
            key.tenant.clone().unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
            minute(key.expires_at),
            minute(key.last_used_at),
        ]
    };
    table(&columns, &all.iter().map(row).collect::<Vec<_>>())
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
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let key = ApiKey {
            id: "wk_1".to_owned(),
            name: "a".to_owned(),
            scopes: vec!["admin".to_owned()],
            tenant: None,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: time("2026-01-31T08:00:00Z"),
            last_used_at: None,
            revoked_at: None,
        };
        let revoked = ApiKey { revoked_at: time("2026-01-01T00:00:00Z"), ..key.clone() };
        let now = "2026-01-31T08:00:00Z".parse().unwrap();
        let told = lines(&[key, revoked], now);
        assert_eq!(told[1], "wk_1  a     admin   -       expired  2026-01-31 08:00  -");
        assert_eq!(told[2], "wk_1  a     admin   -       revoked  2026-01-31 08:00  -");
    }
}
