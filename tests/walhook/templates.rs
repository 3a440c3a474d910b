//! The templates of `examples/templates`: each makes its golden output of its sample, and JSON of whatever stands in a row.

use std::path::{Path, PathBuf};

use serde_json::Value;
use walhook::clock::Clock;
use walhook::config::{Config, Sources};
use walhook::control::preview::Shape;
use walhook::control::{Given, load_config, preview};

use crate::support::{beside_others, run_once};

const ENVIRONMENT: [(&str, &str); 9] = [
    ("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none"),
    ("SLACK_URL", "https://hooks.example.com/slack"),
    ("DISCORD_URL", "https://hooks.example.com/discord"),
    ("TEAMS_URL", "https://hooks.example.com/teams"),
    ("PAGERDUTY_KEY", "key"),
    ("POSTMARK_TOKEN", "key"),
    ("SENDGRID_AUTHORIZATION", "Bearer key"),
    ("RESEND_AUTHORIZATION", "Bearer key"),
    ("LEGACY_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
];

/// What a careless template would break on.
const AWKWARD: [&str; 7] = [
    "she said \"no\"",
    "one\r\ntwo\n\tthree",
    "\u{1F980}\u{1F468}\u{200D}\u{1F4BB} größer",
    "</script><script>alert(1)</script>",
    "back\\slash \\n {{data.record.id}} ${x}",
    "a\u{1}b\u{2028}c & <d> 'e'",
    "@everyone, *bold* `code`",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/templates")
}

fn config() -> Config {
    let environment = ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let sources = Sources { path: Some(folder().join("walhook.toml")), environment: environment.collect() };
    load_config(&sources).expect("the examples' configuration")
}

fn names(config: &Config) -> Vec<String> {
    config.templates.iter().map(|template| template.name.to_string()).collect()
}

fn sample(name: &str) -> Value {
    let text = std::fs::read(folder().join(format!("{name}.sample.json"))).expect("a sample");
    serde_json::from_slice(&text).expect("a sample in JSON")
}

fn rendered(config: &Config, name: &str, event: &Value) -> Vec<u8> {
    let given = Given::parse(event.to_string().as_bytes()).expect("an event");
    let shape = Shape::Template(name.to_owned());
    let made = preview(Some(config), &shape, None, Some(given), &Clock::system());
    made.unwrap_or_else(|error| panic!("{name}: {error}\n{event}")).body.to_vec()
}

/// All texts of a JSON value.
fn texts(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
        Value::Object(map) => map.values().for_each(|item| texts(item, out)),
        _ => {}
    }
}

#[tokio::test]
async fn every_example_template_makes_its_golden_output_of_its_sample() {
    let _turn = beside_others().await;
    let all = names(&config());
    assert_eq!(all.len(), 8, "{all:?}");
    let toml = folder().join("walhook.toml");
    for name in all {
        let file = |ending: &str| folder().join(format!("{name}.{ending}")).display().to_string();
        let (config, sample) = (toml.display().to_string(), file("sample.json"));
        let arguments = ["render", "--config", &config, "--template", &name, "--raw", "--data", &sample];
        let output = run_once(&arguments, &ENVIRONMENT).await;
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let golden = std::fs::read_to_string(file("golden.json")).unwrap_or_default();
        assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), golden, "{name}");
        serde_json::from_str::<Value>(&golden).expect("golden output in JSON");
    }
}

#[test]
fn every_example_template_makes_json_of_whatever_stands_in_a_row() {
    let config = config();
    for name in names(&config) {
        let mut shown = 0;
        let event = sample(&name);
        let columns = event["data"]["record"].as_object().expect("a row").clone();
        let is_text = |value: &Value| value.as_str().is_some_and(|text| text.parse::<f64>().is_err());
        for (column, _) in columns.iter().filter(|(_, value)| is_text(value)) {
            for awkward in AWKWARD {
                let mut event = event.clone();
                event["data"]["record"][column] = awkward.into();
                let body = rendered(&config, &name, &event);
                let made: Value = serde_json::from_slice(&body)
                    .unwrap_or_else(|error| panic!("{name}: {column}: {awkward:?}: {error}"));
                let mut found = Vec::new();
                texts(&made, &mut found);
                let plain = found.iter().any(|text| text.contains(awkward));
                shown += usize::from(plain);
                let inside = |ending: &str| found.iter().any(|text| text.contains(ending));
                if awkward.starts_with("</script>") && !plain {
                    assert!(!inside("<script>"), "{name}: {column}: markup got through: {found:?}");
                }
            }
        }
        assert!(shown > 0, "{name}: no text was found again as it was");
    }
}

#[test]
fn example_templates_keep_markup_of_a_row_out_of_html_and_mentions_out_of_chats() {
    let config = config();
    let made = |name: &str| -> Value {
        let mut event = sample(name);
        event["data"]["record"]["customer"] = "<!channel> <img src=x onerror=alert(1)>".into();
        serde_json::from_slice(&rendered(&config, name, &event)).expect("JSON")
    };
    let html = made("email-postmark")["HtmlBody"].as_str().expect("text").to_owned();
    assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;") && !html.contains("<img"), "{html}");
    let html = made("email-resend")["html"].as_str().expect("text").to_owned();
    assert!(!html.contains("<img"), "{html}");
    let html = made("email-sendgrid")["content"][1]["value"].as_str().expect("text").to_owned();
    assert!(!html.contains("<img"), "{html}");
    let text = made("slack")["blocks"][0]["text"]["text"].as_str().expect("text").to_owned();
    assert!(text.contains("&lt;!channel&gt;") && !text.contains("<!channel>"), "{text}");
    assert_eq!(made("discord")["allowed_mentions"]["parse"], serde_json::json!([]));
}
