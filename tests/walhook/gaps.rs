//! Log that is lost is a row in `walhook.gaps` with its true bounds, shown wherever somebody looks; and it is one row, whoever
//! makes the new slot and however that is interrupted.

use std::net::Ipv4Addr;

use walhook::cluster::{Cluster, Options};

use crate::support::{
    Database, Network, ORDERS, PATIENCE, Proxy, Receiver, Run, Sidecar, beside_others, connect, eventually,
    run_once, shared,
};

const ACTIVE: &str = "select count(*) from pg_replication_slots \
                      where slot_name = current_database() and active and confirmed_flush_lsn is not null";

fn recreating(receiver: &Receiver) -> Run {
    let mut run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("lost")
        .expecting("the replication stream is down");
    run.environment.push(("WALHOOK_DATABASE__ON_SLOT_LOST".to_owned(), "recreate".to_owned()));
    run
}

async fn insert(database: &Database, id: i64) {
    database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
}

async fn now(database: &Database) -> String {
    database.text("select pg_current_wal_lsn()::text").await
}

/// The first row has arrived and is confirmed. Returns a position that the slot has reached.
async fn begun(database: &Database, receiver: &Receiver) -> String {
    insert(database, 1).await;
    let end = now(database).await;
    receiver.expect("/crm", 1).await;
    let reached = "select count(*) from pg_replication_slots where slot_name = current_database() \
                   and confirmed_flush_lsn >= $1::text::pg_lsn";
    eventually("the first row to be confirmed", PATIENCE, async || {
        database.rows(reached, &[&end]).await[0].get::<_, i64>(0) == 1
    })
    .await;
    end
}

/// Waits until a new slot is streamed from. While it is being made it is active too, so the gap's end tells.
async fn renewed(database: &Database) {
    eventually("a new slot", PATIENCE, async || {
        let closed = "select count(*) from walhook.gaps where not is_open";
        database.number(closed).await == 1 && database.number(ACTIVE).await == 1
    })
    .await;
}

/// Drops the slot, and whoever reads from it loses it.
async fn drop_slot(database: &Database) {
    let end =
        "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active";
    let gone = "do $$ begin perform pg_drop_replication_slot(slot_name) from pg_replication_slots \
                where slot_name = current_database(); exception when object_in_use then null; end $$";
    let left = "select count(*) from pg_replication_slots where slot_name = current_database()";
    eventually("the slot to be dropped", PATIENCE, async || {
        database.rows(end, &[&database.name]).await;
        database.execute(gone).await;
        database.number(left).await == 0
    })
    .await;
}

/// There is one gap, for this reason: from what was delivered (and not what was lost after it) to the last of what was lost;
/// and it is told everywhere.
async fn judge(database: &Database, sidecar: &Sidecar, reason: &str, bounds: [&str; 3]) {
    let [delivered, lost_from, lost_to] = bounds;
    assert_eq!(database.number("select count(*) from walhook.gaps").await, 1);
    let sql = "select coalesce(from_lsn::text, 'nowhere'), to_lsn::text,
            from_lsn between $1::text::pg_lsn and $2::text::pg_lsn, to_lsn >= $3::text::pg_lsn, reason
        from walhook.gaps";
    let rows = database.rows(sql, &[&delivered, &lost_from, &lost_to]).await;
    let (from, to): (String, String) = (rows[0].get(0), rows[0].get(1));
    let told = format!("{from} to {to}; delivered {delivered}, lost {lost_from} to {lost_to}");
    assert_eq!(rows[0].get::<_, Option<bool>>(2), Some(true), "from: {told}");
    assert!(rows[0].get::<_, bool>(3), "to: {told}");
    assert_eq!(rows[0].get::<_, String>(4), reason);
    let generation = "select generation::int8 from walhook.sources where slot = current_database()";
    assert_eq!(database.number(generation).await, 2);

    let sentence = format!("changes from {from} to {to} were lost ({reason})");
    eventually("the gap on its pages", PATIENCE, async || {
        sidecar.page("/readyz").await.contains(&format!("gap: {sentence}\n"))
            && sidecar.page("/metrics").await.contains("\nwalhook_gaps 1\n")
    })
    .await;
    let file = sidecar.file();
    let config = ["--config", file.to_str().expect("a plain path")];
    let text = run_once(&[&["status"], &config[..]].concat(), &[]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains(&sentence), "{text}");
    let json = run_once(&[&["status", "--json"], &config[..]].concat(), &[]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let gap = &json["gaps"][0];
    assert_eq!(
        [gap["from_lsn"].as_str(), gap["to_lsn"].as_str(), gap["reason"].as_str()],
        [Some(&*from), Some(&*to), Some(reason)]
    );
}

async fn arrived(receiver: &Receiver, expect: &[i64]) {
    let requests = receiver.expect("/crm", expect.len()).await;
    let ids: Vec<i64> = requests.iter().filter_map(|request| request.column("id").as_i64()).collect();
    assert_eq!(ids, expect);
}

#[tokio::test]
async fn a_dropped_slots_gap_ends_where_the_new_slot_begins_however_long_making_it_takes() {
    let _turn = beside_others().await;
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(ORDERS).await;
    let mut sidecar = Sidecar::start(&database, recreating(&receiver)).await;
    let delivered = begun(&database, &receiver).await;
    sidecar.stop().await;
    let lost_from = now(&database).await;
    insert(&database, 2).await;
    drop_slot(&database).await;

    // A new slot begins only when this transaction has ended.
    let writer = connect(&database.url).await.expect("a connection");
    writer.batch_execute("begin; insert into orders values (3, 'paid', 1, null)").await.expect("a row");
    sidecar.spawn();
    let making = "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and state = 'active' \
                  and query like '%pg_create_logical_replication_slot%'";
    eventually("the slot to be in the making", PATIENCE, async || database.number(making).await == 1).await;
    insert(&database, 4).await;
    let lost_to = now(&database).await;
    writer.batch_execute("commit").await.expect("a commit");
    sidecar.ready().await;
    insert(&database, 5).await;
    arrived(&receiver, &[1, 5]).await;
    judge(&database, &sidecar, "the slot is gone", [&delivered, &lost_from, &lost_to]).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_slot_that_is_invalidated_while_it_streams_is_a_gap_with_its_bounds() {
    let _turn = beside_others().await;
    let cluster = crate::support::cluster_of_little_log();
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(ORDERS).await;
    let run = recreating(&receiver).expecting("the server is about to remove log");
    let mut sidecar = Sidecar::start(&database, run).await;
    let delivered = begun(&database, &receiver).await;
    // It streams, and hears nothing any more.
    sidecar.signal("STOP").await;
    assert_eq!(database.number(ACTIVE).await, 1);
    let lost_from = now(&database).await;
    insert(&database, 2).await;
    let lost = "select count(*) from pg_replication_slots where wal_status = 'lost'";
    let more = "create table if not exists filler (x text); \
                insert into filler select repeat('x', 100) from generate_series(1, 50000)";
    eventually("the slot to be lost", PATIENCE * 2, async || {
        database.execute(more).await;
        database.execute("select pg_switch_wal()").await;
        database.execute("checkpoint").await;
        database.number(lost).await == 1
    })
    .await;
    let lost_to = now(&database).await;
    sidecar.signal("CONT").await;
    eventually("the lost slot to go", PATIENCE, async || database.number(lost).await == 0).await;
    renewed(&database).await;
    insert(&database, 3).await;
    let requests =
        receiver.wait("/crm", "the new row", PATIENCE, |rs| rs.iter().any(|r| r.column("id") == 3)).await;
    // What the server had sent before it was lost may have come; what it had not is within the bounds.
    assert!(requests.len() <= 3);
    let lost_from = if requests.len() == 3 { &lost_to } else { &lost_from };
    judge(&database, &sidecar, "the slot was invalidated", [&delivered, lost_from, &lost_to]).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_dropped_publications_gap_has_its_bounds() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = recreating(&receiver).expecting("publication");
    let mut sidecar = Sidecar::start(&database, run).await;
    let delivered = begun(&database, &receiver).await;
    // From Postgres 18 on that it is gone is a warning, which must come whatever the database's own setting is.
    database.execute(&format!("alter database {} set client_min_messages = 'error'", database.name)).await;
    sidecar.stop().await;
    sidecar.spawn();
    sidecar.ready().await;
    let lost_from = now(&database).await;
    database.execute("drop publication walhook").await;
    insert(&database, 2).await;
    let lost_to = now(&database).await;
    sidecar.logged("going on with a new one").await;
    renewed(&database).await;
    insert(&database, 3).await;
    arrived(&receiver, &[1, 3]).await;
    judge(&database, &sidecar, "the publication was dropped", [&delivered, &lost_from, &lost_to]).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_new_slot_is_made_when_the_ledger_is_back_and_a_stop_does_not_wait_for_it() {
    let _turn = beside_others().await;
    let (database, ledger) = (Database::with_orders().await, Database::new().await);
    let receiver = Receiver::start().await;
    let there = (Ipv4Addr::LOCALHOST, shared().port()).into();
    let proxy = Proxy::start(there).await;
    let mut run = recreating(&receiver).expecting("\"level\":\"WARN\"");
    run.environment.push(("WALHOOK_LEDGER__URL".to_owned(), proxy.in_front_of(&ledger.url)));
    let mut sidecar = Sidecar::start(&database, run).await;
    insert(&database, 1).await;
    arrived(&receiver, &[1]).await;
    let waits = "cannot begin anew yet";
    for times in 1..=2 {
        // Nobody listens there.
        proxy.lead_to((Ipv4Addr::LOCALHOST, 1).into());
        proxy.turn(Network::Cut);
        drop_slot(&database).await;
        eventually("it to wait", PATIENCE, async || {
            assert!(!sidecar.has_ended(), "{}", sidecar.log_text());
            sidecar.lines().iter().filter(|line| line.to_string().contains(waits)).count() == times
        })
        .await;
        if times == 2 {
            break;
        }
        proxy.lead_to(there);
        eventually("a new slot", PATIENCE, async || database.number(ACTIVE).await == 1).await;
        sidecar.ready().await;
        insert(&database, 2).await;
        arrived(&receiver, &[1, 2]).await;
        assert_eq!(ledger.number("select count(*) from walhook.gaps where not is_open").await, 1);
    }
    sidecar.stop().await;
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn a_crash_on_the_way_to_a_new_slot_leaves_one_gap_that_is_right() {
    let _turn = beside_others().await;
    for (point, drops) in
        [("after_gap_begins", "slot"), ("after_slot_is_made", "slot"), ("after_gap_begins", "publication")]
    {
        let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
        let mut sidecar = Sidecar::start(&database, recreating(&receiver).expecting("publication")).await;
        let delivered = begun(&database, &receiver).await;
        sidecar.terminate().await;
        let lost_from = now(&database).await;
        let reason = if drops == "slot" {
            drop_slot(&database).await;
            "the slot is gone"
        } else {
            database.execute("drop publication walhook").await;
            "the publication was dropped"
        };
        insert(&database, 2).await;
        sidecar.next_run(|run| run.fail_at(&format!("{point}=return")));
        sidecar.spawn();
        assert!(!sidecar.ended().await.success(), "{point} was never reached");
        sidecar.next_run(|mut run| {
            run.environment.retain(|(name, _)| name != "FAILPOINTS");
            run
        });
        let lost_to = if point == "after_slot_is_made" { lost_from.clone() } else { now(&database).await };
        sidecar.spawn();
        sidecar.ready().await;
        renewed(&database).await;
        insert(&database, 3).await;
        arrived(&receiver, &[1, 3]).await;
        judge(&database, &sidecar, reason, [&delivered, &lost_from, &lost_to]).await;
        sidecar.stop().await;
    }
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn two_instances_that_lose_their_slot_make_one_new_slot_and_one_gap() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let slow = recreating(&receiver).expecting("standby").fail_at("before_slot_is_made=sleep(2500)");
    let mut both = [Sidecar::prepare(&database, slow.clone()), Sidecar::prepare(&database, slow)];
    // The first slot of all is made once, too.
    both.iter_mut().for_each(Sidecar::spawn);
    let one_each = async |both: &mut [Sidecar; 2]| {
        let mut pages = Vec::new();
        for sidecar in both.iter_mut() {
            assert!(!sidecar.has_ended(), "{}", sidecar.log_text());
            let Some(address) = sidecar.address() else { return false };
            let Some((_, page)) = crate::support::get(&address, "/readyz").await else { return false };
            pages.push(page.split_whitespace().next().unwrap_or_default().to_owned());
        }
        pages.sort();
        pages == ["standby", "streaming"]
    };
    eventually("one to stream and one to stand by", PATIENCE, async || one_each(&mut both).await).await;
    let delivered = begun(&database, &receiver).await;
    // That much is noted, whether or not the one that loses the slot has the time to say so.
    let noted = "select count(*) from walhook.sources where confirmed_lsn >= $1::text::pg_lsn";
    eventually("the position to be noted", PATIENCE, async || {
        database.rows(noted, &[&delivered]).await[0].get::<_, i64>(0) == 1
    })
    .await;
    let lost_from = now(&database).await;
    drop_slot(&database).await;
    insert(&database, 2).await;
    let lost_to = now(&database).await;
    for sidecar in &both {
        sidecar.logged("going on with a new one").await;
    }
    eventually("a new slot", PATIENCE, async || database.number(ACTIVE).await == 1).await;
    eventually("one to stream and one to stand by", PATIENCE, async || one_each(&mut both).await).await;
    insert(&database, 3).await;
    arrived(&receiver, &[1, 3]).await;
    let mut active = 0;
    for sidecar in &both {
        if sidecar.page("/readyz").await.starts_with("streaming") {
            active += 1;
            judge(&database, sidecar, "the slot is gone", [&delivered, &lost_from, &lost_to]).await;
        }
    }
    assert_eq!(active, 1);
    for sidecar in &mut both {
        sidecar.stop().await;
    }
}

/// One instance loses its slot and makes a new one; another, which has not heard of it, reads that one while the first is
/// still, or was to the last, about to end the gap (`last`: what it does there).
async fn quicker_than_the_renewal(last: &str) {
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let slow =
        recreating(&receiver).expecting("standby").fail_at(&format!("after_slot_is_made=1*off->{last}"));
    let mut renewing = Sidecar::start(&database, slow).await;
    let mut quicker = Sidecar::prepare(&database, recreating(&receiver).expecting("standby"));
    quicker.spawn();
    quicker.logged("standby").await;
    begun(&database, &receiver).await;
    quicker.signal("STOP").await;
    drop_slot(&database).await;
    // A slot that is being made is there and in use, and begins later.
    let there = "select count(*) from pg_replication_slots \
                 where slot_name = current_database() and confirmed_flush_lsn is not null";
    eventually("a new slot", PATIENCE, async || database.number(there).await == 1).await;
    if last == "return" {
        assert!(!renewing.ended().await.success(), "it was to end there");
    }
    assert_eq!(database.number("select count(*) from walhook.gaps where is_open").await, 1);
    quicker.signal("CONT").await;
    eventually("it to be read", PATIENCE, async || database.number(ACTIVE).await == 1).await;
    insert(&database, 2).await;
    let id = receiver.expect("/crm", 2).await[1].id().to_owned();
    quicker.ready().await;
    if last == "return" {
        renewing.next_run(|mut run| {
            run.environment.retain(|(name, _)| name != "FAILPOINTS");
            run
        });
        renewing.spawn();
    }
    eventually("the other to stand by", PATIENCE, async || {
        let Some(address) = renewing.address() else { return false };
        let page = crate::support::get(&address, "/readyz").await;
        page.is_some_and(|(_, page)| page.starts_with("standby"))
    })
    .await;
    // The ids are of the generation that the ledger is in: whoever takes over makes the same.
    assert!(id.starts_with("dlv_0002"), "{id}");
    assert_eq!(database.number("select generation::int8 from walhook.sources").await, 2);
    assert_eq!(database.number("select count(*) from walhook.gaps where not is_open").await, 1);
    assert_eq!(database.number("select count(*) from walhook.gaps").await, 1);
    for sidecar in [&mut renewing, &mut quicker] {
        sidecar.stop().await;
    }
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i2_who_reads_a_new_slot_before_its_gap_has_ended_makes_ids_of_the_new_generation() {
    let _turn = beside_others().await;
    quicker_than_the_renewal("sleep(6000)").await;
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i2_who_reads_a_new_slot_whose_maker_was_killed_ends_its_gap_and_makes_ids_of_the_new_generation() {
    let _turn = beside_others().await;
    quicker_than_the_renewal("return").await;
}
