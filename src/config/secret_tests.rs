//! Secrets that end, and the keys of what is secret in the database.

use secrecy::ExposeSecret as _;
use serde_json::json;

use super::tests::{ACCEPT_ALL, DATABASE, loaded, refused};
use super::*;

fn with(secret: &str) -> String {
    format!(
        "{DATABASE}[[webhooks]]\nname = 'crm'\nurl = 'https://crm.example.com'\nevents = ['*']\nsecret = {secret}\n"
    )
}

fn texts(webhook: &Webhook) -> Vec<(String, Option<String>)> {
    let text = |secret: &SigningSecret| {
        (secret.text.expose_secret().to_owned(), secret.until.map(|until| until.to_string()))
    };
    webhook.secrets.iter().map(text).collect()
}

#[test]
fn every_secret_but_the_first_may_have_an_end() {
    let secret = "[{ env = 'A' }, { env = 'B', until = '2026-12-01T01:00:00+01:00' }, \
                  { secret = 'c', until = 2026-12-01T00:00:00Z }, { secret = { env = 'A' }, until = '2026-12-01T00:00:00Z' }, \
                  { secret = 'e' }, 'f']";
    let config = loaded(&with(secret), &[("A", "a"), ("B", "b")]);
    let end = Some("2026-12-01T00:00:00Z".to_owned());
    let expect = [("a", &None), ("b", &end), ("c", &end), ("a", &end), ("e", &None), ("f", &None)];
    assert_eq!(texts(&config.webhooks[0]), expect.map(|(text, until)| (text.to_owned(), until.clone())));
}

#[test]
fn an_end_that_cannot_be_is_refused_with_what_to_write() {
    refused(
        &with("{ secret = 'hunter2', until = '2026-12-01T00:00:00Z' }"),
        &[],
        "walhook.toml:7:1: webhooks[0].secret: the first secret is the current one and has no until\n  hint: Put the secret \
         that stays first, and those that end behind it.",
    );
    refused(
        &with(
            "['a', { secret = 'hunter2', until = '2026-12-01' }, { until = '2026-12-01T00:00:00Z' }, { sceret = 'hunter2', \
               until = '2026-12-01T00:00:00Z' }]",
        ),
        &[],
        "walhook.toml:7:38: webhooks[0].secret[1].until: expected a time with its zone, found \"2026-12-01\"\n  \
         detail: A time is written \"2026-12-01T00:00:00Z\" or \"2026-12-01T01:00:00+01:00\".\n\
         walhook.toml:7:62: webhooks[0].secret[2]: expected a string, or where to find it; found another table\n  \
         detail: Write \"text\", { env = \"NAME\" } or { file = \"/run/secrets/name\" }.\n\
         walhook.toml:7:98: webhooks[0].secret[3]: expected env or file, found \"sceret\"\n  \
         detail: Write \"text\", { env = \"NAME\" } or { file = \"/run/secrets/name\" }.",
    );
    let many = ["'a'"; 11].join(", ");
    refused(
        &with(&format!("[{many}]")),
        &[],
        "walhook.toml:7:1: webhooks[0].secret: expected at most 10 elements, found 11",
    );
}

#[test]
fn a_row_has_ends_too_and_still_points_nowhere() {
    let config = loaded(DATABASE, &[]);
    let read = |secret: Value| {
        let row = json!({ "name": "r", "url": "https://r.example", "events": ["*"], "secret": secret });
        webhook_from_row(row.as_object().unwrap().clone(), &config, &ACCEPT_ALL, Strangers::Left)
    };
    let end = "2026-12-01T00:00:00Z";
    let row = read(json!(["a", { "secret": "b", "until": end }])).unwrap();
    assert_eq!(texts(&row), [("a".to_owned(), None), ("b".to_owned(), Some(end.to_owned()))]);
    for pointing in
        [json!({ "env": "HOME", "until": end }), json!({ "secret": { "file": "/etc/passwd" }, "until": end })]
    {
        let problems = read(json!(["a", pointing])).unwrap_err().to_string();
        assert!(problems.contains("Only the operator's file may point to"), "{problems}");
    }
}

#[test]
fn a_key_is_32_bytes_in_base64_or_hex() {
    let of = |key: &str| {
        loaded(&format!("{DATABASE}[security]\nencryption_key = {key}\n"), &[]).security.encryption_keys
    };
    let seven = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let hex = "07".repeat(32);
    let key = of(&format!("'{hex}'"));
    assert_eq!(key.len(), 1);
    for same in [format!("'{seven}='"), format!("'{seven}'"), format!("' {seven}=\\n'").replace('\'', "\"")] {
        assert_eq!(of(&same), key, "{same}");
    }
    let other = "//////////////////////////////////////////8=";
    let two = of(&format!("['{hex}', '{other}']"));
    assert_eq!((two.len(), &two[0], two[1] == two[0]), (2, &key[0], false));
    assert_eq!(of(&format!("'{}'", other.replace('/', "_"))), two[1..]);
    assert!(loaded(DATABASE, &[]).security.encryption_keys.is_empty());
    assert!(!format!("{:?}", Security { encryption_keys: two, ..Security::default() }).contains("255"));
}

#[test]
fn i12_a_key_that_is_none_is_refused_without_being_told() {
    let hint = "hint: Make one with: openssl rand -base64 32";
    let text = |key: &str| format!("{DATABASE}[security]\nencryption_key = {key}\n");
    let check = |key: &str, expected: &str| refused(&text(key), &[("SHORT", "aHVudGVyMg==")], expected);
    check(
        "'hunter2 is no key!'",
        &format!(
            "walhook.toml:4:1: security.encryption_key: a key is 32 bytes in base64 or hexadecimal, and this is neither\n  {hint}"
        ),
    );
    check(
        "{ env = 'SHORT' }",
        &format!(
            "walhook.toml:4:1: security.encryption_key: a key is 32 bytes in base64 or hexadecimal, and this has 7 bytes\n  {hint}"
        ),
    );
    let hex = "07".repeat(32);
    check(
        &format!("['{hex}', '{hex}']"),
        "walhook.toml:4:87: security.encryption_key[1]: this key (21d98ad7) stands in the list already",
    );
    check(
        "[]",
        "walhook.toml:4:1: security.encryption_key: expected at least one key, found none\n  hint: Leave the key out, and \
         secrets in the database stand there as text.",
    );
}
