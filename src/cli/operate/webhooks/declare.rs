//! `walhook webhooks create`, `walhook webhooks update`: a file, and flags over it, become the API's document.
//!
//! Nothing is judged here but what cannot be read: the API judges, as it judges everybody's. Of a file that cannot be read
//! only the place is told, because there may be a secret in it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use http::{HeaderMap, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::super::super::print;
use super::super::call::{Caller, Failure, header};
use super::path_of;
use crate::domain::limits;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Its name, unless the file has it
    #[arg(required_unless_present = "file")]
    webhook: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Tells a repetition, within a day, from another create
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Its name
    webhook: String,
    #[command(flatten)]
    fields: Fields,
    /// Take a field away, such as filter or retry.jitter; more than one as you like
    #[arg(long, value_name = "FIELD")]
    unset: Vec<String>,
    /// Declare it anew: what is not named is gone, but for the secret
    #[arg(long, conflicts_with = "unset")]
    replace: bool,
    /// Only where it is still at this version [default: with --replace, the version that the file has]
    #[arg(long, value_name = "NUMBER")]
    version: Option<i64>,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Fields {
    /// A webhook in TOML, as under [[webhooks]], or in JSON, as `get --json` prints it; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where deliveries go
    #[arg(long)]
    url: Option<String>,
    /// Event types, with * for any run of characters, and commas between them
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    events: Vec<String>,
    /// A CEL condition on the row
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A header of each request; more than one as you like
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header_of)]
    headers: Vec<(String, String)>,
    /// The body's format: standard, cloudevents, supabase, …
    #[arg(long)]
    format: Option<String>,
    /// A template, instead of a format
    #[arg(long)]
    template: Option<String>,
    /// What it signs with; others on this machine can read the command line, so --secret-file is better
    #[arg(long, value_name = "SECRET", conflicts_with = "secret_file")]
    secret: Option<SecretString>,
    /// The file that holds what it signs with; - is standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Any field: a value in JSON, or a text; retry.jitter=0.2 is within another; more than one as you like
    #[arg(long, value_name = "FIELD=VALUE", value_parser = setting_of)]
    set: Vec<(String, Value)>,
}

fn header_of(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE, such as 'X-Api-Version: 3'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn setting_of(text: &str) -> Result<(String, Value), String> {
    let expected = "expected FIELD=VALUE, such as timeout=30s or retry.schedule='[\"5s\",\"1m\"]'";
    let (field, value) = text.split_once('=').ok_or(expected)?;
    if field.split('.').any(str::is_empty) {
        return Err(expected.to_owned());
    }
    Ok((field.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// Puts a value at `a.b`.
fn put(document: &mut Map<String, Value>, field: &str, value: Value) {
    match field.split_once('.') {
        None => {
            document.insert(field.to_owned(), value);
        }
        Some((first, rest)) => {
            let within = document.entry(first).or_insert_with(|| json!({}));
            if !within.is_object() {
                *within = json!({});
            }
            if let Value::Object(within) = within {
                put(within, rest, value);
            }
        }
    }
}

impl Fields {
    /// The document: the file's, and what flags say over it.
    fn document(&self) -> Result<Map<String, Value>, Failure> {
        let mut document = match &self.file {
            Some(path) => webhook_of(path)?,
            None => Map::new(),
        };
        let texts = [
            ("url", &self.url),
            ("filter", &self.filter),
            ("description", &self.description),
            ("format", &self.format),
            ("template", &self.template),
        ];
        for (field, text) in texts {
            document.extend(text.as_ref().map(|text| (field.to_owned(), text.as_str().into())));
        }
        if !self.events.is_empty() {
            document.insert("events".to_owned(), json!(self.events));
        }
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => Some(secret.expose_secret().to_owned()),
            (None, Some(path)) => Some(text_of(path)?.trim().to_owned()),
            (None, None) => None,
        };
        document.extend(secret.map(|secret| ("secret".to_owned(), secret.into())));
        for (name, value) in &self.headers {
            let headers = document.entry("headers").or_insert_with(|| json!({}));
            if let Value::Object(headers) = headers {
                headers.insert(name.clone(), value.as_str().into());
            }
        }
        for (field, value) in &self.set {
            put(&mut document, field, value.clone());
        }
        Ok(document)
    }
}

/// What `If-Match` says of a version; without one, whatever is there.
pub(super) fn tag(version: Option<i64>) -> String {
    version.map_or_else(|| "*".to_owned(), |version| format!("\"{version}\""))
}

pub(super) async fn create(args: &CreateArgs, caller: &Caller) -> Result<(), Failure> {
    let mut document = args.fields.document()?;
    if let Some(name) = &args.webhook {
        document.insert("name".to_owned(), name.as_str().into());
    }
    let made_here = !document.contains_key("secret");
    let headers = match &args.idempotency_key {
        Some(key) => header("idempotency-key", key)?,
        None => HeaderMap::new(),
    };
    let answer = caller.ask(Method::POST, "/webhooks", headers, Some(&document.into())).await?.document;
    if args.json {
        print::line(&answer.to_string());
        return Ok(());
    }
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(print::plain).unwrap_or_default();
    let (name, status) = (text("name"), text("status"));
    print::note(&format!("{name} is declared; it is {status} within a second"));
    if made_here {
        print::note("its secret is shown this once:");
        // Alone on standard output: it may go straight into a vault.
        print::line(&text("secret"));
    }
    Ok(())
}

pub(super) async fn update(args: &UpdateArgs, caller: &Caller) -> Result<(), Failure> {
    let mut document = args.fields.document()?;
    for field in &args.unset {
        put(&mut document, field, Value::Null);
    }
    if document.is_empty() {
        return Err(Failure::Told(
            "nothing is to be changed\n  hint: Name what: --url, --events, --set FIELD=VALUE, --file FILE, …"
                .to_owned(),
        ));
    }
    let of_file = document.get("version").and_then(Value::as_i64).filter(|_| args.replace);
    let expected = header("if-match", &tag(args.version.or(of_file)))?;
    let method = if args.replace { Method::PUT } else { Method::PATCH };
    if args.replace {
        document.entry("name").or_insert_with(|| args.webhook.as_str().into());
    }
    let answer =
        caller.ask(method, &path_of(&args.webhook), expected, Some(&document.into())).await?.document;
    if args.json {
        print::line(&answer.to_string());
        return Ok(());
    }
    let version = answer.get("version").and_then(Value::as_i64).unwrap_or_default();
    print::line(&print::plain(&format!("{} is at version {version}, live within a second", args.webhook)));
    Ok(())
}

pub(in crate::cli::operate) fn text_of(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limits::DECLARATION_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(limits::DECLARATION_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| refused(path, error.to_string()))?;
    Ok(text)
}

fn refused(path: &Path, reason: impl Into<String>) -> Failure {
    Failure::Input { path: path.display().to_string(), reason: reason.into() }
}

/// A document in JSON.
pub(in crate::cli::operate) fn json_of(path: &Path) -> Result<Value, Failure> {
    parsed(&text_of(path)?).map_err(|reason| refused(path, reason))
}

fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("it is not JSON: line {}, column {}", error.line(), error.column()))
}

fn webhook_of(path: &Path) -> Result<Map<String, Value>, Failure> {
    webhook_in(&text_of(path)?).map_err(|reason| refused(path, reason))
}

/// A webhook in JSON, or in TOML: by itself, or as the one of a file.
fn webhook_in(text: &str) -> Result<Map<String, Value>, String> {
    let document = if text.trim_start().starts_with('{') {
        parsed(text)?
    } else {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("it is not TOML: line {}: {}", before.matches('\n').count() + 1, error.message())
        })?;
        in_json(toml::Value::Table(table))
    };
    let one = "expected one webhook: its keys, or one [[webhooks]]";
    let Value::Object(mut document) = document else { return Err(one.to_owned()) };
    match document.get_mut("webhooks").map(Value::take) {
        None => Ok(document),
        Some(Value::Array(list)) => match <[Value; 1]>::try_from(list) {
            Ok([Value::Object(webhook)]) => Ok(webhook),
            _ => Err(one.to_owned()),
        },
        Some(_) => Err(one.to_owned()),
    }
}

fn in_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(is) => is.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.into_iter().map(in_json).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, in_json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_read_from_json_and_from_toml_alike() {
        let expect =
            json!({"name": "crm", "events": ["orders.*"], "retry": {"jitter": 0.5}, "concurrency": 4});
        for text in [
            "  {\"name\": \"crm\", \"events\": [\"orders.*\"], \"retry\": {\"jitter\": 0.5}, \"concurrency\": 4}",
            "name = \"crm\"\nevents = [\"orders.*\"]\nconcurrency = 4\n[retry]\njitter = 0.5",
            "[[webhooks]]\nname = \"crm\"\nevents = [\"orders.*\"]\nretry = { jitter = 0.5 }\nconcurrency = 4",
        ] {
            assert_eq!(webhook_in(text).map(Value::from), Ok(expect.clone()), "{text}");
        }
        let two = "[[webhooks]]\nname = \"a\"\n[[webhooks]]\nname = \"b\"";
        for wrong in [two, "webhooks = 7", "[webhooks.crm]\nurl = \"x\""] {
            assert_eq!(webhook_in(wrong).unwrap_err(), "expected one webhook: its keys, or one [[webhooks]]");
        }
    }

    #[test]
    fn i12_what_cannot_be_read_is_told_without_its_text() {
        for (text, place) in [
            ("{\"secret\": \"geheim\",", "line 1, column 20"),
            ("name = \"crm\"\nsecret = geheim", "line 2"),
            ("name = \"crm\"\nsecret = \"geheim\" \"geheim\"", "line 2"),
        ] {
            let told = webhook_in(text).unwrap_err();
            assert!(told.contains(place) && !told.contains("geheim"), "{told}");
        }
    }

    #[test]
    fn a_setting_is_json_or_a_text_and_may_be_within_another() {
        let mut document = Map::new();
        for text in ["timeout=30s", "retry.schedule=[\"5s\"]", "retry.jitter=0", "filter=a=b", "secret=null"]
        {
            let (field, value) = setting_of(text).unwrap();
            put(&mut document, &field, value);
        }
        let expect = json!({"timeout": "30s", "retry": {"schedule": ["5s"], "jitter": 0}, "filter": "a=b",
            "secret": null});
        assert_eq!(Value::from(document), expect);
        for wrong in ["timeout", "=x", "a..b=x", ".a=x"] {
            assert!(setting_of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(header_of("X-A: b:c"), Ok(("X-A".to_owned(), "b:c".to_owned())));
        assert!(header_of("X-A").is_err());
    }
}
