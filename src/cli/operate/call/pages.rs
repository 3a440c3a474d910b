//! Lists: one page after the other, until there are as many entries as were asked for.

use clap::Args;
use serde_json::{Value, json};

use super::super::super::print;
use super::super::table::{Align, table};
use super::{Caller, Failure};
use crate::domain::limits;

/// How much of a list is wanted.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PageArgs {
    /// How many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Where to go on: the `next_cursor` of the list before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print the API's document
    #[arg(long)]
    pub(in crate::cli::operate) json: bool,
}

/// Asks for a list: `{data, next_cursor}`, as the API has it.
pub(in crate::cli::operate) async fn gather(
    caller: &Caller,
    path: &str,
    query: &[(&'static str, Option<String>)],
    page: &PageArgs,
) -> Result<Value, Failure> {
    let mut data = Vec::new();
    let mut cursor = page.cursor.clone();
    let wanted = if page.all { usize::MAX } else { usize::try_from(page.limit).unwrap_or(usize::MAX) };
    let most = usize::try_from(limits::API_PAGE).unwrap_or(usize::MAX);
    loop {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.append_pair("limit", &(wanted - data.len()).min(most).to_string());
        text.extend_pairs(query.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))));
        text.extend_pairs(cursor.iter().map(|cursor| ("cursor", cursor)));
        let mut answer = caller.get(&format!("{path}?{}", text.finish())).await?.document;
        if let Some(Value::Array(more)) = answer.get_mut("data").map(Value::take) {
            data.extend(more);
        }
        cursor = answer.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || data.len() >= wanted {
            return Ok(json!({ "data": data, "next_cursor": cursor }));
        }
    }
}

/// All entries of a list.
pub(in crate::cli::operate) async fn gather_all(caller: &Caller, path: &str) -> Result<Vec<Value>, Failure> {
    let page = PageArgs { limit: limits::API_PAGE, cursor: None, all: true, json: false };
    let mut list = gather(caller, path, &[], &page).await?;
    match list.get_mut("data").map(Value::take) {
        Some(Value::Array(all)) => Ok(all),
        _ => Ok(Vec::new()),
    }
}

/// Prints a list: as it is for programs, for people in columns, with a word where there is more.
pub(in crate::cli::operate) fn show(
    list: &Value,
    page: &PageArgs,
    columns: &[(&str, Align)],
    row: impl Fn(&Value) -> Vec<String>,
) {
    if page.json {
        print::line(&list.to_string());
        return;
    }
    let data = list.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if data.is_empty() {
        print::line("there is nothing to list");
    } else {
        print::line(&table(columns, &data.iter().map(row).collect::<Vec<_>>()).join("\n"));
    }
    if let Some(cursor) = list.get("next_cursor").and_then(Value::as_str) {
        print::note(&format!("there is more: --all, or --cursor {}", print::plain(cursor)));
    }
}

/// A field of an entry as people read it; a field within fields by `a/b`.
pub(in crate::cli::operate) fn cell(entry: &Value, pointer: &str) -> String {
    match entry.pointer(&format!("/{pointer}")) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// A moment without what is smaller than a second.
pub(in crate::cli::operate) fn moment(entry: &Value, pointer: &str) -> String {
    let text = cell(entry, pointer);
    text.parse::<jiff::Timestamp>().map_or(text, |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reads_well() {
        let entry = json!({"a": null, "b": "x", "c": ["x", "y"], "d": {"e": 7}, "f": [1],
            "at": "2026-01-31T08:00:00.123456Z"});
        for (pointer, expect) in [
            ("a", "-"),
            ("b", "x"),
            ("c", "x,y"),
            ("d/e", "7"),
            ("d/x", "-"),
            ("f", "[1]"),
            ("d", "{\"e\":7}"),
        ] {
            assert_eq!(cell(&entry, pointer), expect, "{pointer}");
        }
        assert_eq!(moment(&entry, "at"), "2026-01-31 08:00:00");
        assert_eq!(moment(&entry, "b"), "x");
    }
}
