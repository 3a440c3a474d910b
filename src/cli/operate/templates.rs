//! `walhook templates`: the templates that there are, as the API tells them.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::super::print;
use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, part, show};
use super::table::{Align, cut};

/// How much of a list of webhooks is shown.
const SHOWN_CHARS: usize = 60;

#[derive(Debug, Args)]
pub(in crate::cli) struct TemplatesArgs {
    /// One of them, with the text of each version; without it: all
    #[arg(value_name = "NAME")]
    template: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    pub reach: Reach,
}

pub(super) async fn run(args: &TemplatesArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let Some(template) = &args.template else {
        let list = gather(caller, "/templates", &[], &args.page).await?;
        let columns = ["NAME", "CONTENT TYPE", "VERSIONS", "WEBHOOKS"].map(|name| (name, Align::Left));
        show(&list, &args.page, &columns, |template| {
            let webhooks = cut(&cell(template, "webhooks"), SHOWN_CHARS);
            vec![cell(template, "name"), cell(template, "latest/content_type"), versions(template), webhooks]
        });
        return Ok(ExitCode::SUCCESS);
    };
    let template = caller.get(&format!("/templates/{}", part(template))).await?.document;
    if args.page.json {
        print::line(&template.to_string());
    } else {
        print::line(&lines(&template).join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of the versions, with commas between them.
fn versions(template: &Value) -> String {
    let names = template.get("versions").and_then(Value::as_object);
    let names: Vec<&str> = names.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// The text behind each of its names.
fn lines(template: &Value) -> Vec<String> {
    let name = cell(template, "name");
    let latest =
        template.get("latest").filter(|latest| latest.is_object()).map(|latest| (name.clone(), latest));
    let older = template.get("versions").and_then(Value::as_object).into_iter().flatten();
    let older = older.map(|(version, text)| (format!("{name}@{version}"), text));
    let mut lines = Vec::new();
    for (name, text) in latest.into_iter().chain(older) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(print::plain(&format!("{name} ({})", cell(text, "content_type"))));
        lines.extend(cell(text, "text").lines().map(print::plain));
    }
    lines
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
}
