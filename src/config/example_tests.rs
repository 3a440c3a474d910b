//! Holds `config.example.toml` against the code: the same keys, the same defaults.

use std::collections::BTreeSet;

use serde_json::Value;

use super::tests::{ACCEPT_ALL, Folder};
use super::toml_file;
use super::*;

/// Keys without a default: required ones, and those whose absence is a meaning of its own.
const NO_DEFAULT: [&str; 63] = [
    "database.url",
    "ledger.url",
    "server.admin_token",
    "security.mask_key",
    "security.encryption_key",
    "delivery.rate_limit",
    "delivery.retry.max_age",
    "tables.*.event",
    "tables.*.exclude",
    "tables.*.mask",
    "tables.*.tenant",
    "tables.*.public",
    "tables.*.fold_moves",
    "tables.*.int8",
    "tables.*.description",
    "events[].type",
    "events[].table",
    "events[].on",
    "events[].when",
    "events[].description",
    "webhooks[].name",
    "webhooks[].tenant",
    "webhooks[].url",
    "webhooks[].secret",
    "webhooks[].events",
    "webhooks[].filter",
    "webhooks[].headers",
    "webhooks[].template",
    "delivery.proxy",
    "delivery.tls.ca",
    "webhooks[].auth.kind",
    "webhooks[].auth.token",
    "webhooks[].auth.username",
    "webhooks[].auth.password",
    "webhooks[].auth.name",
    "webhooks[].auth.value",
    "webhooks[].auth.algorithm",
    "webhooks[].auth.key",
    "webhooks[].auth.key_id",
    "webhooks[].auth.issuer",
    "webhooks[].auth.subject",
    "webhooks[].auth.audience",
    "webhooks[].auth.body_claim",
    "webhooks[].auth.token_url",
    "webhooks[].auth.client_id",
    "webhooks[].auth.client_secret",
    "webhooks[].auth.scope",
    "webhooks[].signature.header",
    "webhooks[].signature.prefix",
    "webhooks[].signature.content",
    "webhooks[].signature.timestamp_header",
    "webhooks[].tls.ca",
    "webhooks[].tls.pinned_ca",
    "webhooks[].tls.certificate",
    "webhooks[].tls.key",
    "webhooks[].tls.insecure_skip_verify",
    "webhooks[].proxy",
    "webhooks[].retry.max_attempts",
    "templates.*.body",
    "templates.*.file",
    "templates.*.version",
    "templates.*.versions.*.body",
    "templates.*.versions.*.file",
];

fn example() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml")).unwrap()
}

/// The example with every key switched on.
fn whole_example() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    };
    example().lines().map(|line| on(line) + "\n").collect()
}

/// Loads a text with every environment variable set that it names.
fn load_text(text: &str) -> Result<(Config, BTreeSet<String>), Problems> {
    let folder = Folder::with(text);
    std::fs::write(folder.file("receipt.hbs"), "{{id}}").unwrap();
    let variables = [
        "DATABASE_URL",
        "LEDGER_URL",
        "WALHOOK_ADMIN_TOKEN",
        "CRM_SECRET",
        "CRM_TOKEN",
        "BANK_SECRET",
        "BANK_SECRET_OLD",
        "PARTNER_CLIENT_SECRET",
        "OLD_PASSWORD",
        "CHAT_KEY",
        "MASK_KEY",
    ];
    for name in ["bank-jwt.pem", "partner-ca.pem", "walhook.pem", "walhook-key.pem", "company-ca.pem"] {
        std::fs::write(folder.file(name), name).unwrap();
    }
    let token = ["\nadmin_token", "[server.admin_token]"].iter().any(|key| text.contains(key));
    let named = |name: &&str| token || *name != "WALHOOK_ADMIN_TOKEN";
    let mut variables: Vec<_> =
        variables.into_iter().filter(named).map(|name| (name, "given-for-the-example")).collect();
    variables.push(("ENCRYPTION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="));
    load_and_tell(&folder.sources(&variables), &ACCEPT_ALL).map(|(mut config, known)| {
        config.path = PathBuf::new();
        (config, known)
    })
}

/// Whether it says where a value is. A template's `file` is a key.
fn is_elsewhere(map: &Map<String, Value>, pattern: &str) -> bool {
    map.contains_key("env")
        || (map.len() == 1 && map.contains_key("file") && !pattern.starts_with("templates"))
}

/// The path of every key in a tree, as a JSON pointer and as the readers call it.
fn keys(value: &Value, pointer: &str, pattern: &str, out: &mut Vec<(String, String)>) {
    let named = ["tables", "templates", "templates.*.versions"].contains(&pattern);
    let free = ["mask", "headers", "wait_on"].contains(&pattern.rsplit('.').next().unwrap());
    match value {
        Value::Object(map) if !free && !is_elsewhere(map, pattern) => {
            for (key, value) in map {
                let inner = format!("{pattern}.{}", if named { "*" } else { key });
                let inner = inner.trim_start_matches('.').to_owned();
                let pointer = format!("{pointer}/{key}");
                keys(value, &pointer, &inner, out);
                out.push((pointer, inner));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| item.is_object()) {
                keys(item, &format!("{pointer}/{index}"), &format!("{pattern}[]"), out);
            }
        }
        _ => {}
    }
}

#[test]
fn the_example_loads_as_it_is_and_with_every_key_switched_on() {
    load_text(&example()).unwrap_or_else(|problems| panic!("{problems}"));
    let (config, _) = load_text(&whole_example()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.webhooks.len(), config.templates.len(), config.events.len()), (6, 5, 2));
}

#[test]
fn the_example_has_every_key_of_the_code_and_no_other() {
    let text = whole_example();
    let (_, known) = load_text(&text).unwrap();
    let mut written = Vec::new();
    keys(&Value::Object(toml_file::parse(&text).unwrap().tree), "", "", &mut written);
    let written: BTreeSet<_> =
        written.into_iter().map(|(_, pattern)| pattern).filter(|p| !p.ends_with('*')).collect();
    assert_eq!(written, known);
}

#[test]
fn the_defaults_in_the_example_are_those_of_the_code() {
    let tree = Value::Object(toml_file::parse(&whole_example()).unwrap().tree);
    let (config, _) = load_text(&toml::to_string(&tree).unwrap()).unwrap();
    let mut all = Vec::new();
    keys(&tree, "", "", &mut all);
    for (pointer, pattern) in &all {
        let holds =
            |other: &str| other.strip_prefix(pattern).is_some_and(|rest| rest.starts_with(['.', '[']));
        if all.iter().any(|(_, other)| holds(other)) {
            continue;
        }
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut without = tree.clone();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        let same = load_text(&toml::to_string(&without).unwrap())
            .is_ok_and(|(other, _)| format!("{other:?}") == format!("{config:?}"));
        assert_eq!(same, !NO_DEFAULT.contains(&pattern.as_str()), "{pattern} and its default");
    }
}
