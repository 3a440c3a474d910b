//! What `auth`, `signature`, `tls` and `proxy` come to.

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::json;

use super::tests::{ACCEPT_ALL, Folder};
use super::*;
use crate::domain::{Auth, ClientCredentials, SignedPart, TlsVersion, Verification};

const START: &str = "[database]\nurl = 'postgres://db/app'\n";

fn loaded(text: &str, environment: &[(&str, &str)]) -> Config {
    let folder = Folder::with(&format!("{START}{text}"));
    std::fs::write(folder.file("ca.pem"), "authority\n").unwrap();
    load(&folder.sources(environment), &ACCEPT_ALL).unwrap_or_else(|problems| panic!("{problems}"))
}

fn webhook(name: &str, rest: &str) -> String {
    format!("[[webhooks]]\nname = '{name}'\nurl = 'https://{name}.example'\nevents = ['*']\n{rest}\n")
}

#[test]
fn a_webhook_shares_the_defaults_until_it_says_something_of_its_own() {
    let text = [
        "[delivery]\nproxy = 'http://me:hunter2@proxy:3128'\ntls = { ca = { file = 'ca.pem' } }\n".to_owned(),
        webhook("a", ""),
        webhook("b", ""),
        webhook("c", "proxy = 'none'"),
        webhook("d", "tls = { min_version = '1.3', insecure_skip_verify = true }"),
    ];
    let config = loaded(&text.concat(), &[]);
    let of = |at: usize| &config.webhooks[at].reach.connection;
    assert!(Arc::ptr_eq(of(0), of(1)) && Arc::ptr_eq(of(0), &config.delivery.connection));
    assert_eq!(of(0).ca.as_deref(), Some("authority"));
    assert_eq!(of(0).proxy.as_ref().map(crate::domain::Proxy::place).as_deref(), Some("proxy:3128"));
    assert!(of(2).proxy.is_none() && of(2).ca.is_some());
    assert_eq!((of(3).min_version, of(3).verification), (TlsVersion::Tls13, Verification::Skipped));
    assert!(of(3).proxy.is_some() && of(3).ca.is_some());
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_row_goes_by_the_operators_proxy_and_has_none_of_its_own() {
    let config = loaded("", &[("WALHOOK_DELIVERY__PROXY", "socks5://proxy")]);
    let row = json!({
        "name": "r", "url": "https://r.example", "events": ["*"], "proxy": "http://elsewhere", "secret": "s",
        "signature": { "header": "x-own" }, "tls": { "min_version": "1.3", "ca": "text" },
        "auth": { "kind": "oauth2", "token_url": "https://t.example", "client_id": "a", "client_secret": "b",
            "scope": ["x", "y"], "credentials": "body" },
    });
    let row =
        webhook_from_row(row.as_object().unwrap().clone(), &config, &ACCEPT_ALL, Strangers::Left).unwrap();
    let connection = &row.reach.connection;
    assert_eq!(connection.proxy.as_ref().map(crate::domain::Proxy::place).as_deref(), Some("proxy:1080"));
    assert_eq!((connection.ca.as_deref(), connection.min_version), (Some("text"), TlsVersion::Tls13));
    let SignatureScheme::Custom(custom) = &row.reach.signature else { panic!("{:?}", row.reach) };
    assert_eq!((custom.header.as_str(), &custom.content), ("x-own", &vec![SignedPart::Body]));
    let Some(Auth::OAuth2(oauth2)) = &row.reach.auth else { panic!("{:?}", row.reach) };
    assert_eq!((oauth2.scope.as_deref(), oauth2.credentials), (Some("x y"), ClientCredentials::Body));
    assert_eq!(oauth2.client_secret.expose_secret(), "b");
}

#[test]
fn what_is_the_same_at_every_attempt_is_a_header_that_no_debug_shows() {
    let text = [
        webhook("a", "auth = { kind = 'bearer', token = 'hunter2' }"),
        webhook("b", "auth = { kind = 'basic', username = 'me', password = 'hunter2' }"),
        webhook("c", "auth = { kind = 'header', name = 'X-Key', value = 'hunter2' }"),
    ];
    let config = loaded(&text.concat(), &[]);
    let header = |at: usize, name: &str| config.webhooks[at].headers[name].to_str().unwrap();
    assert_eq!(header(0, "authorization"), "Bearer hunter2");
    assert_eq!(header(1, "authorization"), "Basic bWU6aHVudGVyMg==");
    assert_eq!(header(2, "x-key"), "hunter2");
    assert!(config.webhooks.iter().all(|webhook| webhook.reach.auth.is_none()));
    let told = format!("{config:?}");
    assert!(!told.contains("hunter2") && !told.contains("aHVudGVyMg"));
}
