//! Whole configurations: what loads, and the exact words for what does not.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::domain::{BodyShape, Format, Mask, Operation, Ordering};

pub(super) const DATABASE: &str = "[database]\nurl = 'postgres://db/app'\n";

pub(super) const ACCEPT_ALL: Checks<'static> = Checks {
    condition: &|_| Ok(()),
    template: &|_| Ok(()),
    connection: &|_| Ok(()),
    reach: &|_| Ok(()),
    stored: super::StoredTemplates::NONE,
};

/// A folder with a `walhook.toml` in it, gone with its value.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn with(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::write(folder.file("walhook.toml"), text).unwrap();
        folder
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn sources(&self, environment: &[(&str, &str)]) -> Sources {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Sources {
            path: Some(self.file("walhook.toml")),
            environment: environment.iter().map(owned).collect(),
        }
    }

    /// The problems' text, with file names as from inside the folder.
    fn words(&self, problems: &Problems) -> String {
        problems.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

pub(super) fn loaded(text: &str, environment: &[(&str, &str)]) -> Config {
    let folder = Folder::with(text);
    load(&folder.sources(environment), &ACCEPT_ALL).unwrap_or_else(|problems| panic!("{problems}"))
}

#[track_caller]
pub(super) fn refused(text: &str, environment: &[(&str, &str)], expected: &str) {
    let folder = Folder::with(text);
    let problems = load(&folder.sources(environment), &ACCEPT_ALL).unwrap_err();
    assert_eq!(folder.words(&problems), expected.trim());
}

fn row(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = loaded(DATABASE, &[]);
    assert_eq!(config.database.url.expose_secret(), "postgres://db/app");
    assert_eq!((config.database.slot.as_str(), config.database.schema.as_str()), ("walhook", "walhook"));
    assert_eq!(config.database.on_slot_lost, OnSlotLost::Fail);
    assert_eq!(config.ledger.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8787");
    assert_eq!(config.delivery, Delivery::default());
    assert!(config.webhooks.is_empty() && config.tables.is_empty() && config.events.is_empty());
}

#[test]
fn every_section_is_read() {
    let config = loaded(
        r#"
[database]
url = "postgres://db/app"
on_slot_lost = "recreate"
[security]
allow_networks = ["10.0.0.0/8", "192.168.1.7"]
[delivery]
retry = { schedule = ["1s"], give_up_on = [400] }
[tables."shop.orders"]
event = "order"
exclude = ["note"]
mask = { email = "hash" }
[[events]]
type = "phase.completed"
table = "phases"
on = "update"
when = "true"
[[webhooks]]
name = "crm"
url = "https://crm.example.com/hooks"
secret = ["a", "whsec_AAAA"]
events = ["order.*"]
headers = { "X-Api-Version" = "3" }
template = "slack"
timeout = "1m30s"
ordering = "strict"
retry = { jitter = 0.5 }
[templates.slack]
body = "{}"
"#,
        &[],
    );
    assert_eq!(config.database.on_slot_lost, OnSlotLost::Recreate);
    assert!(config.security.allow_networks[1].contains(&"192.168.1.7".parse::<IpAddr>().unwrap()));
    let rule = &config.tables[0];
    assert_eq!((rule.schema.as_str(), rule.table.as_str()), ("shop", "orders"));
    assert_eq!(rule.mask, [("email".to_owned(), Mask::Hash)]);
    assert_eq!(config.events[0].on, [Operation::Update]);
    let webhook = &config.webhooks[0];
    assert_eq!(webhook.secrets.len(), 2);
    assert_eq!(webhook.headers["x-api-version"], "3");
    assert_eq!(webhook.body, BodyShape::Template("slack".into()));
    assert_eq!((webhook.timeout, webhook.ordering), (Duration::from_secs(90), Ordering::Strict));
    assert_eq!(webhook.retry.schedule, [Duration::from_secs(1)]);
    assert_eq!((webhook.retry.jitter, webhook.retry.give_up_on.as_slice()), (0.5, &[400][..]));
}

#[test]
fn the_environment_wins_over_the_file_in_whatever_type_a_key_has() {
    let text =
        "[database]\nurl = { env = 'GONE' }\n[delivery]\ntimeout = '1s'\n[tables.Orders]\nevent = 'x'\n";
    let config = loaded(
        text,
        &[
            ("WALHOOK_DATABASE__URL", "postgres://elsewhere"),
            ("WALHOOK_DATABASE__SLOT", "123"),
            ("WALHOOK_DATABASE__MANAGE_PUBLICATION", "false"),
            ("WALHOOK_SERVER__ADMIN_TOKEN", "007"),
            ("WALHOOK_SECURITY__ALLOW_NETWORKS", "[\"10.0.0.0/8\", \"fd00::/8\"]"),
            ("WALHOOK_DELIVERY__TIMEOUT", "2s"),
            ("WALHOOK_DELIVERY__CONCURRENCY", "4"),
            ("WALHOOK_DELIVERY__RETRY", "{\"schedule\": [\"9s\"], \"jitter\": 0}"),
            ("WALHOOK_TABLES__ORDERS__EVENT", "order"),
        ],
    );
    assert_eq!(config.database.url.expose_secret(), "postgres://elsewhere");
    assert_eq!(config.database.slot, "123");
    assert!(!config.database.manage_publication);
    assert_eq!(config.server.admin_token.unwrap().expose_secret(), "007");
    assert_eq!(config.security.allow_networks.len(), 2);
    assert_eq!((config.delivery.timeout, config.delivery.concurrency), (Duration::from_secs(2), 4));
    assert_eq!(config.delivery.retry.schedule, [Duration::from_secs(9)]);
    assert_eq!(
        (config.tables[0].table.as_str(), config.tables[0].event.as_deref()),
        ("Orders", Some("order"))
    );
}

#[test]
fn secrets_come_from_text_variables_and_files() {
    let text =
        "[database]\nurl = { file = 'url.txt' }\n[server]\nadmin_token = { env = 'WALHOOK_ADMIN_TOKEN' }\n";
    let folder = Folder::with(text);
    std::fs::write(folder.file("url.txt"), "postgres://db\r\n").unwrap();
    let config = load(&folder.sources(&[("WALHOOK_ADMIN_TOKEN", "t")]), &ACCEPT_ALL).unwrap();
    assert_eq!(config.database.url.expose_secret(), "postgres://db");
    assert_eq!(config.server.admin_token.unwrap().expose_secret(), "t");
}

#[test]
fn variables_of_other_things_and_those_a_platform_makes_are_no_keys() {
    let made = [
        "WALHOOK_CONFIG",
        "WALHOOK_PG_BIN",
        "WALHOOK_PORT",
        "WALHOOK_PORT_8787_TCP_ADDR",
        "WALHOOK_SERVICE_HOST",
    ];
    loaded(DATABASE, &made.map(|name| (name, "x")));
}

#[test]
fn the_file_is_the_one_named_else_the_variables_else_walhook_toml() {
    let environment = vec![("WALHOOK_CONFIG".to_owned(), "/etc/w.toml".to_owned())];
    let named = |path: Option<&str>, environment: &[(String, String)]| {
        Sources { path: path.map(PathBuf::from), environment: environment.to_vec() }.file()
    };
    assert_eq!(named(Some("a.toml"), &environment), PathBuf::from("a.toml"));
    assert_eq!(named(None, &environment), PathBuf::from("/etc/w.toml"));
    assert_eq!(named(None, &[]), PathBuf::from("walhook.toml"));
}

/// One mistake of each kind.
const MISTAKES: &str = r#"[database]
slot = "My-Slot"
[ledger]
store_bodies = "fails"
capture_response = 4096
[delivery]
timout = "5s"
concurrency = 0
compression = "gzp"
rate_limit = "100/d"
disable_after = "never"
breaker = { failure_rat = 0.5, probe_after = "1h" }
retry = { schedule = ["5 sec"], jitter = 2.0, wait_on = { 200 = "1m" }, initial = "1s" }
[[webhooks]]
name = "crm"
url = "https://user:hunter2@crm.example.com"
secret = { env = "CRM_SECRET" }
events = []
template = "slak"
headers = { Host = "x", content-type = "text/plain" }
[[webhooks]]
name = "crm"
url = "ftp://x"
events = ["a, b"]
[templates.slack]
body = "{}"
"#;

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    refused(
        MISTAKES,
        &[],
        r#"
walhook.toml:1:2: database.url: a required key is missing
  detail: url is the connection string of the database to tail.
walhook.toml:2:1: database.slot: "My-Slot" is not a valid name of a replication slot
  detail: Postgres allows lower-case letters, digits and underscores, at most 63 of them.
  hint: "my_slot" would be valid.
walhook.toml:4:1: ledger.store_bodies: expected one of "all", "failed", "none", found "fails"
  hint: Perhaps you meant "failed".
walhook.toml:5:1: ledger.capture_response: expected a size such as "64KiB", found a number
walhook.toml:7:1: delivery.timout: unknown key
  detail: The keys here are timeout, concurrency, ordering, retry, compression, compression_threshold, sla, batch, disable_after, rate_limit, breaker, held_for, tls, proxy, int8, handover_after, shutdown_grace, memory, max_body.
  hint: Perhaps you meant "timeout".
walhook.toml:8:1: delivery.concurrency: expected a whole number from 1 to 1000, found 0
walhook.toml:9:1: delivery.compression: expected one of "none", "gzip", "zstd", found "gzp"
  hint: Perhaps you meant "gzip".
walhook.toml:10:1: delivery.rate_limit: expected a rate, found "100/d"
  detail: A rate is a whole number from 1 to 100000 for each second, minute or hour: "100/s", "600/m", "1000/h".
walhook.toml:11:1: delivery.disable_after: expected a duration, found "never"
  detail: A duration is whole numbers with units: "250ms", "5s", "1m", "2h", "7d", "1h30m".
walhook.toml:12:1: delivery.breaker: probe_after is longer than probe_max
walhook.toml:12:13: delivery.breaker.failure_rat: unknown key
  detail: The keys here are failure_rate, min_attempts, window, probe_after, probe_max.
  hint: Perhaps you meant "failure_rate".
walhook.toml:13:11: delivery.retry.schedule: a schedule and "initial" say the same thing twice
  hint: Write either schedule, or initial, factor and max.
walhook.toml:13:23: delivery.retry.schedule[0]: expected a duration, found "5 sec"
  detail: A duration is whole numbers with units: "250ms", "5s", "1m", "2h", "7d", "1h30m".
walhook.toml:13:33: delivery.retry.jitter: expected a number from 0 to 1, found 2.0
walhook.toml:13:59: delivery.retry.wait_on.200: "200" is no status to wait on
  detail: Statuses are 400 to 599.
walhook.toml:16:1: webhooks[0].url: the URL holds a user name or a password
  hint: Write auth = { kind = "basic", username = "…", password = { env = "NAME" } } beside it.
walhook.toml:17:1: webhooks[0].secret: the environment variable CRM_SECRET is not set
  hint: Set CRM_SECRET for walhook's process, or write { file = "…" } instead.
walhook.toml:18:1: webhooks[0].events: expected at least one event type, found none
  hint: ["*"] takes every event.
walhook.toml:19:1: webhooks[0].template: there is no template named "slak"
  detail: The templates are slack.
  hint: Perhaps you meant "slack".
walhook.toml:20:13: webhooks[0].headers.Host: this header is set by walhook itself
walhook.toml:20:25: webhooks[0].headers.content-type: content-type comes with the body
  hint: For another one, use a template and set its content_type.
walhook.toml:22:1: webhooks[1].name: another webhook is named "crm" too
  detail: Ids and the ledger go by a webhook's name.
walhook.toml:23:1: webhooks[1].url: expected a URL of http or https, found one of "ftp"
  detail: A URL is written "https://example.com/hooks".
walhook.toml:24:11: webhooks[1].events[0]: "a, b" is not an event type
  detail: An event type has 1 to 200 bytes: letters, digits and _ . - : / $, such as "orders.created".
  hint: Write several types as a list: ["orders.created", "orders.updated"].
"#,
    );
}

#[test]
fn tables_events_and_templates_are_held_to_their_rules() {
    refused(
        r#"[database]
url = "x"
schema = "public"
[tables.orders]
exclude = ["email"]
mask = { email = "hsh", phone = "hash" }
[tables."public.orders"]
tenant = ""
[tables."a.b.c"]
[[events]]
type = "done"
table = "a"
on = ["insert", "upsert"]
[[events]]
type = "d.*"
[[events]]
type = "done"
table = "phases"
[[events]]
type = "done"
table = "public.phases"
[templates.one]
[templates.two]
body = "a"
file = "a.hbs"
[templates.three]
body = "a"
content_type = "json"
[templates.four]
file = "missing.hbs"
"#,
        &[],
        r#"
walhook.toml:3:1: database.schema: walhook needs a schema of its own
  detail: Changes of the tables in this schema are never events, so it can hold none of the application's.
  hint: Leave the key out for the schema "walhook"; it is made when it is missing.
walhook.toml:6:10: tables.orders.mask.email: expected one of "redact", "hash", "partial", "null", found "hsh"
  hint: Perhaps you meant "hash".
walhook.toml:7:9: tables."public.orders": the table public.orders is described twice
walhook.toml:8:1: tables."public.orders".tenant: a name may not be empty
walhook.toml:9:9: tables."a.b.c": expected the name of a table, found "a.b.c"
  detail: A table is written "orders" (in schema public) or "shop.orders".
walhook.toml:13:17: events[0].on[1]: expected one of "insert", "update", "delete", "truncate", "message", found "upsert"
  hint: Perhaps you meant "insert".
walhook.toml:14:1: events[1].table: a required key is missing
  detail: table is the table whose changes make the event.
walhook.toml:15:1: events[1].type: "d.*" is not an event type
  detail: A * stands for any run of characters where a webhook chooses its events, not where they are named.
walhook.toml:19:1: events[3]: this event is declared twice, word for word
walhook.toml:22:12: templates.one: a template needs a body
  detail: body is its text; file names a file that holds it.
walhook.toml:23:12: templates.two: a template has a body or a file, not both
walhook.toml:28:1: templates.three.content_type: expected a media type, found "json"
  detail: A media type is written "application/json" or "text/plain; charset=utf-8".
walhook.toml:30:1: templates.four.file: cannot read missing.hbs: No such file or directory (os error 2)
"#,
    );
}

#[test]
fn variables_are_held_to_the_same_rules_and_name_themselves() {
    refused(
        DATABASE,
        &[
            ("WALHOOK_DATABASE_URL", "postgres://x"),
            ("WALHOOK_DELIVERY__TIMEUOT", "5s"),
            ("WALHOOK_DELIVERY__CONCURRENCY", "many"),
            ("WALHOOK_DELIVERY__RETRY", "never"),
            ("WALHOOK_WEBHOOKS__0__URL", "https://x"),
            ("WALHOOK_LEDGER", "x"),
            ("WALHOOK_LEDGER__RETENTION", "1d"),
        ],
        r#"
environment variable WALHOOK_DATABASE_URL: there is no such key
  detail: A key's variable is WALHOOK_ and its path in capitals, with __ between levels.
  hint: Perhaps you meant WALHOOK_DATABASE__URL.
environment variable WALHOOK_DELIVERY__CONCURRENCY: delivery.concurrency: expected a whole number from 1 to 1000, found "many"
environment variable WALHOOK_DELIVERY__RETRY: delivery.retry: expected a table, found a string
environment variable WALHOOK_DELIVERY__TIMEUOT: there is no such key
  detail: A key's variable is WALHOOK_ and its path in capitals, with __ between levels.
  hint: Perhaps you meant WALHOOK_DELIVERY__TIMEOUT.
environment variable WALHOOK_LEDGER: ledger: expected a table, found a string
environment variable WALHOOK_LEDGER__RETENTION: ledger.retention: another variable sets what holds this key
  hint: Set either the table as a whole or its keys one by one.
environment variable WALHOOK_WEBHOOKS__0__URL: webhooks.0.url: an entry of a list cannot be set from the environment
  detail: webhooks can only be replaced as a whole, with TOML or JSON: WALHOOK_WEBHOOKS=[{…}].
  hint: Set the key in the file; its secrets can be read from the environment with { env = "NAME" }.
"#,
    );
}

#[test]
fn one_table_in_the_place_of_a_list_of_tables_is_told_how_to_be_one() {
    refused(
        &format!("{DATABASE}[webhooks]\nname = 'a'\n"),
        &[],
        "walhook.toml:3:2: webhooks: expected a list of tables, found one table\n  hint: Write [[webhooks]] in the place of [webhooks].",
    );
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_named_with_its_remedy() {
    refused(
        "[database]\nurl = \"hunter2\nslot = 1",
        &[],
        "walhook.toml:2:15: not valid TOML: invalid basic string, expected `\"`",
    );
    let folder = Folder::with("");
    std::fs::remove_file(folder.file("walhook.toml")).unwrap();
    let problems = load(&folder.sources(&[]), &ACCEPT_ALL).unwrap_err();
    assert_eq!(
        folder.words(&problems),
        "walhook.toml: there is no configuration file\n  hint: Copy config.example.toml to walhook.toml and edit it, \
         or name another file with --config or WALHOOK_CONFIG."
    );
}

#[test]
fn a_complaint_of_another_module_stands_where_its_text_does() {
    let complaint = |line, column| Complaint {
        message: "no such helper".to_owned(),
        line: Some(line),
        column: Some(column),
    };
    let template = |_: &str| Err(complaint(2, 3));
    let condition = |_: &str| Err(complaint(1, 4));
    let connection = |_: &str| Err(Complaint { message: "no host".to_owned(), line: None, column: None });
    let checks = Checks {
        condition: &condition,
        template: &template,
        connection: &connection,
        reach: &|_| Ok(()),
        stored: super::StoredTemplates::NONE,
    };
    let folder = Folder::with(
        "[database]\nurl = 'x'\n[[webhooks]]\nname = 'a'\nurl = 'http://a'\nevents = ['*']\nfilter = 'record.x'\n\
         [templates.a]\nbody = '''\n{\n{{x}}'''\n[templates.b]\nfile = 'b.hbs'\n",
    );
    std::fs::write(folder.file("b.hbs"), "b").unwrap();
    let problems = load(&folder.sources(&[]), &checks).unwrap_err();
    assert_eq!(
        folder.words(&problems),
        "b.hbs:2:3: templates.b.file: the template is not valid: no such helper\n\
         walhook.toml:2:1: database.url: the connection string is not valid: no host\n\
         walhook.toml:7:14: webhooks[0].filter: the condition is not valid: no such helper (at line 1, column 4 of the condition)\n  hint: \
         Conditions are CEL over record, old, changed, operation, schema, table and type.\n\
         walhook.toml:11:3: templates.a.body: the template is not valid: no such helper (at line 2, column 3 of the template)\n  hint: \
         Templates are handlebars; \"walhook render\" tries one on a sample."
    );
}

#[test]
fn i12_no_problem_and_no_debug_text_shows_a_secret() {
    let text = "[database]\nurl = 'hunter2-a'\n[server]\nadmin_token = 'hunter2-b'\n[[webhooks]]\nname = 'a'\n\
                url = 'https://a'\nevents = ['*']\nsecret = 'hunter2-c'\nheaders = { Authorization = 'hunter2-d' }\n";
    let shown = format!("{:?}", loaded(text, &[("X", "hunter2-e")]));
    assert!(!shown.contains("hunter2"), "{shown}");

    let wrong = text
        .replace("'hunter2-a'", "['hunter2-a']")
        .replace("'hunter2-b'", "{ env = 'A', x = 'hunter2-b' }")
        .replace("'hunter2-c'", "'whsec_hunter2-c'")
        .replace("'hunter2-d'", "\"hunter2-d\\n\"")
        .replace("'https://a'", "'https://hunter2:hunter2@a'");
    let folder = Folder::with(&wrong);
    let sources = folder.sources(&[("A", "hunter2-e")]);
    let problems = load(&sources, &ACCEPT_ALL).unwrap_err();
    assert_eq!(problems.0.len(), 5, "{problems}");
    assert!(!format!("{problems} {problems:?} {sources:?}").contains("hunter2"), "{problems}");
}

#[test]
fn a_row_is_a_webhook_with_the_files_defaults() {
    let config =
        loaded(&format!("{DATABASE}[delivery]\ntimeout = '3s'\n[templates.slack]\nbody = '{{}}'\n"), &[]);
    let row = row(&json!({
        "id": 7, "state": "active", "name": "t1", "url": "https://t1.example.com", "secret": ["a", "b"],
        "events": ["*"], "filter": null, "headers": {"X-A": "1"}, "template": "slack", "format": null,
        "concurrency": 2, "retry": {"schedule": []},
    }));
    let webhook = webhook_from_row(row, &config, &ACCEPT_ALL, Strangers::Left).unwrap();
    assert_eq!(webhook.source, crate::domain::WebhookSource::Database);
    assert_eq!((webhook.timeout, webhook.concurrency), (Duration::from_secs(3), 2));
    assert_eq!((webhook.retry.schedule.len(), webhook.retry.jitter), (0, 0.1));
    assert_eq!(webhook.body, BodyShape::Template("slack".into()));
    assert_ne!(webhook.body, BodyShape::Format(Format::Standard));
}

#[test]
fn a_row_may_not_point_to_secrets_nor_use_plain_http() {
    let config = loaded(DATABASE, &[]);
    let row = row(&json!({
        "name": "t1", "url": "http://t1.example.com", "secret": {"env": "PATH"}, "events": ["*"],
        "headers": {"X-A": {"file": "/etc/passwd"}}, "retry": {"jiter": 0},
    }));
    let problems = webhook_from_row(row, &config, &ACCEPT_ALL, Strangers::Left).unwrap_err();
    let file_only = "  detail: Only the operator's file may point to environment variables and files.";
    assert_eq!(
        problems.to_string(),
        format!(
            "row \"t1\" of walhook.webhooks: secret: expected the value itself, as a string\n{file_only}\n\
             row \"t1\" of walhook.webhooks: headers.X-A: expected the value itself, as a string\n{file_only}\n\
             row \"t1\" of walhook.webhooks: retry.jiter: unknown key\n  detail: The keys here are schedule, initial, \
             factor, max, jitter, give_up_on, retry_after_max, wait_on, max_age, max_attempts.\n  hint: Perhaps you meant \"jitter\".\n\
             row \"t1\" of walhook.webhooks: url: plain http is not allowed to webhooks from the database\n  hint: Use \
             https, or have the operator set security.allow_http = true."
        )
    );
}
