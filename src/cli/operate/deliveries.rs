//! `walhook deliveries`: searched, shown, sent again, cancelled, as the API does it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::super::print;
use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, moment, part, show};
use super::retry::{Status, When, when};
use super::table::{Align, cut, table};
use crate::clock::Clock;

/// How much of an error a list shows.
const ERROR_CHARS: usize = 50;

#[derive(Debug, Args)]
pub(in crate::cli) struct DeliveriesArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Search them, newest first
    #[command(
        after_help = "Example:\n  walhook deliveries list --webhook crm --status failed --since 2h\n  \
                            walhook deliveries list --table orders --key 7 --json"
    )]
    List(Box<ListArgs>),
    /// Show one with its request, its attempts and what was answered
    #[command(after_help = "Example:\n  walhook deliveries get crm dlv_0001000000000000")]
    Get(OneArgs),
    /// Send one that has ended again, with the same id and the same bytes
    #[command(after_help = "Example:\n  walhook deliveries retry crm dlv_0001000000000000\n  \
                            walhook deliveries retry crm dlv_0001000000000000 --status delivered")]
    Retry(RetryOneArgs),
    /// End one that waits, without another attempt
    #[command(after_help = "Example:\n  walhook deliveries cancel crm dlv_0001000000000000")]
    Cancel(OneArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Of this webhook
    #[arg(long, value_name = "NAME")]
    webhook: Option<String>,
    /// In one of these states: pending, retrying, held, delivered, failed, cancelled
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Of event types like this, with * for any run of characters
    #[arg(long, value_name = "PATTERN")]
    event: Option<String>,
    /// Of this table; shop.orders outside schema public
    #[arg(long)]
    table: Option<String>,
    /// Of the row of this key
    #[arg(long)]
    key: Option<String>,
    /// Whose last attempt went like this: timeout, unreachable, refused, a status as 503, or a class as 5xx
    #[arg(long, value_name = "CAUSE")]
    error: Option<String>,
    /// Of changes committed at TIME or later: 2026-01-31T08:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Of changes committed before TIME
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
struct OneArgs {
    /// The webhook's name
    webhook: String,
    /// The delivery's id
    delivery: String,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RetryOneArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How it ended; what was delivered is sent only where this says so [default: failed or cancelled]
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
    /// Only where so many attempts of it were made, and then however short a time ago it was sent again
    #[arg(long, value_name = "COUNT")]
    attempts: Option<u32>,
}

pub(super) async fn run(args: &DeliveriesArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    match &args.verb {
        Verb::List(args) => list(args, caller, clock).await?,
        Verb::Get(one) => {
            let delivery = caller.get(&path_of(one)).await?.document;
            if one.json {
                print::line(&delivery.to_string());
            } else {
                print::line(&lines(&delivery).join("\n"));
            }
        }
        Verb::Retry(RetryOneArgs { one, status, attempts }) => {
            let status: Vec<_> = status.iter().map(|status| status.as_str()).collect();
            let wish = json!({ "status": (!status.is_empty()).then_some(status), "attempts": attempts });
            act(one, caller, ("retry", Some(&wish)), "is on its way again").await?;
        }
        Verb::Cancel(one) => act(one, caller, ("cancel", None), "is cancelled").await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(one: &OneArgs) -> String {
    format!("/webhooks/{}/deliveries/{}", part(&one.webhook), part(&one.delivery))
}

async fn act(
    one: &OneArgs,
    caller: &Caller,
    (verb, wish): (&str, Option<&Value>),
    done: &str,
) -> Result<(), Failure> {
    let path = format!("{}/{verb}", path_of(one));
    let delivery = caller.ask(Method::POST, &path, HeaderMap::new(), wish).await?.document;
    if one.json {
        print::line(&delivery.to_string());
    } else {
        print::line(&print::plain(&format!("{} {done}", one.delivery)));
    }
    Ok(())
}

async fn list(args: &ListArgs, caller: &Caller, clock: &Clock) -> Result<(), Failure> {
    let time = |when: &Option<When>| when.as_ref().map(|when| when.at(clock.now()).to_string());
    let status = (!args.status.is_empty()).then(|| args.status.join(","));
    let query = [
        ("webhook", args.webhook.clone()),
        ("status", status),
        ("event", args.event.clone()),
        ("table", args.table.clone()),
        ("key", args.key.clone()),
        ("error", args.error.clone()),
        ("since", time(&args.since)),
        ("until", time(&args.until)),
    ];
    let list = gather(caller, "/deliveries", &query, &args.page).await?;
    let left = Align::Left;
    let columns = [
        ("ID", left),
        ("WEBHOOK", left),
        ("EVENT", left),
        ("KEY", left),
        ("COMMITTED (UTC)", left),
        ("STATUS", left),
        ("TRIES", Align::Right),
        ("LAST", left),
    ];
    show(&list, &args.page, &columns, |delivery| {
        vec![
            cell(delivery, "id"),
            cell(delivery, "webhook"),
            cell(delivery, "event"),
            cell(delivery, "key"),
            moment(delivery, "committed_at"),
            cell(delivery, "status"),
            cell(delivery, "attempt_count"),
            cut(&outcome(delivery.get("last_attempt")), ERROR_CHARS),
        ]
    });
    Ok(())
}

/// How an attempt went: `HTTP 503`, `connection refused by …`.
fn outcome(attempt: Option<&Value>) -> String {
    let Some(attempt) = attempt.filter(|attempt| attempt.is_object()) else { return "-".to_owned() };
    match (attempt.get("error").and_then(Value::as_str), attempt.get("http_status").and_then(Value::as_i64)) {
        (Some(error), _) => error.to_owned(),
        (None, Some(status)) => format!("HTTP {status}"),
        (None, None) => cell(attempt, "outcome"),
    }
}

/// A delivery in full: its fields, its request, a line an attempt.
fn lines(delivery: &Value) -> Vec<String> {
    let fields = [
        "id",
        "event_id",
        "event",
        "webhook",
        "status",
        "fail_reason",
        "operation",
        "schema",
        "table",
        "key",
        "committed_at",
        "recorded_at",
        "due_at",
        "finished_at",
    ];
    let mut lines: Vec<String> = Vec::new();
    for field in fields {
        if delivery.get(field).is_some_and(|value| !value.is_null()) {
            lines.push(print::plain(&format!("{field:<12}  {}", cell(delivery, field))));
        }
    }
    lines.push(String::new());
    let headers = delivery.pointer("/request/headers").and_then(Value::as_array);
    for header in headers.into_iter().flatten() {
        lines.push(print::plain(&format!("{}: {}", cell(header, "name"), cell(header, "value"))));
    }
    lines.push(String::new());
    lines.push(match delivery.pointer("/request/body/content").and_then(Value::as_str) {
        Some(body) => body.lines().map(print::plain).collect::<Vec<_>>().join("\n"),
        None => "the body was not kept".to_owned(),
    });
    lines.push(String::new());
    let attempts = delivery.get("attempts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if attempts.is_empty() {
        lines.push("no attempt is known".to_owned());
        return lines;
    }
    let columns = [
        ("TRY", Align::Right),
        ("AT (UTC)", Align::Left),
        ("MS", Align::Right),
        ("WENT", Align::Left),
        ("ANSWERED", Align::Left),
    ];
    let row = |attempt: &Value| {
        let response = attempt.pointer("/response/content").and_then(Value::as_str);
        vec![
            cell(attempt, "number"),
            moment(attempt, "at"),
            cell(attempt, "took_ms"),
            outcome(Some(attempt)),
            response.map_or_else(|| "-".to_owned(), |text| cut(text, ERROR_CHARS)),
        ]
    };
    lines.extend(table(&columns, &attempts.iter().map(row).collect::<Vec<_>>()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_reads_with_its_request_and_its_attempts() {
        let delivery = json!({
            "id": "dlv_1", "status": "failed", "fail_reason": null, "key": "7\u{1b}",
            "request": {"headers": [{"name": "webhook-id", "value": "dlv_1"}], "body": {"encoding": "utf-8", "content": "{}"}},
            "attempts": [{"number": 1, "at": "2026-01-31T08:00:00Z", "took_ms": 1.5, "outcome": "responded",
                "http_status": 503, "error": null, "response": {"encoding": "utf-8", "content": "no\u{7}"}}],
        });
        let told = lines(&delivery).join("\n");
        let expect = "id            dlv_1\nstatus        failed\nkey           7\u{fffd}\n\nwebhook-id: dlv_1\n\n{}\n\n\
                      TRY  AT (UTC)              MS  WENT      ANSWERED\n  1  2026-01-31 08:00:00  1.5  HTTP 503  no\u{fffd}";
        assert_eq!(told, expect);
    }

    #[test]
    fn an_attempt_is_told_by_its_error_or_its_status() {
        for (attempt, expect) in [
            (json!({"error": "timed out", "http_status": null}), "timed out"),
            (json!({"error": null, "http_status": 204}), "HTTP 204"),
            (json!({"outcome": "refused"}), "refused"),
            (Value::Null, "-"),
        ] {
            assert_eq!(outcome(Some(&attempt)), expect);
        }
    }
}
