//! The publications, whoever made them: the application's own statements go on, what is missing is said with the SQL for
//! it, and one table of somebody else's keeps no other from being heard of.

use tokio_postgres::Client;

use crate::support::{
    Database, PATIENCE, Receiver, Run, SECRET, Sidecar, beside_others, connect, eventually, refused, run_once,
};

const OPEN: &str = "[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";
const OTHERS: &str = "belong to other roles and are not published";

fn run(receiver: &Receiver, events: &str) -> Run {
    Run::with(OPEN).webhook("crm", &receiver.url("/crm"), &format!("events = [{events}]"))
}

/// With a publication that is somebody else's to change.
fn looking(mut run: Run, publication: &str) -> Run {
    let set = [("PUBLICATION", publication), ("MANAGE_PUBLICATION", "false")];
    run.environment.extend(set.map(|(name, value)| (format!("WALHOOK_DATABASE__{name}"), value.to_owned())));
    run
}

/// A role of its own, which owns nothing yet, and the connection string as that role.
async fn role(database: &Database, name: &str) -> (String, String) {
    let role = format!("{name}_{}", database.name);
    let grants = format!(
        "create role {role} login replication password 'w'; grant create on database {} to {role}; \
         grant create, usage on schema public to {role}",
        database.name
    );
    database.execute(&grants).await;
    let (_, tail) = database.url.split_once('@').expect("a password");
    let url = format!("postgres://{role}:w@{tail}");
    (role, url)
}

async fn client(url: &str) -> Client {
    connect(url).await.expect("a connection")
}

async fn published(database: &Database, publication: &str, table: &str) -> bool {
    let sql = "select count(*) from pg_publication_tables where pubname = $1 and tablename = $2";
    database.rows(sql, &[&publication, &table]).await[0].get::<_, i64>(0) == 1
}

/// What there is of walhook's: schemas, publications, slots.
async fn traces(database: &Database) -> i64 {
    database
        .number(
            "select (select count(*) from pg_namespace where nspname = 'walhook') + (select count(*) from pg_publication)
                + (select count(*) from pg_replication_slots where slot_name = current_database())",
        )
        .await
}

/// What `walhook run` says where it must refuse to begin; the keys are those of `[database]`.
async fn refusal(url: &str, database: &Database, keys: &str, run: &Run) -> String {
    let file = format!(
        "[database]\nurl = \"{url}\"\nslot = \"{}\"\n{keys}\n[server]\nlisten = \"127.0.0.1:0\"\n{}",
        database.name, run.toml
    );
    let (code, said) = refused(&file).await;
    assert_eq!(code, Some(1), "{said}");
    said
}

/// The SQL that the owner is to run.
fn sql_of(said: &str) -> String {
    let (_, tail) = said.split_once("Have the owner run: ").expect("a remedy");
    let line = tail.lines().next().unwrap_or_default();
    line.split(" Or let").next().unwrap_or_default().to_owned()
}

async fn checked(sidecar: &Sidecar, environment: &[(&str, &str)]) -> String {
    let file = sidecar.file();
    let arguments = ["check", "--json", "--config", file.to_str().expect("a plain path")];
    let output = run_once(&arguments, environment).await;
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_deferrable_primary_key_is_no_identity_and_the_applications_updates_go_on() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute("create table t (id int8 primary key deferrable, note text)").await;
    let meant = run(&receiver, "\"t.*\"");
    let said = refusal(&database.url, &database, "", &meant).await;
    assert!(said.contains("REPLICA IDENTITY FULL") && said.contains("deferrable"), "{said}");
    assert_eq!(traces(&database).await, 0);

    let file = run(&receiver, "\"t*\"").expecting("without a replica identity");
    let mut sidecar = Sidecar::start(&database, file).await;
    database.execute("insert into t values (1, 'a'); update t set note = 'b'").await;
    receiver.expect("/crm", 1).await;
    let found = checked(&sidecar, &[]).await;
    assert!(
        found.contains("only its inserts can become events") && found.contains("not deferrable"),
        "{found}"
    );
    database.execute("alter table t replica identity full").await;
    eventually("the table to be published whole", PATIENCE, async || {
        published(&database, "walhook", "t").await
    })
    .await;
    database.execute("update t set note = 'c'; delete from t").await;
    let requests = receiver.expect("/crm", 3).await;
    assert_eq!(requests[1].json()["data"]["old"]["note"], "b");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_table_of_somebody_elses_that_a_pattern_matches_is_left_out_and_told_and_the_others_are_published()
{
    let _turn = beside_others().await;
    let (mut database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (app, url) = role(&database, "app").await;
    let (bob, of_bob) = role(&database, "bob").await;
    database.execute(&format!("alter table orders owner to {app}")).await;
    let superuser = std::mem::replace(&mut database.url, url.clone());
    let mut sidecar = Sidecar::start(
        &database,
        run(&receiver, "\"*\"").expecting(OTHERS).expecting("without a replica identity"),
    )
    .await;

    client(&of_bob).await.batch_execute("create table theirs (id int8 primary key)").await.expect("a table");
    sidecar.logged(OTHERS).await;
    client(&url).await.batch_execute("create table ours (id int8 primary key)").await.expect("a table");
    eventually("our own table", PATIENCE, async || published(&database, "walhook", "ours").await).await;
    database.execute("insert into theirs values (1); insert into ours values (2)").await;
    let requests = receiver.expect("/crm", 1).await;
    assert_eq!(requests[0].header("x-webhook-event"), "ours.created");
    let line = sidecar.logged(OTHERS).await.to_string();
    let sql = "alter publication \\\\\\\"walhook\\\\\\\" add table only \\\\\\\"public\\\\\\\".\\\\\\\"theirs\\\\\\\";";
    assert!(line.contains(sql), "{line}");
    let told = sidecar.lines().iter().filter(|line| line.to_string().contains(OTHERS)).count();
    assert_eq!(told, 1, "{}", sidecar.log_text());
    let found: serde_json::Value = serde_json::from_str(&checked(&sidecar, &[]).await).expect("JSON");
    let unowned = found["findings"].as_array().expect("a list").iter().find(|finding| {
        finding["message"].as_str().is_some_and(|m| m.contains("\"theirs\" belongs to another role"))
    });
    assert_eq!(unowned.expect("a finding")["severity"], "warning");

    // The next start is not refused, and what the owner grants is taken up.
    sidecar.stop().await;
    sidecar.spawn();
    sidecar.ready().await;
    database.execute(&format!("grant {bob} to {app}")).await;
    eventually("their table", PATIENCE, async || published(&database, "walhook", "theirs").await).await;
    database.execute("insert into theirs values (3)").await;
    let requests = receiver.expect("/crm", 2).await;
    assert_eq!(requests[1].header("x-webhook-event"), "theirs.created");
    // A published table whose owner changes stays published; one that loses its key moves although it is another's.
    database
        .execute(&format!("revoke {bob} from {app}; alter table theirs drop constraint theirs_pkey"))
        .await;
    eventually("their table to leave", PATIENCE, async || !published(&database, "walhook", "theirs").await)
        .await;
    database.execute("update theirs set id = 4").await;
    sidecar.stop().await;
    drop(superuser);
}

#[tokio::test]
async fn a_table_of_somebody_elses_that_is_named_is_an_error_at_the_start_and_none_for_the_others_while_it_runs()
 {
    let _turn = beside_others().await;
    let (mut database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (app, url) = role(&database, "app").await;
    let (bob, of_bob) = role(&database, "bob").await;
    database.execute(&format!("alter table orders owner to {app}")).await;
    client(&of_bob).await.batch_execute("create table theirs (id int8 primary key)").await.expect("a table");
    database.url.clone_from(&url);
    let meant = run(&receiver, "\"orders.*\", \"theirs.created\"");
    let said = refusal(&url, &database, "", &meant).await;
    let grant = format!("grant \"{bob}\" to \"{app}\";");
    assert!(said.contains("only \"public\".\"theirs\"") && said.contains(&grant), "{said}");
    assert_eq!(traces(&database).await, 0);

    let mut sidecar = Sidecar::start(&database, run(&receiver, "\"orders.*\"").expecting(OTHERS)).await;
    client(&url).await.batch_execute("create table later (id int8 primary key)").await.expect("a table");
    let stored = format!(
        "insert into walhook.webhooks (name, url, secret, events) values
            ('live', '{}', '{SECRET}', '{{theirs.created,later.created}}')",
        receiver.url("/live")
    );
    sidecar.published_after(0).await;
    let before = sidecar.catalogs();
    client(&url).await.batch_execute(&stored).await.expect("a webhook");
    sidecar.published_after(before).await;
    assert!(published(&database, "walhook", "later").await);
    client(&url).await.batch_execute("insert into later values (1)").await.expect("a row");
    receiver.expect("/live", 1).await;
    sidecar.logged(OTHERS).await;
    // A webhook of the database keeps no start from beginning.
    sidecar.stop().await;
    sidecar.spawn();
    sidecar.ready().await;
    assert!(published(&database, "walhook", "later").await);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_publication_that_another_role_owns_is_enough_as_long_as_it_needs_no_change_and_its_sql_is_printed()
{
    let _turn = beside_others().await;
    let (mut database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (app, url) = role(&database, "app").await;
    database.execute(&format!("alter table orders owner to {app}; create table more (id int8 primary key); alter table more owner to {app}")).await;
    let generated =
        if database.version().await >= 180_000 { ", publish_generated_columns = stored" } else { "" };
    database
        .execute(&format!(
            "create publication walhook for table orders with (publish_via_partition_root = true{generated});
             create publication walhook_inserts with (publish = 'insert, truncate', publish_via_partition_root = true{generated})"
        ))
        .await;
    database.url.clone_from(&url);
    let mut sidecar = Sidecar::start(&database, run(&receiver, "\"orders.*\"")).await;
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    receiver.expect("/crm", 1).await;
    sidecar.stop().await;
    let said = refusal(&url, &database, "", &run(&receiver, "\"orders.*\", \"more.*\"")).await;
    assert_eq!(sql_of(&said), "alter publication \"walhook\" add table only \"public\".\"more\";");
    database.execute(&sql_of(&said)).await;
    sidecar.next_run(|_| run(&receiver, "\"orders.*\", \"more.*\""));
    sidecar.write_own_file(&database);
    sidecar.spawn();
    sidecar.ready().await;
    database.execute("insert into more values (2)").await;
    receiver.expect("/crm", 2).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn without_management_both_publications_are_asked_for_at_once_so_that_a_table_without_a_key_can_come_later()
 {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let file = || looking(run(&receiver, "\"orders.*\""), "theirs");
    let keys = "publication = \"theirs\"\nmanage_publication = false\n";
    let sql = sql_of(&refusal(&database.url, &database, keys, &file()).await);
    assert_eq!(traces(&database).await, 0);
    database.execute(&sql).await;
    assert_eq!(database.number("select count(*) from pg_publication").await, 2);
    let lacking = file().expecting("the publication could not be looked after");
    let mut sidecar = Sidecar::start(&database, lacking).await;
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    receiver.expect("/crm", 1).await;

    database.execute("create table log (line text)").await;
    let stored = format!(
        "insert into walhook.webhooks (name, url, secret, events) values ('live', '{}', '{SECRET}', '{{log.created}}')",
        receiver.url("/live")
    );
    sidecar.published_after(0).await;
    let before = sidecar.catalogs();
    database.execute(&stored).await;
    let told = sidecar.logged("the publication could not be looked after").await;
    let told = told["fields"]["problem"].as_str().expect("a text").to_owned();
    sidecar.published_after(before).await;
    database.execute(&sql_of(&told)).await;
    database
        .execute("insert into log values ('a'); update log set line = 'b'; insert into log values ('c')")
        .await;
    receiver.expect("/live", 2).await;
    // What comes while it is away is read from before, and all of it is there.
    sidecar.kill9().await;
    database.execute("insert into log values ('d'); insert into orders values (2, 'a', 1, null)").await;
    sidecar.spawn();
    sidecar.ready().await;
    receiver
        .wait("/live", "the row", PATIENCE, |requests| requests.iter().any(|r| r.column("line") == "d"))
        .await;
    receiver.wait("/crm", "the row", PATIENCE, |requests| requests.iter().any(|r| r.column("id") == 2)).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_publication_of_somebody_elses_that_would_lose_events_is_refused_with_the_sql_that_mends_it() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database
        .execute(
            "create table parts (id int8 primary key, note text) partition by range (id);
             create table parts_low partition of parts for values from (0) to (100)",
        )
        .await;
    let keys = "publication = \"theirs\"\nmanage_publication = false\n";
    let file = || {
        let run = run(&receiver, "\"orders.*\", \"parts.created\"");
        looking(run, "theirs").expecting("its changes are dropped")
    };
    let root = "alter publication \"theirs\" set (publish_via_partition_root = true);";
    for (made, mends) in [
        (
            "for table orders, parts with (publish = 'insert', publish_via_partition_root)",
            "set (publish = 'insert, update, delete, truncate');",
        ),
        ("for table orders, parts", root),
        ("for all tables", root),
        ("for table parts with (publish_via_partition_root)", "add table only \"public\".\"orders\";"),
    ] {
        database.execute(&format!("create publication theirs {made}; create publication theirs_inserts with (publish = 'insert, truncate')")).await;
        let said = refusal(&database.url, &database, keys, &file()).await;
        assert!(sql_of(&said).contains(mends), "{made}: {said}");
        assert_eq!(traces(&database).await, 2, "{made}");
        database.execute(&sql_of(&said)).await;
        let mut sidecar = Sidecar::start(&database, file()).await;
        let before = receiver.requests("/crm").len();
        database.execute("insert into orders values (1, 'a', 1, null); update orders set status = 'b'; delete from orders; insert into parts values (1)").await;
        let requests = receiver.expect("/crm", before + 4).await;
        assert!(
            requests.iter().skip(before).any(|r| r.header("x-webhook-event") == "parts.created"),
            "{made}"
        );
        sidecar.stop().await;
        let active =
            "select count(*) from pg_replication_slots where database = current_database() and active";
        eventually("the slot is left", PATIENCE, async || database.number(active).await == 0).await;
        database
            .execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database();
                 drop publication theirs, theirs_inserts; drop schema walhook cascade; truncate parts",
            )
            .await;
    }
}

#[tokio::test]
async fn what_a_publication_of_somebody_elses_leaves_out_on_purpose_is_told_and_left() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    if database.version().await < 150_000 {
        return;
    }
    database
        .execute(
            "create schema shop; create table shop.items (id int8 primary key); create table shop.log (line text);
             create publication theirs for tables in schema shop, table orders where (id > 10) with (publish_via_partition_root);
             create publication theirs_inserts with (publish = 'insert, truncate')",
        )
        .await;
    let environment =
        [("WALHOOK_DATABASE__PUBLICATION", "theirs"), ("WALHOOK_DATABASE__MANAGE_PUBLICATION", "false")];
    let (narrow, hurt) = ("leaves rows or columns out", "updates of tables without a replica identity");
    let file =
        looking(run(&receiver, "\"orders.*\", \"shop.items.*\""), "theirs").expecting(narrow).expecting(hurt);
    let mut sidecar = Sidecar::start(&database, file).await;
    sidecar.logged(narrow).await;
    let line = sidecar.logged(hurt).await.to_string();
    assert!(line.contains("log") && line.contains("REPLICA IDENTITY FULL"), "{line}");
    database
        .execute("insert into orders values (1, 'a', 1, null), (11, 'a', 1, null); insert into shop.items values (7)")
        .await;
    let requests = receiver.expect("/crm", 2).await;
    assert!(requests.iter().all(|request| request.column("id") != 1), "the filter is theirs");
    let found = checked(&sidecar, &environment).await;
    assert!(found.contains("(row filter of \\\"theirs\\\")"), "{found}");
    assert!(
        found.contains("publishes updates of tables without a replica identity: \\\"shop\\\".\\\"log\\\""),
        "{found}"
    );
    sidecar.stop().await;
    database.execute("alter publication theirs drop tables in schema shop").await;
    database.execute("alter publication theirs set table orders (id, status), shop.items").await;
    let found = checked(&sidecar, &environment).await;
    assert!(found.contains("(column list of \\\"theirs\\\")") && !found.contains("row filter of"), "{found}");
}

#[tokio::test]
async fn a_publication_of_ours_that_was_narrowed_is_made_whole_again() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let new = database.version().await >= 150_000;
    let narrow = if new { "orders (id, status) where (id > 10), tables in schema shop" } else { "orders" };
    // A column list and a whole schema do not go together.
    let narrow = narrow.replace(", tables in schema shop", "");
    database.execute("create schema shop; create table shop.log (line text)").await;
    database
        .execute(&format!("create publication walhook for table {narrow} with (publish = 'insert')"))
        .await;
    let mut sidecar = Sidecar::start(&database, run(&receiver, "\"orders.*\"")).await;
    let whole = "select count(*) from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
        where p.pubname = 'walhook' and p.pubviaroot and p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate
            and to_jsonb(r) ->> 'prqual' is null and to_jsonb(r) ->> 'prattrs' is null";
    assert_eq!(database.number(whole).await, 1);
    database.execute("insert into orders values (1, 'a', 1, 'note'); update orders set status = 'b'").await;
    let requests = receiver.expect("/crm", 2).await;
    assert_eq!(requests[0].column("note"), "note");
    if new {
        // Somebody means it well: the schema's tables are not in it for long, and its own statements work again.
        database.execute("alter publication walhook add tables in schema shop").await;
        database.execute("insert into shop.log values ('a')").await;
        eventually("the schema to leave", PATIENCE, async || !published(&database, "walhook", "log").await)
            .await;
        database.execute("update shop.log set line = 'b'").await;
        assert!(published(&database, "walhook", "orders").await);
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_publication_of_all_tables_is_told_with_the_tables_whose_updates_it_breaks_and_the_remedy() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database.execute("create table log (line text); create publication theirs for all tables").await;
    let hurt = "updates of tables without a replica identity";
    let file = looking(run(&receiver, "\"orders.*\""), "theirs")
        .expecting(hurt)
        .expecting("its changes are dropped");
    let mut sidecar = Sidecar::start(&database, file).await;
    let line = sidecar.logged(hurt).await;
    let remedy = line["fields"]["remedy"].as_str().expect("SQL").to_owned();
    let (_, sql) = remedy.split_once("run: ").expect("SQL");
    assert_eq!(sql, "ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;");
    database.execute("insert into log values ('a')").await;
    let other = client(&database.url).await;
    assert!(other.batch_execute("update log set line = 'b'").await.is_err(), "it is hurt");
    database.execute(sql).await;
    database.execute("update log set line = 'b'").await;
    let environment =
        [("WALHOOK_DATABASE__PUBLICATION", "theirs"), ("WALHOOK_DATABASE__MANAGE_PUBLICATION", "false")];
    let found = checked(&sidecar, &environment).await;
    assert!(!found.contains(hurt) && found.contains("\"about\":\"publication\""), "{found}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_table_that_loses_its_identity_while_it_is_published_is_moved_and_the_applications_statements_work_again()
 {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table dropped (id int8 primary key, n int8); create table nothing (id int8 primary key, n int8);
             create table marked (id int8 not null, n int8); create unique index marks on marked (id);
             alter table marked replica identity using index marks;
             create table deferred (id int8 primary key, n int8);
             create table parts (id int8, n int8) partition by range (id);
             create table parts_1 partition of parts (primary key (id)) for values from (0) to (10);
             insert into dropped values (1); insert into nothing values (1); insert into marked values (1);
             insert into deferred values (1); insert into parts values (1)",
        )
        .await;
    let file = run(&receiver, "\"*\"").expecting("without a replica identity");
    let mut sidecar = Sidecar::start(&database, file).await;
    let tables = ["dropped", "nothing", "marked", "deferred", "parts"];
    for table in tables {
        assert!(published(&database, "walhook", table).await, "{table}");
    }
    database
        .execute(
            "alter table dropped drop constraint dropped_pkey; alter table nothing replica identity nothing;
             drop index marks; alter table deferred drop constraint deferred_pkey, add primary key (id) deferrable;
             create table parts_2 partition of parts for values from (10) to (20); insert into parts values (11)",
        )
        .await;
    let application = client(&database.url).await;
    for table in tables {
        let update = format!("update {table} set n = 2");
        eventually("the application's update", PATIENCE, async || {
            application.batch_execute(&update).await.is_ok()
        })
        .await;
        assert!(published(&database, "walhook_inserts", table).await, "{table}");
        application.batch_execute(&format!("insert into {table} values (5)")).await.expect("a row");
        application.batch_execute(&format!("delete from {table} where id = 5")).await.expect("no row");
    }
    let inserts = |requests: &[crate::support::Request]| {
        let of_five = requests.iter().filter(|request| request.column("id") == 5);
        of_five.filter(|request| request.header("x-webhook-event").ends_with(".created")).count() == 5
    };
    receiver.wait("/crm", "every insert", PATIENCE, inserts).await;
    sidecar.stop().await;
}
