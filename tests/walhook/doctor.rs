//! `walhook check` as a doctor: what the tables' shapes, the server's settings and a managed service mean for events,
//! each with a remedy that can be pasted.

use serde_json::Value;
use walhook::cluster::{Cluster, Copied, Options};

use crate::support::{
    Database, ORDERS, PATIENCE, Receiver, Run, SECRET, beside_others, eventually, run_once,
};

/// What `check --json` found.
struct Found(Value);

impl Found {
    /// Runs it with what the file says beside `[database]`, which also has `keys`.
    async fn check_with(url: &str, slot: &str, keys: &str, toml: &str) -> Self {
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        let path = home.path().join("walhook.toml");
        let text = format!("[database]\nurl = \"{url}\"\nslot = \"{slot}\"\n{keys}\n\n{toml}");
        std::fs::write(&path, text).expect("a file");
        let path = path.to_str().expect("a plain path");
        let output = run_once(&["check", "--json", "--config", path], &[]).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
        });
        assert_eq!(output.status.code(), Some(i32::from(report["ok"] == false)), "{report:#}");
        Self(report)
    }

    async fn check(database: &Database, toml: &str) -> Self {
        Self::check_with(&database.url, &database.name, "", toml).await
    }

    fn list(&self) -> Vec<&Value> {
        self.0["findings"].as_array().expect("a list").iter().collect()
    }

    /// The finding of this severity that says so; `hint` is a part of its remedy.
    #[track_caller]
    fn expect(&self, severity: &str, message: &str, hint: &str) -> &Value {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let found = self.list().into_iter().find(|finding| {
            let said = text(finding, "message") + " " + &text(finding, "detail");
            finding["severity"] == severity && said.contains(message) && text(finding, "hint").contains(hint)
        });
        found.unwrap_or_else(|| panic!("no {severity} `{message}` with `{hint}` in {:#}", self.0))
    }

    #[track_caller]
    fn nothing(&self, about: &str) {
        for finding in self.list().iter().filter(|finding| finding["severity"] != "ok") {
            assert!(!finding.to_string().contains(about), "`{about}` in {finding:#}");
        }
    }

    fn loud(&self) -> Vec<&Value> {
        self.list().into_iter().filter(|finding| finding["severity"] != "ok").collect()
    }
}

fn webhook(url: &str, keys: &str) -> String {
    Run::default().webhook("crm", url, keys).toml
}

/// A webhook whose receiver is not there: that is a warning, which these tests do not look at.
fn nowhere(keys: &str) -> String {
    webhook("http://127.0.0.1:9/", keys)
}

#[tokio::test]
async fn doctor_says_what_to_name_instead_of_views_partitions_and_tables_that_are_not_logged() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    database
        .execute(
            "create table customers (id int8 primary key);
             create view order_view as select o.id, o.status from orders o;
             create view deep as select v.id from order_view v join customers c on c.id = v.id;
             create materialized view totals as select sum(total) from orders;
             create foreign data wrapper nobody; create server far foreign data wrapper nobody;
             create foreign table remote (id int8) server far;
             create unlogged table scratch (id int8 primary key);
             create temporary table passing (id int8 primary key);
             create table parts (id int8 primary key) partition by range (id);
             create table parts_low partition of parts for values from (0) to (100);",
        )
        .await;
    let toml = nowhere(
        "events = [\"order_view.updated\", \"deep.*\", \"totals.created\", \"remote.created\", \"scratch.deleted\", \
         \"passing.created\", \"parts_low.created\", \"view.changed\", \"orders.*\"]",
    ) + "\n[tables.scratch]\nexclude = [\"x\"]\n\n[[events]]\ntype = \"view.changed\"\ntable = \"order_view\"\n\n\
           [tables.custmers]\nevent = \"c\"\n";
    let found = Found::check(&database, &toml).await;
    found.expect("error", "\"order_view\" is a view", "tables that it reads: orders.");
    found.expect("warning", "\"deep\" is a view", "tables that it reads: customers, orders.");
    found.expect("error", "\"totals\" is a materialized view", "tables that it reads: orders.");
    found.expect("error", "\"remote\" is a foreign table", "on the server that holds the table");
    found.expect("error", "\"scratch\" is unlogged", "ALTER TABLE \"public\".\"scratch\" SET LOGGED;");
    found.expect("error", "\"passing\" is a temporary table", "ordinary table");
    found.expect("error", "\"parts_low\" is a partition of \"public\".\"parts\"", "Name parts;");
    found.expect("error", "events.view.changed: \"public\".\"order_view\" is a view", "orders");
    found.expect("warning", "tables.scratch: \"public\".\"scratch\" is unlogged", "SET LOGGED");
    found.expect("warning", "tables.custmers: there is no table", "\"customers\"");

    database.execute("alter table scratch set logged").await;
    let found = Found::check(&database, &toml).await;
    found.nothing("scratch");
}

/// Tables of all shapes.
const SHAPES: &str =
    "create table whole (id int8 primary key, t text); alter table whole replica identity full;
    create table slim (id int8 primary key, code varchar(20), n numeric);
    create table log (line text);
    create table visits (id int8, day int4, note text, primary key (id, day)) partition by range (day);
    create table visits_1 partition of visits for values from (0) to (10);
    create table visits_2 partition of visits for values from (10) to (20);
    create unlogged table visits_3 partition of visits for values from (20) to (30);
    alter table visits replica identity full;
    create table leafy (id int8, day int4, primary key (id, day)) partition by range (day);
    create table leafy_1 partition of leafy for values from (0) to (10);
    alter table leafy_1 replica identity full;
    create table loose (id int8, day int4) partition by range (day);
    create table loose_1 partition of loose for values from (0) to (10);
    create table parent (id int8 primary key);
    create table child (extra text) inherits (parent);
    create table grandchild () inherits (child);";

#[tokio::test]
async fn doctor_tells_what_each_identity_gives_and_where_partitions_and_large_values_are_a_trap() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    database.execute(SHAPES).await;
    let toml = nowhere("events = [\"*\"]");
    let toml = toml.replace(
        "[\"*\"]",
        "[\"orders.*\", \"whole.*\", \"slim.*\", \"log.created\", \"visits.*\", \
        \"leafy.*\", \"loose.*\", \"parent.*\"]",
    );
    let found = Found::check(&database, &toml).await;
    let table = |name: &str| {
        let tables = found.0["tables"].as_array().expect("a list");
        tables.iter().find(|table| table["table"] == name).cloned().unwrap_or_default()
    };
    let says = |name: &str, old: &str, unavailable: &[&str]| {
        let table = table(name);
        assert_eq!((&table["old"], &table["changed"]), (&old.into(), &(old == "full").into()), "{table:#}");
        assert_eq!(table["unavailable"], Value::from(unavailable), "{table:#}");
    };
    says("orders", "key", &["note", "status"]);
    says("whole", "full", &[]);
    says("slim", "key", &[]);
    says("log", "nothing", &[]);
    says("visits", "key", &["note"]);
    found.expect("ok", "public.whole: events tell the whole old row and what changed", "");
    found.expect("ok", "public.log", "");
    let hint = found.expect(
        "hint",
        "large values that an update leaves alone are not sent",
        "REPLICA IDENTITY FULL",
    );
    let message = hint["message"].as_str().expect("a text");
    assert!(message.contains("public.orders (note, status), public.visits (note)"), "{message}");
    assert!(!message.contains("slim") && !message.contains("whole"), "{message}");
    let trap = found.expect(
        "warning",
        "\"visits\" has a full replica identity, and not all",
        "\"visits_1\" REPLICA",
    );
    let remedy = trap["hint"].as_str().expect("SQL").to_owned();
    assert!(!remedy.contains("visits_3"), "an unlogged partition sends nothing: {remedy}");
    found.expect("warning", "partitions of \"public\".\"visits\" are unlogged", "\"visits_3\" SET LOGGED;");
    found.expect(
        "hint",
        "\"leafy\" has partitions with a full replica identity",
        "\"leafy\" REPLICA IDENTITY FULL",
    );
    found.expect("error", "\"loose\" has no replica identity", "\"loose_1\" REPLICA IDENTITY FULL;");
    found.expect("hint", "partitioned, with the root's name in events", "");
    found.expect(
        "warning",
        "children that no webhook wants: \"public\".\"child\", \"public\".\"grandchild\"",
        "child.*",
    );

    // Pasted, the remedy is one.
    database.execute(&remedy).await;
    let with_children = toml.replace("\"parent.*\"", "\"parent.*\", \"child.*\", \"grandchild.*\"");
    let found = Found::check(&database, &with_children).await;
    found.nothing("not all of its partitions");
    found.nothing("children that no webhook wants");
    found.expect("ok", "public.visits", "");
    let full = found.list().into_iter().any(|finding| {
        finding["message"]
            .as_str()
            .is_some_and(|m| m.contains("public.visits") && m.contains("whole old row"))
    });
    assert!(full, "{:#}", found.0);
}

#[tokio::test]
async fn doctor_names_generated_and_excluded_columns_in_templates() {
    let _turn = beside_others().await;
    let database = Database::new().await;
    database
        .execute("create table items (id int8 primary key, net int8, gross int8 generated always as (net * 2) stored, pin text)")
        .await;
    let template = "\n[templates.line]\nbody = '''{{#if data.record.gross}}{{data.record.id}}{{/if}} {{data.record.pin}}'''\n\
                    \n[tables.items]\nexclude = [\"pin\"]\n";
    let toml =
        nowhere("events = [\"items.*\"]\ntemplate = \"line\"\nfilter = \"record.gross > 3\"") + template;
    let found = Found::check(&database, &toml).await;
    found.expect(
        "error",
        "templates.line, which webhook crm uses: column \"pin\" of items is excluded",
        "exclude",
    );
    if database.version().await < 180_000 {
        found.expect("error", "column \"gross\" of items is generated", "generated from instead");
        found.expect("error", "webhooks.crm.filter: column \"gross\" of items is generated", "instead");
    } else {
        found.nothing("gross");
    }
    found.nothing("\\\"id\\\"");
}

#[tokio::test]
async fn doctor_is_brief_where_all_is_well_and_its_remedies_for_settings_can_be_pasted() {
    let _turn = beside_others().await;
    let receiver = Receiver::start().await;
    let settings = [
        ("max_slot_wal_keep_size", "64MB"),
        ("wal_sender_timeout", "2s"),
        ("logical_decoding_work_mem", "1MB"),
        ("max_replication_slots", "1"),
    ];
    let mut settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let eighteen = Database::new().await.version().await >= 180_000;
    if eighteen {
        settings.push(("idle_replication_slot_timeout".to_owned(), "1h".to_owned()));
    }
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let database = Database::on(&cluster).await;
    database.execute("create table orders (id int8 primary key, total int8)").await;
    let toml = webhook(&receiver.url("/crm"), "events = [\"orders.*\"]");
    let found = Found::check(&database, &toml).await;
    let mut remedies = vec![
        found.expect("warning", "max_slot_wal_keep_size is only 64MB", "ALTER SYSTEM SET"),
        found.expect("warning", "wal_sender_timeout is only 2s", "ALTER SYSTEM SET"),
        found.expect("hint", "logical_decoding_work_mem is only 1MB", "ALTER SYSTEM SET"),
    ];
    if eighteen {
        remedies.push(found.expect("warning", "idle_replication_slot_timeout is 1h", "ALTER SYSTEM SET"));
    }
    found.expect("hint", "one of max_replication_slots = 1 is left", "max_replication_slots = '5'");
    assert_eq!(found.0["ok"], true, "a server that works is no problem: {:#}", found.0);

    for remedy in remedies {
        for statement in remedy["hint"].as_str().expect("SQL").split_inclusive(';') {
            database.execute(statement).await;
        }
    }
    database.execute("select pg_create_logical_replication_slot('other', 'pgoutput')").await;
    eventually("the settings", PATIENCE, async || Found::check(&database, &toml).await.loud().len() == 1)
        .await;
    let found = Found::check(&database, &toml).await;
    found.expect(
        "error",
        "max_replication_slots is used up (1 of 1)",
        "ALTER SYSTEM SET max_replication_slots",
    );
    database.execute("select pg_drop_replication_slot('other')").await;
    database
        .execute(&format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", database.name))
        .await;
    let found = Found::check(&database, &toml).await;
    assert!(found.loud().is_empty(), "{:#}", found.0);
    assert!(found.list().len() <= 10, "too much to read: {:#}", found.0);

    for (setting, value, says) in [
        ("max_slot_wal_keep_size", "-1", "max_slot_wal_keep_size has no limit"),
        ("wal_sender_timeout", "0", "wal_sender_timeout is off"),
        ("wal_sender_timeout", "1h", "wal_sender_timeout is 1h"),
    ] {
        database.execute(&format!("alter system set {setting} = '{value}'")).await;
        database.execute("select pg_reload_conf()").await;
        eventually(says, PATIENCE, async || {
            let found = Found::check(&database, &toml).await;
            found
                .loud()
                .iter()
                .any(|finding| finding["severity"] == "hint" && finding.to_string().contains(says))
        })
        .await;
    }
}

#[tokio::test]
async fn doctor_knows_a_managed_service_by_its_roles_and_says_its_own_way() {
    let _turn = beside_others().await;
    let settings = vec![
        ("wal_level".to_owned(), "replica".to_owned()),
        ("max_slot_wal_keep_size".to_owned(), "64MB".to_owned()),
    ];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let database = Database::on(&cluster).await;
    database.execute(ORDERS).await;
    database.execute("create role plain login password 'open-sesame'").await;
    let url = cluster.url_as("plain", "open-sesame", &database.name);
    let toml = nowhere("events = [\"orders.*\"]");
    let services = [
        (
            "rds_superuser",
            "Amazon RDS",
            "rds.logical_replication = 1",
            "GRANT rds_replication TO \"plain\";",
            "parameter group",
        ),
        (
            "cloudsqlsuperuser",
            "Google Cloud SQL",
            "cloudsql.logical_decoding = on",
            "ALTER USER \"plain\" WITH REPLICATION;",
            "flag",
        ),
        (
            "azure_pg_admin",
            "Azure",
            "wal_level to LOGICAL",
            "ALTER ROLE \"plain\" WITH REPLICATION;",
            "server parameter",
        ),
        (
            "supabase_admin",
            "Supabase",
            "support",
            "ALTER ROLE \"plain\" WITH REPLICATION;",
            "postgres-config",
        ),
        (
            "neon_superuser",
            "Neon",
            "Logical Replication",
            "ALTER ROLE \"plain\" WITH REPLICATION;",
            "project",
        ),
    ];
    let found = Found::check_with(&url, &database.name, "", &toml).await;
    found.expect("error", "wal_level is \"replica\"", "ALTER SYSTEM SET wal_level = 'logical'");
    for (role, name, level, right, settings) in services {
        database.execute(&format!("create role {role}")).await;
        let found = Found::check_with(&url, &database.name, "", &toml).await;
        found.expect("ok", &format!("on {name}"), "").to_string();
        found.expect("error", "wal_level is \"replica\"", level);
        found.expect("error", "role \"plain\" may not replicate", right);
        found.expect("warning", "max_slot_wal_keep_size is only 64MB", settings);
        assert!(!found.0.to_string().contains("ALTER SYSTEM"), "{name} does not allow it: {:#}", found.0);
        assert!(!found.0.to_string().contains(SECRET) && !found.0.to_string().contains("open-sesame"));
        database.execute(&format!("drop role {role}")).await;
    }
}

#[tokio::test]
async fn doctor_tells_a_standby_from_a_primary_and_whether_a_failover_keeps_the_slot() {
    let _turn = beside_others().await;
    let mut primary = Cluster::create(&Options::default()).expect("a cluster");
    let database = Database::on(&primary).await;
    database.execute("create table orders (id int8 primary key)").await;
    let (toml, name) = (nowhere("events = [\"orders.*\"]"), database.name.clone());
    let can = database.version().await >= 170_000;
    let check = async |url: &str, failover: bool| {
        let keys = format!("slot_failover = {failover}");
        Found::check_with(url, &name, if failover { &keys } else { "" }, &toml).await
    };
    let alone = check(&database.url, can).await;
    if can {
        alone.expect("warning", "no standby streams by a slot", "sync_replication_slots = on");
    } else {
        alone.nothing("standby");
    }
    database.execute("select pg_create_physical_replication_slot('standby')").await;
    drop(database);
    let conninfo = format!(
        "host=127.0.0.1 port={} user=postgres password={} dbname=postgres",
        primary.port(),
        primary.password()
    );
    let settings = [("primary_conninfo", conninfo), ("primary_slot_name", "standby".to_owned())];
    let mut standby = primary.copy(Copied::Standby, &settings).expect("a copy");
    standby.start().expect("a standby");
    let there = standby.url(&name);
    let found = check(&there, can).await;
    found.expect("error", "is a standby", "Name the primary");
    if !can {
        return;
    }
    let here = primary.url(&name);
    let streams = "standbys stream by standby, and the slot is not copied";
    eventually("the standby", PATIENCE, async || check(&here, false).await.0.to_string().contains(streams))
        .await;
    let found = check(&here, true).await;
    found.expect("warning", "streams by standby sends no feedback", "hot_standby_feedback = on");
    let listed = found.expect("hint", "synchronized_standby_slots does not name standby", "ALTER SYSTEM SET");
    for statement in listed["hint"].as_str().expect("SQL").split_inclusive(';') {
        primary.execute(&name, statement).await.expect("a setting");
    }
    for statement in ["alter system set hot_standby_feedback = on", "select pg_reload_conf()"] {
        standby.execute("postgres", statement).await.expect("a setting");
    }
    eventually("nothing to say of failover", PATIENCE, async || {
        let found = check(&here, true).await.0.to_string();
        !found.contains("feedback") && !found.contains("synchronized_standby_slots")
    })
    .await;
}

#[tokio::test]
async fn doctor_says_when_moves_that_are_to_be_folded_would_not_be_recognised() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    database.execute(SHAPES).await;
    let toml = |columns: &str, table: &str| {
        nowhere(&format!("events = [\"{table}.*\"]"))
            + &format!("\n[tables.{table}]\nfold_moves = {columns}\n")
    };
    let found = Found::check(&database, &toml("[\"id\"]", "leafy")).await;
    found.nothing("fold_moves");
    let found = Found::check(&database, &toml("[]", "leafy")).await;
    found.expect("hint", "moves between partitions is a deleted and a created one", "tables.*.fold_moves");
    let found = Found::check(&database, &toml("[\"idd\"]", "leafy")).await;
    found.expect("error", "tables.leafy.fold_moves: \"public\".\"leafy\" has no column \"idd\"", "\"id\"");
    database.execute("alter table leafy add note text").await;
    let found = Found::check(&database, &toml("[\"id\", \"note\"]", "leafy")).await;
    found.expect(
        "error",
        "does not tell \"note\"",
        "ALTER TABLE \"public\".\"leafy\" REPLICA IDENTITY FULL;",
    );
    let found = Found::check(&database, &toml("[\"id\"]", "orders")).await;
    found.expect("warning", "tables.orders.fold_moves: \"public\".\"orders\" is not partitioned", "Remove");
}
