//! Which rows come to whom.

use serde_json::{Value, json};

use super::{OPEN, PUBLIC, all_delivered, database, hook, live, started, tenant, walhook};
use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually,
};

/// What came to a path for rows below a million, in commit order: the type, and the data.
fn came(receiver: &Receiver, path: &str) -> Vec<(String, Value)> {
    let mut all: Vec<(String, String, Value)> = receiver
        .requests(path)
        .iter()
        .map(|request| {
            let body = request.json();
            let text = |key: &str| body[key].as_str().expect("a text").to_owned();
            (text("id"), text("type"), body["data"].clone())
        })
        .filter(|(_, _, data)| {
            let id = data["record"]["id"].as_i64().or(data["old"]["id"].as_i64());
            id.is_none_or(|id| id < 1_000_000)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    all.into_iter().map(|(_, event_type, data)| (event_type, data)).collect()
}

fn types(came: &[(String, Value)]) -> Vec<&str> {
    came.iter().map(|(event_type, _)| event_type.as_str()).collect()
}

/// Nothing that ever came to a path has a word of somebody else's row.
fn clean(receiver: &Receiver, path: &str, others: &[&str]) {
    for request in receiver.requests(path) {
        // Ids may spell anything.
        let body = request.json()["data"].to_string();
        for other in others {
            assert!(!body.contains(other), "{path} was told of {other}: {body}");
        }
    }
}

#[tokio::test]
async fn a_tenant_gets_events_of_its_own_rows_alone_whatever_it_asks_for() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    hook(&acme, "crm", &receiver.url("/acme")).await;
    hook(&globex, "crm", &receiver.url("/globex")).await;
    for (path, whose) in [("/acme", "acme"), ("/globex", "globex")] {
        live(&database, &receiver, path, whose).await;
    }
    for statement in [
        "insert into orders values (1, 'acme', 'a1'), (2, 'globex', 'g2'), (3, null, 'n3')",
        "update orders set note = 'a1b' where id = 1",
        "update orders set workspace = 'globex', note = 'g1' where id = 1",
        "update orders set workspace = 'acme', note = 'a2' where id = 2",
        "update orders set workspace = 'acme', note = 'a3' where id = 3",
        "update orders set workspace = null, note = 'n2' where id = 2",
        "delete from orders where id in (1, 2)",
        "insert into hidden values (1, 'acme', 'h1')",
        "select pg_logical_emit_message(true, 'walhook:orders.created', '{\"workspace\": \"acme\"}')",
        "alter table orders add extra text",
        "insert into orders values (4, 'acme', 'a4', 'x')",
        "truncate orders",
        "insert into orders values (5, 'globex', 'g5', 'x')",
    ] {
        database.execute(statement).await;
    }
    let last = |path: &'static str, id: i64| {
        let receiver = &receiver;
        async move {
            let seen = move |came: &[Request]| came.iter().any(|request| request.column("id") == json!(id));
            receiver.wait(path, "the last row", PATIENCE, seen).await;
        }
    };
    last("/acme", 4).await;
    last("/globex", 5).await;
    all_delivered(&database).await;

    let acmes = came(&receiver, "/acme");
    let (created, updated, deleted) = ("orders.created", "orders.updated", "orders.deleted");
    assert_eq!(types(&acmes), [created, updated, deleted, created, created, deleted, created], "{acmes:?}");
    assert_eq!(types(&came(&receiver, "/globex")), [created, created, deleted, deleted, created]);
    clean(&receiver, "/acme", &["globex", "g1", "g2", "g5", "n2", "n3", "h1"]);
    clean(&receiver, "/globex", &["acme", "a1", "a2", "a3", "a4", "n2", "n3", "h1"]);
    let (gone, come) = (&acmes[2].1, &acmes[3].1);
    assert_eq!((&gone["operation"], &gone["record"]), (&json!("delete"), &Value::Null));
    assert_eq!(gone["old"], json!({ "id": 1, "workspace": "acme", "note": "a1b" }));
    assert_eq!(
        (&come["operation"], &come["old"], &come["changed"]),
        (&json!("insert"), &Value::Null, &Value::Null)
    );
    assert_eq!(come["record"], json!({ "id": 2, "workspace": "acme", "note": "a2" }));
    let ours = came(&receiver, &format!("/{}", super::OURS));
    for all in ["orders.updated", "orders.truncated", "hidden.created", "orders.schema_changed"] {
        assert!(types(&ours).contains(&all), "the operator is told of everything: {all}");
    }
}

#[tokio::test]
async fn i2_what_an_owner_change_makes_has_the_same_ids_after_a_kill() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (mut sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    hook(&acme, "crm", &receiver.url("/acme")).await;
    hook(&globex, "crm", &receiver.url("/globex")).await;
    live(&database, &receiver, "/acme", "acme").await;
    live(&database, &receiver, "/globex", "globex").await;
    database.execute("insert into orders values (1, 'acme', 'a')").await;
    all_delivered(&database).await;
    for path in ["/acme", "/globex"] {
        receiver.script(path, |request| if request.nth == 1 { Answer::Hang } else { Answer::Status(200) });
    }
    database.execute("update orders set workspace = 'globex' where id = 1").await;
    let leaves = |request: &&Request| {
        request.column("id") == 1 && request.header("x-webhook-event") != "orders.created"
    };
    let arrives = |request: &&Request| {
        request.column("id") == 1 && request.header("x-webhook-event") == "orders.created"
    };
    receiver.wait("/acme", "it goes", PATIENCE, move |all| all.iter().any(|r| leaves(&r))).await;
    receiver.wait("/globex", "it comes", PATIENCE, move |all| all.iter().any(|r| arrives(&r))).await;
    sidecar.kill9().await;
    sidecar.restart().await;
    receiver.wait("/acme", "it again", PATIENCE, move |all| all.iter().filter(leaves).count() > 1).await;
    receiver.wait("/globex", "it again", PATIENCE, move |all| all.iter().filter(arrives).count() > 1).await;
    all_delivered(&database).await;
    let gone: Vec<_> = receiver.requests("/acme").into_iter().filter(|r| leaves(&r)).collect();
    let came: Vec<_> = receiver.requests("/globex").into_iter().filter(|r| arrives(&r)).collect();
    for again in [&gone, &came] {
        assert!(again.iter().all(|r| r.id() == again[0].id() && r.body == again[0].body), "{again:?}");
    }
    // Three events of one change: the operator's, and one for each owner.
    let ids =
        "select count(distinct event_id) from walhook.deliveries where row_key = '1' and webhook <> 'ours'
               or row_key = '1' and event_type = 'orders.updated'";
    assert_eq!(database.number(ids).await, 4, "created before, updated, deleted, created");
}

#[tokio::test]
async fn without_the_old_row_a_delete_goes_to_no_tenant_and_an_update_shows_no_old() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    database.execute("alter table orders replica identity default").await;
    let (sidecar, operator) = started(&database, &receiver, "").await;
    let acme = tenant(&operator, "acme").await;
    hook(&acme, "crm", &receiver.url("/acme")).await;
    live(&database, &receiver, "/acme", "acme").await;
    database.execute("insert into orders values (1, 'globex', 'g1'), (2, 'acme', 'a2')").await;
    database.execute("update orders set workspace = 'acme', note = 'a1', id = 11 where id = 1").await;
    database
        .execute("delete from orders where id in (2, 11); insert into orders values (3, 'acme', 'a3')")
        .await;
    let seen = |came: &[Request]| came.iter().any(|request| request.column("id") == 3);
    receiver.wait("/acme", "the last row", PATIENCE, seen).await;
    all_delivered(&database).await;
    let acmes = came(&receiver, "/acme");
    assert_eq!(types(&acmes), ["orders.created", "orders.updated", "orders.created"]);
    assert_eq!(acmes[1].1["old"], Value::Null);
    clean(&receiver, "/acme", &["globex", "g1"]);
    let (_, said) = walhook(&sidecar, &["check"]).await;
    assert!(
        said.contains("tables.orders.tenant: of the old row") && said.contains("REPLICA IDENTITY FULL"),
        "{said}"
    );
}

#[tokio::test]
async fn an_owner_change_between_partitions_is_seen_by_each_owner_from_its_side() {
    let _turn = beside_others().await;
    for fold in ["", "fold_moves = [\"id\"]\n"] {
        let (database, receiver) = (Database::new().await, Receiver::start().await);
        database
            .execute(
                "create table orders (id int8, workspace text, note text, primary key (id, workspace))
                     partition by list (workspace);
                 create table orders_a partition of orders for values in ('acme');
                 create table orders_rest partition of orders default;
                 create table hidden (id int8 primary key)",
            )
            .await;
        let run = Run::with(format!("{OPEN}{PUBLIC}{fold}"))
            .webhook("acme~crm", &receiver.url("/acme"), "tenant = \"acme\"\nevents = [\"orders.*\"]")
            .webhook("globex~crm", &receiver.url("/globex"), "tenant = \"globex\"\nevents = [\"orders.*\"]")
            .webhook("ours", &receiver.url("/ours"), "events = [\"orders.*\"]");
        let _sidecar = Sidecar::start(&database, run).await;
        database.execute("insert into orders values (1, 'acme', 'a1')").await;
        database.execute("update orders set workspace = 'globex', note = 'g1' where id = 1").await;
        let seen = |came: &[Request]| came.iter().any(|request| request.column("note") == "g1");
        receiver.wait("/globex", "the row", PATIENCE, seen).await;
        receiver.expect("/acme", 2).await;
        all_delivered(&database).await;
        assert_eq!(types(&came(&receiver, "/acme")), ["orders.created", "orders.deleted"], "{fold}");
        assert_eq!(types(&came(&receiver, "/globex")), ["orders.created"], "{fold}");
        clean(&receiver, "/acme", &["globex", "g1"]);
        clean(&receiver, "/globex", &["acme", "a1"]);
        let ours = came(&receiver, "/ours");
        assert_eq!(types(&ours).contains(&"orders.updated"), !fold.is_empty(), "{ours:?}");
    }
}

#[tokio::test]
async fn a_backfill_a_test_and_a_row_given_by_hand_are_of_the_tenants_rows_alone() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    database
        .execute(
            "insert into orders select i, case i % 3 when 0 then 'acme' when 1 then 'globex' end, 'note of ' || (i % 3)
             from generate_series(1, 300) i; insert into hidden values (1, 'acme', 'h1')",
        )
        .await;
    let url = receiver.url("/acme");
    let run =
        Run::with(format!("{OPEN}{PUBLIC}")).webhook("acme~crm", &url, "tenant = \"acme\"\nevents = [\"*\"]");
    let sidecar = Sidecar::start(&database, run).await;
    for condition in [None, Some("true"), Some("workspace = 'globex' or id > 0")] {
        let mut arguments = vec!["backfill", "acme~crm", "--table", "orders"];
        arguments.extend(condition.into_iter().flat_map(|condition| ["--where", condition]));
        let (code, said) = walhook(&sidecar, &arguments).await;
        assert!(code == Some(0) && said.contains("is done, 100 rows, 100 deliveries"), "{said}");
    }
    all_delivered(&database).await;
    assert_eq!(receiver.expect("/acme", 300).await.len(), 300);
    clean(&receiver, "/acme", &["globex", "note of 1", "note of 2"]);
    for (arguments, part) in [
        (&["backfill", "acme~crm", "--table", "hidden"][..], "hidden.created"),
        (&["trigger", "acme~crm", "orders.created", "--row", "orders:1"], "not of tenant acme"),
        (&["trigger", "acme~crm", "orders.created", "--row", "orders:2"], "not of tenant acme"),
        (&["trigger", "acme~crm", "hidden.created", "--row", "hidden:1"], "not of tenant acme"),
        (&["trigger", "acme~crm", "hidden.created"], "there is no event"),
        (&["trigger", "acme~crm", "orders.truncated"], "there is no event"),
        (&["trigger", "acme~crm", "walhook.webhook.failing"], "there is no event"),
        (&["render", "acme~crm", "--row", "orders:1"], "not of tenant acme"),
    ] {
        let (code, said) = walhook(&sidecar, arguments).await;
        assert!(code == Some(1) && said.contains(part), "{arguments:?}: {said}");
        assert!(!said.contains("note of 1") && !said.contains("h1"), "{said}");
    }
    for own in [
        &["trigger", "acme~crm", "orders.created", "--row", "orders:3"][..],
        &["trigger", "acme~crm", "orders.deleted"],
        &["render", "acme~crm", "--row", "orders:3"],
    ] {
        let (code, said) = walhook(&sidecar, own).await;
        assert_eq!(code, Some(0), "{said}");
    }
    eventually("both tests", PATIENCE, async || receiver.requests("/acme").len() == 302).await;
    clean(&receiver, "/acme", &["globex", "note of 1", "note of 2", "h1"]);
}
