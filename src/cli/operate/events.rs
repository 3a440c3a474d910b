//! `walhook events`: the event types that exist, as the API tells them.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::super::print;
use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, part, show};
use super::table::{Align, cut};

/// How much of a list of webhooks and of a description is shown.
const SHOWN_CHARS: usize = 60;

#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// One of them, with its JSON Schema and a sample; without it: all
    #[arg(value_name = "TYPE")]
    event: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    pub reach: Reach,
}

pub(super) async fn run(args: &EventsArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let Some(event) = &args.event else {
        let list = gather(caller, "/events", &[], &args.page).await?;
        let columns = [("TYPE", Align::Left), ("WEBHOOKS", Align::Right), ("WHAT", Align::Left)];
        show(&list, &args.page, &columns, |event| {
            let what = cut(&cell(event, "description"), SHOWN_CHARS);
            vec![cell(event, "type"), cell(event, "subscriber_count"), what]
        });
        return Ok(ExitCode::SUCCESS);
    };
    let event = caller.get(&format!("/events/{}", part(event))).await?.document;
    if args.page.json {
        print::line(&event.to_string());
    } else {
        print::line(&lines(&event).join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What it is, who gets it, a sample of it, and the schema.
fn lines(event: &Value) -> Vec<String> {
    let pretty = |key: &str| {
        let value = event.get(key).unwrap_or(&Value::Null);
        serde_json::to_string_pretty(value).unwrap_or_default()
    };
    let told = format!("{}: {}", cell(event, "type"), cell(event, "description"));
    let webhooks = format!("webhooks: {} ({})", cell(event, "subscriber_count"), cell(event, "subscribers"));
    let mut lines = vec![print::plain(&told), print::plain(&webhooks)];
    for (name, key) in [("a sample:", "sample"), ("its JSON Schema:", "json_schema")] {
        lines.extend([String::new(), name.to_owned()]);
        lines.extend(pretty(key).lines().map(print::plain));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_type_reads_with_its_sample_and_schema() {
        let event = json!({"type": "orders.created", "description": "a row\u{7} of orders", "subscribers": ["a", "b"],
            "subscriber_count": 2, "sample": {"id": 1}, "json_schema": true});
        let expect = "orders.created: a row\u{fffd} of orders\nwebhooks: 2 (a,b)\n\na sample:\n{\n  \"id\": 1\n}\n\n\
                      its JSON Schema:\ntrue";
        assert_eq!(lines(&event).join("\n"), expect);
    }
}
