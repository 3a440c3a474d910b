//! `walhook templates`: shown, kept, tried and removed, as the API does it.

mod keep;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::super::print;
use super::ask::{Answer, ask};
use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, part, show};
use super::table::{Align, cut};

/// How much of a list of webhooks is shown.
const SHOWN_CHARS: usize = 60;

#[derive(Debug, Args)]
pub(in crate::cli) struct TemplatesArgs {
    /// One of them, with the text of each version (NAME@VERSION: of that alone); without it: all
    #[arg(value_name = "NAME")]
    template: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    pub reach: Reach,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the templates of file and database, in the order of names
    #[command(after_help = "Example:\n  walhook templates list --all --json")]
    List(PageArgs),
    /// Show one with the text of each version, or one version
    #[command(
        after_help = "Example:\n  walhook templates show slack\n  walhook templates show slack@v1 --json"
    )]
    Show(OneArgs),
    /// Keep a template in the database, or a new version of one that is there
    #[command(after_help = "Example:\n  walhook templates create slack --file slack.hbs\n  \
                            walhook templates create sms --text 'Order {{data.record.id}}' --content-type text/plain")]
    Create(keep::CreateArgs),
    /// Show what one makes of an event; nothing is sent or kept
    #[command(after_help = "Example:\n  walhook templates render slack --event orders.created\n  \
                            walhook templates render --file draft.hbs --data event.json")]
    Render(keep::RenderArgs),
    /// Remove a version of one that no webhook uses, or one with all its versions
    #[command(
        after_help = "Example:\n  walhook templates delete slack@v1\n  walhook templates delete slack --yes"
    )]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct OneArgs {
    /// Its name, or NAME@VERSION
    #[arg(value_name = "NAME")]
    template: String,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// Its name, or NAME@VERSION
    #[arg(value_name = "NAME")]
    template: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: &TemplatesArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    match (&args.verb, &args.template) {
        (None, None) => list(caller, &args.page).await?,
        (None, Some(template)) => one(caller, template, args.page.json).await?,
        (Some(Verb::List(page)), _) => list(caller, page).await?,
        (Some(Verb::Show(shown)), _) => one(caller, &shown.template, shown.json).await?,
        (Some(Verb::Create(args)), _) => keep::create(args, caller).await?,
        (Some(Verb::Render(args)), _) => keep::render(args, caller).await?,
        (Some(Verb::Delete(args)), _) => return delete(args, caller).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// `/templates/slack`, `/templates/slack/versions/v1`
fn path_of(template: &str) -> String {
    match template.split_once('@') {
        None => format!("/templates/{}", part(template)),
        Some((name, version)) => format!("/templates/{}/versions/{}", part(name), part(version)),
    }
}

async fn list(caller: &Caller, page: &PageArgs) -> Result<(), Failure> {
    let list = gather(caller, "/templates", &[], page).await?;
    let columns = ["NAME", "SOURCE", "CONTENT TYPE", "LATEST", "VERSIONS", "WEBHOOKS"];
    show(&list, page, &columns.map(|name| (name, Align::Left)), |template| {
        vec![
            cell(template, "name"),
            cell(template, "source"),
            cell(template, "latest/content_type"),
            cell(template, "latest/version"),
            cut(&versions(template), SHOWN_CHARS),
            cut(&cell(template, "webhooks"), SHOWN_CHARS),
        ]
    });
    Ok(())
}

async fn one(caller: &Caller, template: &str, as_json: bool) -> Result<(), Failure> {
    let found = caller.get(&path_of(template)).await?.document;
    if as_json {
        print::line(&found.to_string());
    } else if template.contains('@') {
        let mut told = Vec::new();
        text_lines(template, &found, &mut told);
        print::line(&told.join("\n"));
    } else {
        print::line(&lines(&found).join("\n"));
    }
    Ok(())
}

async fn delete(args: &DeleteArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let name = print::plain(&args.template);
    let what =
        if args.template.contains('@') { name.clone() } else { format!("{name} with all its versions") };
    // Without a terminal whoever typed this meant it.
    if !args.yes && ask(&format!("Remove {what}?")) == Answer::No {
        print::line("nothing was removed");
        return Ok(ExitCode::FAILURE);
    }
    let path = path_of(&args.template);
    caller.ask(http::Method::DELETE, &path, http::HeaderMap::new(), None).await?;
    print::line(&format!("{what} is removed"));
    Ok(ExitCode::SUCCESS)
}

/// The names of the versions, with commas between them.
fn versions(template: &Value) -> String {
    let names = template.get("versions").and_then(Value::as_object);
    let names: Vec<&str> = names.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// The text behind each of its names. Where the latest is one of the versions it is told once.
fn lines(template: &Value) -> Vec<String> {
    let name = cell(template, "name");
    let latest = template.get("latest").filter(|latest| latest.is_object());
    let is_latest = |version: &str| {
        latest.and_then(|latest| latest.get("version")).and_then(Value::as_str) == Some(version)
    };
    let first = latest.map(|latest| match latest.get("version").and_then(Value::as_str) {
        Some(version) => (format!("{name}, which is {name}@{version}"), latest),
        None => (name.clone(), latest),
    });
    let others = template.get("versions").and_then(Value::as_object).into_iter().flatten();
    let others = others.filter(|(version, _)| !is_latest(version));
    let others = others.map(|(version, text)| (format!("{name}@{version}"), text));
    let mut lines = Vec::new();
    for (name, text) in first.into_iter().chain(others) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        text_lines(&name, text, &mut lines);
    }
    lines
}

/// A text with its head: media type, what it is for, and what is wrong with it.
fn text_lines(name: &str, text: &Value, lines: &mut Vec<String>) {
    lines.push(print::plain(&format!("{name} ({})", cell(text, "content_type"))));
    for (field, word) in [("description", "for"), ("problem", "cannot be used")] {
        let told = text.get(field).and_then(Value::as_str);
        lines.extend(told.map(|told| print::plain(&format!("{word}: {told}"))));
    }
    lines.extend(cell(text, "text").lines().map(print::plain));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_reads_with_the_text_of_each_version() {
        let text = |text: &str| json!({"content_type": "text/plain", "text": text});
        let template =
            json!({"name": "slack", "latest": text("now\nhere"), "versions": {"v1": text("then\u{7}")}});
        let expect = "slack (text/plain)\nnow\nhere\n\nslack@v1 (text/plain)\nthen\u{fffd}";
        assert_eq!(lines(&template).join("\n"), expect);
        assert_eq!(versions(&template), "v1");
        assert_eq!(versions(&json!({"versions": {}})), "-");
    }

    #[test]
    fn the_latest_of_the_database_is_told_once_with_its_version() {
        let text = |text: &str, version: &str| {
            json!({"content_type": "text/plain", "text": text, "version": version, "description": "for people",
                "problem": null})
        };
        let versions = json!({"v1": text("then", "v1"), "v2": text("now", "v2")});
        let template = json!({"name": "sms", "latest": text("now", "v2"), "versions": versions});
        let expect = "sms, which is sms@v2 (text/plain)\nfor: for people\nnow\n\nsms@v1 (text/plain)\nfor: for people\nthen";
        assert_eq!(lines(&template).join("\n"), expect);
        assert_eq!(
            (path_of("a b"), path_of("a@v/1")),
            ("/templates/a%20b".into(), "/templates/a/versions/v%2F1".into())
        );
    }
}
