//! URLs that cannot be, and texts that would add a header of somebody else's: refused in the file and in a row alike, at
//! load, with the key's name and without the text.

use serde_json::{Value, json};

use super::*;
use crate::config::{Checks, Config, Sources, StoredTemplates, Strangers};

const FILE: &str = "[database]\nurl = 'postgres://db/app'\n";

fn loaded(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walhook.toml");
    std::fs::write(&path, text).unwrap();
    let checks = Checks {
        condition: &conditions_complaint,
        template: &template_complaint,
        connection: &|_| Ok(()),
        reach: &reach_complaint,
        stored: StoredTemplates::NONE,
    };
    let sources = Sources { path: Some(path), environment: Vec::new() };
    crate::config::load(&sources, &checks).map_err(|problems| problems.to_string())
}

/// A JSON value as TOML, which escapes texts the same way.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{} = {}", json!(name), toml(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn in_file(webhook: &Value) -> Result<(), String> {
    let keys = webhook.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {}\n", toml(value)));
    loaded(&format!("{FILE}[[webhooks]]\n{}", keys.collect::<String>())).map(drop)
}

fn in_row(webhook: &Value) -> Result<(), String> {
    let config = loaded(FILE).unwrap();
    let row = webhook.as_object().unwrap();
    check_row(row, (&config, StoredTemplates::NONE), Strangers::Refused).map(drop).map_err(|p| p.to_string())
}

#[test]
fn urls_that_cannot_be_and_headers_with_line_ends_are_refused_in_file_and_row() {
    let good = json!({ "name": "a", "url": "https://a.example/hooks", "events": ["*"] });
    assert_eq!((in_file(&good), in_row(&good)), (Ok(()), Ok(())));
    let long = format!("https://a.example/{}", "x".repeat(2048));
    let name = "not a valid name of a header";
    let value = "not a valid value of a header";
    let own = "this header is set by walhook itself";
    for (key, given, words) in [
        ("url", json!("hidden hunter2"), "not a valid URL"),
        ("url", json!(""), "not a valid URL"),
        ("url", json!("https://"), "not a valid URL"),
        ("url", json!("https://[::1/hunter2"), "not a valid URL"),
        ("url", json!("https://a.example:99999/hunter2"), "not a valid URL"),
        ("url", json!("//a.example/hunter2"), "not a valid URL"),
        ("url", json!("ftp://a.example/hunter2"), "expected a URL of http or https"),
        ("url", json!("https://a.example/#hunter2"), "the URL has a fragment"),
        ("url", json!("https://me:hunter2@a.example/"), "the URL holds a user name or a password"),
        ("url", json!(long), "the URL is longer than 2048 bytes"),
        ("url", json!("https://a.example/hunter2\r\nx-other: 1"), "the URL holds a control character"),
        ("url", json!("https://a.exam\tple/hunter2"), "the URL holds a control character"),
        ("url", json!("https://a.example/hunter2\u{0}"), "the URL holds a control character"),
        ("url", json!("https://a.example/hunter2\n"), "the URL holds a control character"),
        ("url", json!("https://a.example/hunter2\u{85}"), "the URL holds a control character"),
        ("headers", json!({ "X-A\r\nX-B": "hunter2" }), name),
        ("headers", json!({ "X-A\u{0}": "hunter2" }), name),
        ("headers", json!({ "X A": "hunter2" }), name),
        ("headers", json!({ "X-A:": "hunter2" }), name),
        ("headers", json!({ "": "hunter2" }), name),
        ("headers", json!({ "X-A": "hunter2\r\nX-B: 1" }), value),
        ("headers", json!({ "X-A": "hunter2\n" }), value),
        ("headers", json!({ "X-A": "hunter2\r" }), value),
        ("headers", json!({ "X-A": "hunter2\u{0}" }), value),
        ("headers", json!({ "Content-Length": "0" }), own),
        ("headers", json!({ "Transfer-Encoding": "chunked" }), own),
        ("headers", json!({ "Host": "b.example" }), own),
        ("headers", json!({ "webhook-id": "1" }), own),
        ("headers", json!({ "Webhook-Timestamp": "1" }), own),
        ("headers", json!({ "WEBHOOK-SIGNATURE": "1" }), own),
        ("headers", json!({ "x-webhook-id": "1" }), own),
        ("headers", json!({ "X-Webhook-Anything": "1" }), own),
        ("auth", json!({ "kind": "header", "name": "X-A\r\nX-B", "value": "hunter2" }), name),
        ("auth", json!({ "kind": "header", "name": "webhook-id", "value": "hunter2" }), own),
        ("auth", json!({ "kind": "header", "name": "X-A", "value": "hunter2\r\nX-B: 1" }), value),
        ("auth", json!({ "kind": "header", "name": "X-A", "value": "hunter2\u{0}" }), value),
        ("auth", json!({ "kind": "bearer", "token": "hunter2\r\nX-B: 1" }), "a bearer token has no spaces"),
        ("signature", json!({ "header": "x-a\r\nx-b" }), name),
    ] {
        let mut webhook = good.clone();
        webhook[key] = given.clone();
        for (place, told) in [("file", in_file(&webhook)), ("row", in_row(&webhook))] {
            let told = told.expect_err(&format!("{place}: {key} = {given}"));
            assert!(told.contains(key) && told.contains(words), "{place}: {key} = {given}: {told}");
            assert!(!told.contains("hunter2"), "{place}: {key}: {told}");
        }
    }
}

#[test]
fn the_media_type_of_a_template_adds_no_header() {
    for content_type in ["text/plain\r\nx-b: 1", "text/plain\u{0}", "text", "text/plain\n", ""] {
        let text = format!("{FILE}[templates.t]\nbody = 'x'\ncontent_type = {}\n", json!(content_type));
        let told = loaded(&text).expect_err(content_type);
        assert!(told.contains("templates.t.content_type"), "{told}");
    }
}
