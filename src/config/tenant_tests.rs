//! Whose rows, whose webhooks: in the file and in a row.

use serde_json::json;

use super::tests::{ACCEPT_ALL, Folder};
use super::*;
use crate::domain::{Operation, TenantChange, WebhookSource};

const FILE: &str = "[database]\nurl = 'postgres://db/app'\n[security]\nallow_http = true\n\
    [tables.orders]\ntenant = 'workspace'\npublic = ['created', 'deleted']\ntenant_change = 'new_owner'\n\
    [tables.items]\ntenant = 'workspace'\npublic = true\n[tables.notes]\ntenant = 'workspace'\npublic = false\n\
    [[events]]\ntype = 'order.paid'\ntable = 'orders'\npublic = true\n\
    [[webhooks]]\nname = 'acme~crm'\ntenant = 'acme'\nurl = 'http://a'\nevents = ['*']\n\
    [[webhooks]]\nname = 'crm'\nurl = 'https://a'\nevents = ['*']\n";

fn loaded(text: &str) -> Result<Config, Problems> {
    load(&Folder::with(text).sources(&[]), &ACCEPT_ALL)
}

fn refused(text: &str, part: &str) {
    let problems = loaded(text).map(drop).unwrap_err().to_string();
    assert!(problems.contains(part), "{text}: {problems}");
}

#[test]
fn what_is_public_is_said_table_by_table_and_is_nothing_by_default() {
    let config = loaded(FILE).unwrap_or_else(|problems| panic!("{problems}"));
    let all = [Operation::Insert, Operation::Update, Operation::Delete];
    let public: Vec<_> = config.tables.iter().map(|table| (&*table.table, table.public.clone())).collect();
    let some = vec![Operation::Insert, Operation::Delete];
    assert_eq!(public, [("items", all.to_vec()), ("notes", Vec::new()), ("orders", some)]);
    let changes: Vec<_> = config.tables.iter().map(|table| table.tenant_change).collect();
    assert_eq!(changes, [TenantChange::Split, TenantChange::Split, TenantChange::NewOwner]);
    assert!(config.events[0].public);
    let whose: Vec<_> = config.webhooks.iter().map(|webhook| webhook.tenant.as_deref()).collect();
    assert_eq!(whose, [Some("acme"), None]);
    assert!(config.webhooks.iter().all(|webhook| webhook.source == WebhookSource::Toml));
}

#[test]
fn what_says_nothing_of_whose_it_is_cannot_be_public() {
    let with = |text: &str| format!("[database]\nurl = 'postgres://db/app'\n{text}");
    refused(&with("[tables.orders]\npublic = true"), "public needs a tenant column");
    refused(&with("[tables.orders]\ntenant = 'w'\npublic = ['truncated']"), "found \"truncated\"");
    refused(&with("[tables.orders]\ntenant = 'w'\npublic = 'all'"), "true or false");
    refused(&with("[tables.orders]\ntenant = 'w'\ntenant_change = 'splt'"), "\"split\"");
    let event = "[[events]]\ntype = 'a.b'\ntable = 'shop.orders'\npublic = true";
    refused(&with(event), "Set tables.\"shop.orders\".tenant to the column");
    refused(
        &with("[[events]]\ntype = 'a.b'\non = ['message']\npublic = true"),
        "no message says whose it is",
    );
}

#[test]
fn the_name_of_a_webhook_and_its_tenant_agree() {
    let with = |text: &str| {
        format!(
            "[database]\nurl = 'postgres://db/app'\n[[webhooks]]\nurl = 'https://a'\nevents = ['*']\n{text}"
        )
    };
    refused(&with("name = 'crm'\ntenant = 'acme'"), "\"acme~crm\" would be valid");
    refused(&with("name = 'globex~crm'\ntenant = 'acme'"), "\"acme~crm\" would be valid");
    refused(&with("name = 'acme~crm'"), "set tenant = \"acme\"");
    refused(&with("name = 'a~b~c'\ntenant = 'a'"), "is not a valid name");
    refused(&with("name = '~c'\ntenant = ''"), "is not a valid name");
    refused(&with("name = 'a b~c'\ntenant = 'a b'"), "is not a valid tenant");
}

#[test]
fn a_tenants_row_has_rules_of_its_own() {
    let config = loaded(FILE).unwrap();
    let row = |tenant: Option<&str>, name: &str| {
        let row = json!({ "name": name, "tenant": tenant, "url": "http://a.example.com", "events": ["*"] });
        webhook_from_row(row.as_object().unwrap().clone(), &config, &ACCEPT_ALL, Strangers::Refused)
    };
    assert_eq!(row(None, "a").unwrap().source, WebhookSource::Database);
    let told = row(Some("acme"), "acme~a").unwrap_err().to_string();
    assert!(told.contains("security.tenants.allow_http"), "{told}");
    let mut open = config.clone();
    open.security.tenants.allow_http = true;
    let given = json!({ "name": "acme~a", "tenant": "acme", "url": "http://a.example.com", "events": ["*"] });
    let row = webhook_from_row(given.as_object().unwrap().clone(), &open, &ACCEPT_ALL, Strangers::Refused);
    assert_eq!(row.unwrap().source, WebhookSource::Tenant);
}
