//! New shapes of tables are events, exactly where the log shows them, for webhooks that ask for them by name.

mod again;

use serde_json::{Value, json};

use crate::support::{
    Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually, refused, run_once,
};

const ITEMS: &str = "create table items (id int primary key, size int, name varchar(20))";
const BOTH: &str = "events = [\"*\", \"*.schema_changed\"]";

/// A database, a receiver and a sidecar with one webhook on `/all`.
struct Scene {
    database: Database,
    receiver: Receiver,
    sidecar: Sidecar,
}

impl Scene {
    async fn with(setup: &str, toml: &str, keys: &str) -> Self {
        let (database, receiver) = (Database::new().await, Receiver::start().await);
        database.execute(setup).await;
        let run = Run::with(toml).webhook("all", &receiver.url("/all"), keys);
        let sidecar = Sidecar::start(&database, run).await;
        Self { database, receiver, sidecar }
    }

    /// Does each of these in a transaction of its own.
    async fn run(&self, statements: &[&str]) {
        for statement in statements {
            self.database.execute(statement).await;
        }
    }

    /// The events on `/all` so far, each once, in the order of their ids.
    async fn events(&self, count: usize) -> Vec<Request> {
        let enough = |requests: &[Request]| once_each(requests).len() >= count;
        let requests = self.receiver.wait("/all", &format!("{count} events"), PATIENCE, enough).await;
        let events = once_each(&requests);
        let types: Vec<&str> = events.iter().map(|r| r.header("x-webhook-event")).collect();
        assert_eq!(types.len(), count, "{types:?}");
        events
    }
}

/// Each id once, in their order; all requests of one have the same bytes.
fn once_each(requests: &[Request]) -> Vec<Request> {
    let mut events: Vec<Request> = Vec::new();
    for request in requests {
        match events.iter().find(|known| known.id() == request.id()) {
            Some(known) => assert_eq!(known.body, request.body, "{} changed its bytes", request.id()),
            None => events.push(request.clone()),
        }
    }
    events.sort_by(|one, other| one.id().cmp(other.id()));
    events
}

fn types(events: &[Request]) -> Vec<&str> {
    events.iter().map(|request| request.header("x-webhook-event")).collect()
}

fn change(event: &Request) -> Value {
    event.json()["data"]["schema_change"].clone()
}

fn names(columns: &Value) -> Vec<&str> {
    columns
        .as_array()
        .expect("a list")
        .iter()
        .map(|column| column["name"].as_str().expect("a name"))
        .collect()
}

#[tokio::test]
async fn each_kind_of_change_is_told_once_before_the_first_row_that_shows_it() {
    let _turn = beside_others().await;
    let scene = Scene::with(ITEMS, "", BOTH).await;
    scene
        .run(&[
            "insert into items values (1, 5, 'a')",
            "alter table items add note text",
            "create type mood as enum ('glad'); alter table items add mood mood",
            "insert into items values (2, 5, 'b')",
            "insert into items values (3, 5, 'c')",
            "alter table items drop size",
            "update items set note = 'x' where id = 2",
            "alter table items alter name type varchar(30), alter note type numeric(10, 2) using null",
            "insert into items values (4, 'd')",
            "alter table items rename name to title",
            "insert into items values (5, 'e')",
            "alter table items replica identity full",
            "delete from items where id = 5",
        ])
        .await;
    let events = scene.events(12).await;
    let shorts: Vec<_> = types(&events).iter().filter_map(|name| name.strip_prefix("items.")).collect();
    assert_eq!(
        shorts.join(" "),
        "created schema_changed created created schema_changed updated schema_changed created schema_changed created \
         schema_changed deleted"
    );
    let body = events[1].json();
    let data = &body["data"];
    assert_eq!(body["metadata"]["sequence"], json!(1));
    assert_eq!(body["metadata"]["lsn"], events[2].json()["metadata"]["lsn"]);
    let mood_oid = scene.database.number("select 'mood'::regtype::oid::int8").await;
    assert_eq!(
        *data,
        json!({
            "operation": "schema", "schema": "public", "table": "items", "record": null, "old": null, "changed": null,
            "unavailable": [],
            "schema_change": {
                "added": [
                    { "name": "note", "type": "text", "type_oid": 25, "type_modifier": -1, "in_identity": false },
                    { "name": "mood", "type": "public.mood", "type_oid": mood_oid, "type_modifier": -1, "in_identity": false },
                ],
                "removed": [], "retyped": [], "reordered": false, "renamed": null, "identity": null,
                "columns": [
                    { "name": "id", "type": "int4", "type_oid": 23, "type_modifier": -1, "in_identity": true },
                    { "name": "size", "type": "int4", "type_oid": 23, "type_modifier": -1, "in_identity": false },
                    { "name": "name", "type": "varchar", "type_oid": 1043, "type_modifier": 24, "in_identity": false },
                    { "name": "note", "type": "text", "type_oid": 25, "type_modifier": -1, "in_identity": false },
                    { "name": "mood", "type": "public.mood", "type_oid": mood_oid, "type_modifier": -1, "in_identity": false },
                ],
            },
        })
    );
    let dropped = change(&events[4]);
    assert_eq!((names(&dropped["removed"]), names(&dropped["added"])), (vec!["size"], vec![]));
    let retyped = change(&events[6]);
    assert_eq!(
        retyped["retyped"],
        json!([
            { "name": "name", "from": { "type": "varchar", "type_oid": 1043, "type_modifier": 24 },
              "to": { "type": "varchar", "type_oid": 1043, "type_modifier": 34 } },
            { "name": "note", "from": { "type": "text", "type_oid": 25, "type_modifier": -1 },
              "to": { "type": "numeric", "type_oid": 1700, "type_modifier": 655_366 } },
        ])
    );
    let renamed = change(&events[8]);
    assert_eq!((names(&renamed["removed"]), names(&renamed["added"])), (vec!["name"], vec!["title"]));
    assert_eq!(
        change(&events[10])["identity"],
        json!({ "from": { "kind": "default", "columns": ["id"] }, "to": { "kind": "full", "columns": null } })
    );
}

#[tokio::test]
async fn a_renamed_table_is_the_same_one_and_a_recreated_one_is_met_for_the_first_time() {
    let _turn = beside_others().await;
    let scene = Scene::with(ITEMS, "", BOTH).await;
    scene
        .run(&[
            "insert into items values (1, 5, 'a')",
            "create schema depot; alter table items rename to things; alter table things set schema depot",
            "insert into depot.things values (2, 5, 'b')",
        ])
        .await;
    let events = scene.events(3).await;
    assert_eq!(types(&events), ["items.created", "depot.things.schema_changed", "depot.things.created"]);
    let told = change(&events[1]);
    assert_eq!(
        told["renamed"],
        json!({ "from": { "schema": "public", "table": "items" }, "to": { "schema": "depot", "table": "things" } })
    );
    assert_eq!((&told["added"], &told["removed"], &told["identity"]), (&json!([]), &json!([]), &Value::Null));

    let publish = "select count(*) from pg_publication_tables where tablename = 'things'";
    scene.run(&["drop table depot.things", "create table depot.things (id text primary key)"]).await;
    eventually("the new table is published", PATIENCE, async || scene.database.number(publish).await == 1)
        .await;
    scene.run(&["insert into depot.things values ('x')"]).await;
    assert_eq!(types(&scene.events(4).await[3..]), ["depot.things.created"]);
}

#[tokio::test]
async fn nobody_gets_it_who_has_not_asked_by_name_and_a_table_that_is_not_wanted_tells_nothing() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute(ITEMS).await;
    database.execute("create table others (id int primary key)").await;
    let run = Run::with("[tables.items]\nexclude = [\"secret\"]\nevent = \"item\"")
        .webhook("stars", &receiver.url("/stars"), "events = [\"*\", \"item.*\"]")
        .webhook("shapes", &receiver.url("/shapes"), "events = [\"item.schema_changed\"]")
        .webhook(
            "told",
            &receiver.url("/told"),
            "events = [\"item.schema_changed\"]\nfilter = \"table != 'items'\"",
        )
        .webhook("supa", &receiver.url("/supa"), "events = [\"item.schema_changed\"]\nformat = \"supabase\"")
        .webhook(
            "sequin",
            &receiver.url("/sequin"),
            "events = [\"item.schema_changed\"]\nformat = \"sequin\"",
        )
        .webhook(
            "slack",
            &receiver.url("/slack"),
            "events = [\"item.schema_changed\"]\ntemplate = \"slack\"",
        );
    let mut run = run;
    run.toml
        .push_str("\n[templates.slack]\nbody = '{\"new\": {{json data.schema_change.added.[0].name}}}'\n");
    let mut sidecar = Sidecar::start(&database, run).await;
    for statement in [
        "insert into items values (1, 5, 'a'); insert into others values (1)",
        "alter table items add secret text",
        "insert into items values (2, 5, 'b'); alter table others add size int; insert into others values (2)",
        "alter table items add note text",
        "insert into items values (3, 5, 'c')",
    ] {
        database.execute(statement).await;
    }
    let shapes = receiver.expect("/shapes", 1).await;
    assert_eq!(names(&change(&shapes[0])["added"]), ["note"]);
    assert!(!std::str::from_utf8(&shapes[0].body).expect("text").contains("secret"));
    let supa = receiver.expect("/supa", 1).await[0].json();
    assert_eq!((&supa["type"], names(&supa["schema_change"]["added"])), (&json!("SCHEMA"), vec!["note"]));
    let sequin = receiver.expect("/sequin", 1).await[0].json();
    assert_eq!(
        (&sequin["action"], names(&sequin["schema_change"]["added"])),
        (&json!("schema"), vec!["note"])
    );
    assert_eq!(receiver.expect("/slack", 1).await[0].json(), json!({ "new": "note" }));
    let stars = receiver.expect("/stars", 5).await;
    let rows: Vec<_> = stars.iter().map(|r| r.json()["data"]["operation"].clone()).collect();
    assert_eq!(rows, vec![json!("insert"); 5]);
    sidecar.stop().await;
    assert_eq!((receiver.requests("/shapes").len(), receiver.requests("/told").len()), (1, 0));
    // Only tables that somebody asks about are remembered.
    assert_eq!(database.number("select count(distinct relation) from walhook.shapes").await, 1);
}

#[tokio::test]
async fn a_webhook_that_comes_later_hears_of_what_changes_from_then_on() {
    let _turn = beside_others().await;
    let scene = Scene::with(ITEMS, "", "events = [\"items.*\"]").await;
    scene.run(&["insert into items values (1, 5, 'a')", "alter table items add early text"]).await;
    scene.run(&["insert into items values (2, 5, 'b')"]).await;
    scene.events(2).await;
    assert_eq!(scene.database.number("select count(*) from walhook.shapes").await, 0);

    let mut new = Run::default().webhook("all", &scene.receiver.url("/all"), "events = [\"items.*\"]");
    new = new.webhook("late", &scene.receiver.url("/late"), "events = [\"items.schema_changed\"]");
    scene.sidecar.write_file(&scene.database, &new.toml);
    scene.sidecar.signal("HUP").await;
    let wanted = async || {
        scene.database.execute("update items set size = size + 1 where id = 2").await;
        scene.database.number("select count(*) from walhook.shapes").await == 1
    };
    eventually("the first sight is remembered", PATIENCE, wanted).await;
    scene.run(&["alter table items add late text", "insert into items values (3, 5, 'c')"]).await;
    let late = scene.receiver.expect("/late", 1).await;
    assert_eq!(names(&change(&late[0])["added"]), ["late"]);
}

#[tokio::test]
async fn a_table_without_a_replica_identity_shows_its_shape_with_the_next_insert() {
    let _turn = beside_others().await;
    let scene = Scene::with("create table logs (line text)", "", "events = [\"logs.schema_changed\"]").await;
    scene
        .run(&[
            "insert into logs values ('a')",
            "alter table logs add at timestamptz",
            "update logs set at = now()",
        ])
        .await;
    scene.run(&["insert into logs values ('b', now())"]).await;
    let events = scene.events(1).await;
    assert_eq!(names(&change(&events[0])["added"]), ["at"]);
}

#[tokio::test]
async fn the_name_from_elsewhere_is_refused_with_the_right_one_and_a_sample_can_be_sent() {
    let _turn = beside_others().await;
    let mut scene = Scene::with(ITEMS, "", "events = [\"items.schema_changed\"]").await;
    let sent = run_once(
        &[
            "trigger",
            "all",
            "items.schema_changed",
            "--config",
            scene.sidecar.file().to_str().expect("a plain path"),
        ],
        &[],
    )
    .await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let sample = scene.receiver.expect("/all", 1).await[0].json();
    assert_eq!(sample["type"], "items.schema_changed");
    assert_eq!(
        (&sample["data"]["operation"], names(&sample["data"]["schema_change"]["added"])),
        (&json!("test"), vec!["name"])
    );

    let check =
        run_once(&["check", "--config", scene.sidecar.file().to_str().expect("a plain path")], &[]).await;
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    scene.sidecar.stop().await;

    let (url, slot) = (&scene.database.url, &scene.database.name);
    let (code, told) = refused(&format!(
        "[database]\nurl = \"{url}\"\nslot = \"{slot}\"\n[server]\nlisten = \"127.0.0.1:0\"\n[[webhooks]]\nname = \"a\"\n\
         url = \"http://127.0.0.1:1/\"\nevents = [\"schema.changed\"]\n",
    ))
    .await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("\"schema.changed\"") && told.contains("\"*.schema_changed\""), "{told}");
}
