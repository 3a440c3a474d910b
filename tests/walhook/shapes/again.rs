//! Reading the log again, with kills, lags, lost slots and forks in between: the same events with the same ids.

use std::time::Duration;

use super::{BOTH, ITEMS, Scene, change, names, once_each, types};
use crate::support::{PATIENCE, Request, beside_others, eventually};

#[tokio::test]
async fn what_only_makes_postgres_describe_a_table_again_is_no_new_shape() {
    let _turn = beside_others().await;
    let mut scene = Scene::with(ITEMS, "", BOTH).await;
    scene
        .run(&[
            "create type mood as enum ('glad'); alter table items add mood mood",
            "insert into items values (1, 5, 'a', 'glad')",
            "insert into items values (2, 5, 'b')",
        ])
        .await;
    scene.events(2).await;
    scene.sidecar.next_run(|run| run.expecting("the replication stream is down"));
    scene.sidecar.restart().await;
    scene
        .run(&[
            "insert into items values (6, 5, 'f')",
            "alter type mood add value 'sad'; alter table items alter name set default 'x'; \
             create index on items (name); analyze items",
            "insert into items values (7, 5, 'g')",
        ])
        .await;
    assert_eq!(types(&scene.events(4).await[2..]), ["items.created", "items.created"]);
    let cut = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1";
    scene.database.rows(cut, &[&scene.database.name]).await;
    scene.sidecar.logged("the replication stream is down").await;
    scene.run(&["insert into items values (8, 5, 'h')"]).await;
    assert_eq!(types(&scene.events(5).await[4..]), ["items.created"]);
    scene.sidecar.stop().await;
}

#[tokio::test]
async fn while_lagging_each_shape_is_told_at_its_own_place_and_in_its_order() {
    let _turn = beside_others().await;
    let keys = format!("{BOTH}\nordering = \"strict\"");
    let mut scene = Scene::with(ITEMS, "", &keys).await;
    scene.run(&["insert into items values (0, 5, 'z')"]).await;
    scene.events(1).await;
    scene.sidecar.kill9().await;
    scene
        .run(&[
            "insert into items values (1, 5, 'a')",
            "begin; insert into items values (2, 5, 'b'); alter table items add c1 int; \
             insert into items values (3, 5, 'c'), (4, 5, 'd'); savepoint s; alter table items add c2 int; \
             insert into items values (5, 5, 'e'); rollback to s; insert into items values (6, 5, 'f'); commit",
            "truncate items; alter table items drop c1, add c3 int",
            "alter table items add c4 int",
            "insert into items values (7, 5, 'g')",
        ])
        .await;
    scene.sidecar.spawn();
    scene.sidecar.ready().await;
    let events = scene.events(10).await;
    let told: Vec<_> =
        events.iter().filter(|e| e.header("x-webhook-event") == "items.schema_changed").collect();
    let added: Vec<Vec<String>> =
        told.iter().map(|e| names(&change(e)["added"]).into_iter().map(str::to_owned).collect()).collect();
    assert_eq!(added, [vec!["c1".to_owned()], vec!["c3".to_owned(), "c4".to_owned()]]);
    assert_eq!(names(&change(told[1])["removed"]), ["c1"]);
    // In strict order the event comes before the row that shows the shape.
    let requests = scene.receiver.requests("/all");
    let position = |id: &str| requests.iter().position(|r| r.id() == id).expect("it came");
    let arrival: Vec<usize> = events.iter().map(|event| position(event.id())).collect();
    assert!(arrival.is_sorted(), "{arrival:?}");
    assert_eq!(told[0].json()["metadata"]["sequence"], 2);
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i2_a_kill_around_a_new_shape_makes_the_same_event_again() {
    let _turn = beside_others().await;
    for point in [
        "before_shape_commit",
        "after_shape_commit",
        "before_send",
        "after_send",
        "before_ledger_commit",
        "after_ledger_commit",
    ] {
        let mut scene = Scene::with(ITEMS, "", BOTH).await;
        scene.run(&["insert into items values (1, 5, 'a')"]).await;
        scene.events(1).await;
        scene.sidecar.terminate().await;
        scene.sidecar.next_run(|run| run.fail_at(&format!("{point}=return")).expecting("\"level\":\"WARN\""));
        scene.sidecar.spawn();
        scene.sidecar.ready().await;
        scene.run(&["alter table items add note text", "insert into items values (2, 5, 'b')"]).await;
        assert!(!scene.sidecar.ended().await.success(), "{point} was never reached");
        let first: Vec<String> = scene.receiver.requests("/all").iter().map(|r| r.id().to_owned()).collect();
        scene.sidecar.next_run(|mut run| {
            run.environment.clear();
            run
        });
        scene.sidecar.spawn();
        scene.sidecar.ready().await;
        scene.run(&["insert into items values (3, 5, 'c')"]).await;
        let accepted = |requests: &[Request]| once_each(requests).len() >= 4;
        scene.receiver.wait("/all", point, Duration::from_secs(90), accepted).await;
        let events = scene.events(4).await;
        assert_eq!(
            types(&events),
            ["items.created", "items.schema_changed", "items.created", "items.created"],
            "{point}"
        );
        assert_eq!(names(&change(&events[1])["added"]), ["note"]);
        assert!(first.iter().all(|id| events.iter().any(|event| event.id() == id)), "{point}");
        scene.sidecar.terminate().await;
    }
}

#[tokio::test]
async fn of_what_is_confirmed_one_shape_is_kept_and_of_what_is_not_all() {
    let _turn = beside_others().await;
    let scene = Scene::with(ITEMS, "", "events = [\"items.schema_changed\"]").await;
    let kept = async || scene.database.number("select count(*) from walhook.shapes").await;
    let reshape = |n: i32| format!("alter table items add c{n} int; insert into items (id) values ({n});");
    let confirmed = async || {
        let now = scene.database.text("select pg_current_wal_lsn()::text").await;
        let query =
            "select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1";
        let reached = async || {
            let rows = scene.database.rows(query, &[&scene.database.name, &now]).await;
            rows[0].get::<_, bool>(0)
        };
        eventually("all is confirmed", PATIENCE, reached).await;
    };
    scene.run(&["insert into items values (0, 5, 'a')"]).await;
    eventually("the first sight", PATIENCE, async || kept().await == 1).await;
    for n in 1..=2 {
        confirmed().await;
        scene.run(&[&reshape(n)]).await;
        scene.events(usize::try_from(n).expect("a small number")).await;
        assert_eq!(kept().await, 2);
    }
    confirmed().await;
    let several: Vec<String> = (3..=7).map(reshape).collect();
    scene.run(&[&format!("begin; {} commit", several.concat())]).await;
    scene.events(7).await;
    assert_eq!(kept().await, 6);
    confirmed().await;
    scene.run(&[&reshape(8)]).await;
    scene.events(8).await;
    assert_eq!(kept().await, 2);
}

#[tokio::test]
async fn after_a_lost_slot_every_table_is_met_for_the_first_time() {
    let _turn = beside_others().await;
    let mut scene = Scene::with(ITEMS, "", BOTH).await;
    scene.run(&["insert into items values (1, 5, 'a')"]).await;
    scene.events(1).await;
    scene.sidecar.stop().await;
    let slot = &scene.database.name;
    scene
        .run(&[&format!("select pg_drop_replication_slot('{slot}')"), "alter table items add note text"])
        .await;
    scene.sidecar.next_run(|run| run.expecting("are lost; recorded in gaps"));
    scene.sidecar.next_run(|mut run| {
        run.environment.push(("WALHOOK_DATABASE__ON_SLOT_LOST".to_owned(), "recreate".to_owned()));
        run
    });
    scene.sidecar.spawn();
    scene.sidecar.ready().await;
    scene.run(&["insert into items values (2, 5, 'b')", "alter table items drop note"]).await;
    scene.run(&["insert into items values (3, 5, 'c')"]).await;
    let events = scene.events(4).await;
    assert_eq!(types(&events), ["items.created", "items.created", "items.schema_changed", "items.created"]);
    assert_eq!(names(&change(&events[2])["removed"]), ["note"]);
}

#[tokio::test]
async fn i2_a_shape_that_only_a_lost_branch_of_the_log_has_shown_is_forgotten() {
    let _turn = beside_others().await;
    for (fork, expected) in [("'FFFFFF/0'", 1), ("'0/1'", 0)] {
        let mut scene = Scene::with(ITEMS, "", BOTH).await;
        scene.run(&["insert into items values (1, 5, 'a')"]).await;
        scene.events(1).await;
        scene.sidecar.stop().await;
        // As the takeover after a promotion records it: the log from the fork on is another generation's.
        scene
            .run(&[
                &format!(
                    "insert into walhook.forks (slot, generation, from_lsn, timeline) select slot, 2, {fork}, 1 from \
                     walhook.sources; update walhook.sources set generation = 2"
                ),
                "alter table items add note text",
            ])
            .await;
        scene.sidecar.restart().await;
        scene.run(&["insert into items values (2, 5, 'b')"]).await;
        let events = scene.events(2 + expected).await;
        let told = types(&events).iter().filter(|event| **event == "items.schema_changed").count();
        assert_eq!(told, expected, "a fork at {fork}");
    }
}
