//! What a body looks like, as a configuration says it: formats, their versions, templates and theirs, masks, compression.

use serde_json::json;

use super::tests::{ACCEPT_ALL, DATABASE, loaded, refused};
use super::*;
use crate::domain::{BodyShape, Coding, Compression, Format, Int8, Mask, MaskKey};

/// A configuration with one webhook that has these keys, and what follows it.
fn with(keys: &str, rest: &str) -> String {
    format!(
        "{DATABASE}[[webhooks]]\nname = 'crm'\nurl = 'https://crm.example.com/hooks'\nevents = ['*']\n{keys}\n{rest}"
    )
}

const TEMPLATES: &str = "[templates.slack]\nbody = 'new'\nversion = 'v2'\ncontent_type = 'text/plain'\n\
                         [templates.slack.versions.v1]\nbody = 'old'\n\
                         [templates.slack.versions.v0]\nbody = '{}'\ncontent_type = 'application/json'\n";

#[test]
fn every_format_goes_by_its_name_and_version() {
    for (name, version, format) in Format::VERSIONS {
        let keys = format!("format = '{name}'\nformat_version = {version}");
        assert_eq!(loaded(&with(&keys, ""), &[]).webhooks[0].body, BodyShape::Format(format));
        let unversioned = loaded(&with(&format!("format = '{name}'"), ""), &[]);
        assert_eq!(unversioned.webhooks[0].body, BodyShape::Format(Format::named(name, 1).unwrap()));
        assert!(Format::versions(name).contains(&version));
    }
    let standard = loaded(&with("format_version = 1", ""), &[]);
    assert_eq!(standard.webhooks[0].body, BodyShape::Format(Format::Standard));
}

#[test]
fn an_unknown_version_is_refused_with_those_that_there_are() {
    refused(
        &with("format = 'xml'\nformat_version = 2", ""),
        &[],
        "walhook.toml:8:1: webhooks[0].format_version: the format \"xml\" has no version 2\n  detail: Its versions are 1.",
    );
    refused(
        &with("format_version = 0", ""),
        &[],
        "walhook.toml:7:1: webhooks[0].format_version: expected a whole number from 1 to 1000, found 0",
    );
    refused(
        &with("format_version = 1\ntemplate = 'slack'", TEMPLATES),
        &[],
        "walhook.toml:7:1: webhooks[0].format_version: a template has versions of its own, not a format_version\n  \
         hint: Name one of them in template: \"slack@v1\".",
    );
    refused(
        &with("template = 'slack@v3'", TEMPLATES),
        &[],
        "walhook.toml:7:1: webhooks[0].template: there is no template named \"slack@v3\"\n  detail: The templates are \
         slack@v2, slack@v0, slack@v1, slack.\n  hint: Perhaps you meant \"slack@v1\".",
    );
}

#[test]
fn a_template_has_its_latest_text_and_named_versions_that_stay() {
    let config = loaded(&with("template = 'slack@v1'", TEMPLATES), &[]);
    assert_eq!(config.webhooks[0].body, BodyShape::Template("slack@v1".into()));
    let text = |name: &str| {
        let template = config.templates.iter().find(|template| &*template.name == name).unwrap();
        (template.content_type.to_string(), template.body.clone())
    };
    let expect = |content_type: &str, body: &str| (content_type.to_owned(), body.to_owned());
    assert_eq!(text("slack"), expect("text/plain", "new"));
    assert_eq!(text("slack@v2"), expect("text/plain", "new"));
    assert_eq!(text("slack@v1"), expect("text/plain", "old"));
    assert_eq!(text("slack@v0"), expect("application/json", "{}"));
    let row = json!({ "name": "t", "url": "https://t.example.com", "events": ["*"], "template": "slack@v0" });
    let webhook =
        webhook_from_row(row.as_object().unwrap().clone(), &config, &ACCEPT_ALL, Strangers::Left).unwrap();
    assert_eq!(webhook.body, BodyShape::Template("slack@v0".into()));
}

#[test]
fn versions_of_a_template_are_held_to_its_rules() {
    let rest = "[templates.a]\nbody = 'x'\nversion = 'v1'\n[templates.a.versions.v1]\nbody = 'y'\n\
                [templates.b]\nbody = 'x'\n[templates.b.versions.'v 1']\nbdy = 'y'\n";
    refused(
        &with("", rest),
        &[],
        "walhook.toml:8:12: templates.a: the version \"v1\" is the latest and one of the others too\n\
         walhook.toml:15:23: templates.b.versions.\"v 1\": \"v 1\" is not a valid name\n  detail: A name has 1 to 100 \
         characters of A-Z a-z 0-9 _ . -\n\
         walhook.toml:15:23: templates.b.versions.\"v 1\": a template needs a body\n  detail: body is its text; file \
         names a file that holds it.\n\
         walhook.toml:16:1: templates.b.versions.\"v 1\".bdy: unknown key\n  detail: The keys here are content_type, \
         body, file.\n  hint: Perhaps you meant \"body\".",
    );
}

#[test]
fn masks_have_four_kinds_and_a_key_that_is_long_enough() {
    let tables = "[tables.people]\nmask = { a = 'redact', b = 'hash', c = 'partial', d = 'null' }\n";
    let security = "[security]\nmask_key = { env = 'MASK_KEY' }\n";
    let key = "sixteen bytes of";
    let config = loaded(&format!("{DATABASE}{security}{tables}"), &[("MASK_KEY", key)]);
    let masks: Vec<Mask> = config.tables[0].mask.iter().map(|(_, mask)| *mask).collect();
    assert_eq!(masks, [Mask::Redact, Mask::Hash, Mask::Partial, Mask::Null]);
    assert_eq!(config.tables[0].mask_key, Some(MaskKey::new(key)));
    assert_eq!(loaded(&format!("{DATABASE}{tables}"), &[]).tables[0].mask_key, None);
    refused(
        &format!("{DATABASE}{security}"),
        &[("MASK_KEY", "short and secret")].map(|(name, key)| (name, key.split_at(5).0)),
        "walhook.toml:4:1: security.mask_key: the key is shorter than 16 bytes\n  hint: Make one with: openssl rand \
         -base64 32",
    );
}

#[test]
fn long_integers_are_numbers_unless_all_or_those_of_one_table_shall_be_strings() {
    let of = |text: &str| {
        let config = loaded(&format!("{DATABASE}{text}"), &[]);
        (config.delivery.int8, config.tables.first().and_then(|table| table.int8))
    };
    assert_eq!(of(""), (Int8::Number, None));
    assert_eq!(
        of("[delivery]\nint8 = 'string'\n[tables.t]\nint8 = 'number'\n"),
        (Int8::String, Some(Int8::Number))
    );
    refused(
        &format!("{DATABASE}[tables.t]\nint8 = 'text'\n"),
        &[],
        "walhook.toml:4:1: tables.t.int8: expected one of \"number\", \"string\", found \"text\"",
    );
}

#[test]
fn compression_is_set_for_all_webhooks_or_for_one_key_by_key() {
    let delivery = "[delivery]\ncompression = 'gzip'\ncompression_threshold = '4KiB'\n";
    let of = |keys: &str| loaded(&with(keys, delivery), &[]).webhooks[0].compression;
    assert_eq!(of(""), Compression { coding: Some(Coding::Gzip), threshold: 4096 });
    assert_eq!(of("compression = 'zstd'"), Compression { coding: Some(Coding::Zstd), threshold: 4096 });
    assert_eq!(of("compression = 'none'"), Compression { coding: None, threshold: 4096 });
    assert_eq!(of("compression_threshold = '0'"), Compression { coding: Some(Coding::Gzip), threshold: 0 });
    assert_eq!(loaded(&with("", ""), &[]).webhooks[0].compression, Compression::default());
}

#[test]
fn a_url_that_is_a_key_may_come_from_elsewhere_and_is_held_to_the_same_rules() {
    let text = with("", "").replace("'https://crm.example.com/hooks'", "{ env = 'HOOK' }");
    let config = loaded(&text, &[("HOOK", "https://hooks.example.com/T0/secret")]);
    assert_eq!(config.webhooks[0].url.as_str(), "https://hooks.example.com/T0/secret");
    refused(
        &text,
        &[("HOOK", "ftp://hooks.example.com/T0/secret")],
        "walhook.toml:5:1: webhooks[0].url: expected a URL of http or https, found one of \"ftp\"\n  detail: A URL is \
         written \"https://example.com/hooks\".",
    );
}
