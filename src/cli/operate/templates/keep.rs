//! `walhook templates create`, `walhook templates render`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use super::super::super::print;
use super::super::call::{Caller, Failure, cell, header};
use super::super::webhooks::{json_of, text_of};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["file", "text"]))]
pub(super) struct CreateArgs {
    /// Its name; that of one that is there makes a new version of it
    #[arg(value_name = "NAME")]
    template: String,
    /// The file that holds the text; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The text itself
    #[arg(long)]
    text: Option<String>,
    /// The version's name [default: the next of v1, v2, …]
    #[arg(long, value_name = "NAME")]
    version: Option<String>,
    /// The media type of what it makes [default: application/json]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Tells a repetition, within a day, from another create
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("shape").required(true).args(["template", "file"]))]
pub(super) struct RenderArgs {
    /// A template of file or database; NAME@VERSION for one of its versions
    #[arg(value_name = "NAME")]
    template: Option<String>,
    /// A text that is tried; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The media type of what that text makes [default: application/json]
    #[arg(long, value_name = "TYPE", requires = "file")]
    content_type: Option<String>,
    /// The event's type; without --data a sample of it is taken
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// JSON with "record" and, as you like, "old", …, or a whole standard body; - is standard input [default: a sample]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Only the body
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

/// A document of those fields that are there.
fn document<const N: usize>(fields: [(&str, Option<String>); N]) -> Map<String, Value> {
    let given = |(field, text): (&str, Option<String>)| Some((field.to_owned(), Value::from(text?)));
    fields.into_iter().filter_map(given).collect()
}

pub(super) async fn create(args: &CreateArgs, caller: &Caller) -> Result<(), Failure> {
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => text_of(path)?,
        (None, None) => String::new(),
    };
    let document = document([
        ("name", Some(args.template.clone())),
        ("text", Some(text)),
        ("version", args.version.clone()),
        ("content_type", args.content_type.clone()),
        ("description", args.description.clone()),
    ]);
    let headers = match &args.idempotency_key {
        Some(key) => header("idempotency-key", key)?,
        None => HeaderMap::new(),
    };
    let made = caller.ask(Method::POST, "/templates", headers, Some(&document.into())).await?.document;
    let (name, version) = (cell(&made, "name"), cell(&made, "version"));
    print::line(&if args.json {
        made.to_string()
    } else {
        print::plain(&format!(
            "{name}@{version} is kept; webhooks with the template {name} follow it within a second"
        ))
    });
    Ok(())
}

pub(super) async fn render(args: &RenderArgs, caller: &Caller) -> Result<(), Failure> {
    let mut document = document([
        ("template", args.template.clone()),
        ("text", args.file.as_deref().map(text_of).transpose()?),
        ("content_type", args.content_type.clone()),
        ("event", args.event.clone()),
    ]);
    if let Some(path) = &args.data {
        document.insert("data".to_owned(), json_of(path)?);
    }
    let made = caller.post("/templates/render", Some(&json!(document))).await?;
    if args.json {
        print::line(&made.to_string());
        return Ok(());
    }
    let body = cell(&made, "body/content");
    if args.raw {
        print::bytes(body.as_bytes());
        return Ok(());
    }
    print::line(&print::plain(&format!("content-type: {}", cell(&made, "content_type"))));
    print::line("");
    body.lines().for_each(|line| {
        print::line(&print::plain(line));
    });
    Ok(())
}
