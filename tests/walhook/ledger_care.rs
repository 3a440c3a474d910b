//! The ledger over time: old attempts, replays, retention, rows that cannot be, and plans that stay quick.

use std::time::Duration;

use tokio::time::Instant;
use walhook::domain::{CommitLsn, StoreBodies};
use walhook::ledger::claim::open_webhooks;
use walhook::ledger::prune::Retention;
use walhook::ledger::record::State;
use walhook::ledger::replay::{Cause, Ended, Reached, Which, count, replay};
use walhook::ledger::states::{Expiry, Overdue};
use walhook::ledger::{recorded, retries, states, trigger};

use crate::ledger::{Desk, attempt, soon};
use crate::support::{PATIENCE, beside_others, connect, eventually};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_delivery_whose_last_attempt_is_older_than_all_partitions_can_end() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, soon(), Some(attempt(500)));
    desk.hear(1).await;
    desk.database.execute("update deliveries_open set last_attempt_at = now() - interval '90 days'").await;
    let claimed = desk.claim(1).await.remove(0);
    desk.finish(claimed, State::Delivered, Some(attempt(200)));
    desk.hear(1).await;
    assert_eq!(desk.all().await, ["delivered 2"]);
    desk.check().await;
}

#[tokio::test]
async fn i4_a_replay_keeps_id_and_bytes_begins_the_schedule_anew_and_keeps_the_lane_in_order() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    for number in 1..=3 {
        desk.insert(number, 1, State::Failed("no".to_owned()), Some(attempt(500)));
    }
    desk.insert(4, 1, State::Pending, None);
    desk.hear(4).await;
    let mut session = desk.ledger.session("walhook replay").await.expect("a session");
    let which = Which { webhook: Some("crm".into()), ended: vec![Ended::Failed], ..Which::default() };
    let census = count(&session.client, &which).await.expect("a census");
    let sent = replay(&mut session.client, &which, &census, &mut Reached::default(), 1000).await;
    assert_eq!((census.count, sent.expect("a replay")), (3, 3));
    assert_eq!(desk.all().await, ["retrying 1 due", "retrying 1", "retrying 1", "pending 0"]);
    desk.check().await;
    for number in 1..=4 {
        let claimed = desk.claim(9).await;
        assert_eq!(claimed.len(), 1, "more than one of a lane");
        let expected = desk.delivery(number, 1);
        assert_eq!((&claimed[0].delivery.id, &claimed[0].delivery.body), (&expected.id, &expected.body));
        assert_eq!((claimed[0].attempts, claimed[0].on_schedule), (u32::from(number < 4), 0));
        let claimed = claimed.into_iter().next().expect("one");
        desk.finish(claimed, State::Delivered, Some(attempt(200)));
        desk.hear(1).await;
    }
    assert_eq!(desk.all().await, ["delivered 2", "delivered 2", "delivered 2", "delivered 1"]);
}

#[tokio::test]
async fn a_replay_takes_what_was_asked_for_in_steps_and_once_when_two_people_press_at_once() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let failed = || State::Failed("no".to_owned());
    for (number, status) in [(1, 500), (2, 503), (3, 404), (4, 500), (5, 502)] {
        desk.insert(number, i64::try_from(number).expect("a lane"), failed(), Some(attempt(status)));
    }
    desk.insert(6, 6, State::Delivered, Some(attempt(200)));
    desk.hear(6).await;
    let mut session = desk.ledger.session("walhook replay").await.expect("a session");
    let crm = Which { webhook: Some("crm".into()), ended: vec![Ended::Failed], ..Which::default() };
    let mut counts = Vec::new();
    for which in [
        Which { cause: Some(Cause::Answered(500, 599)), ..crm.clone() },
        Which { cause: Some(Cause::TimedOut), ..crm.clone() },
        Which { event: Some("t.*".into()), ..crm.clone() },
        Which { event: Some("t_created".into()), ..crm.clone() },
        Which { ended: vec![Ended::Failed, Ended::Delivered], ..crm.clone() },
        Which { until: Some(desk.delivery(1, 1).committed_at - DAY), ..crm.clone() },
        Which { webhook: Some("other".into()), ..crm.clone() },
    ] {
        counts.push(count(&session.client, &which).await.expect("a census").count);
    }
    assert_eq!(counts, [4, 0, 5, 0, 6, 0, 0]);

    let which = Which { cause: Some(Cause::Answered(500, 599)), ..crm.clone() };
    let census = count(&session.client, &which).await.expect("a census");
    let mut other = desk.ledger.session("walhook replay").await.expect("a session");
    let (mut here, mut there) = (Reached::default(), Reached::default());
    let mut moved = Vec::new();
    for _ in 0..3 {
        let (one, two) = tokio::join!(
            replay(&mut session.client, &which, &census, &mut here, 1),
            replay(&mut other.client, &which, &census, &mut there, 1),
        );
        moved.push(one.expect("a replay") + two.expect("a replay"));
    }
    assert_eq!(moved.iter().sum::<u64>(), 4, "{moved:?}");
    assert_eq!(
        desk.all().await,
        ["retrying 1 due", "retrying 1 due", "failed 1", "retrying 1 due", "retrying 1 due", "delivered 1"]
    );
    // What ends after it was counted is not taken along.
    let again = desk.claim(1).await.remove(0);
    desk.finish(again, failed(), Some(attempt(500)));
    desk.hear(1).await;
    let late = replay(&mut session.client, &which, &census, &mut Reached::default(), 9).await;
    assert_eq!(late.expect("a replay"), 0);

    let delivered = Which { ended: vec![Ended::Delivered], ..crm };
    let census = count(&session.client, &delivered).await.expect("a census");
    let sent = replay(&mut session.client, &delivered, &census, &mut Reached::default(), 9).await;
    assert_eq!(sent.expect("a replay"), 1);
    assert_eq!(desk.all().await.last().expect("a row"), "retrying 1 due");
    desk.check().await;
}

#[tokio::test]
async fn holding_and_releasing_leave_what_is_under_way_alone_and_keep_the_order() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    for number in 1..=3 {
        desk.insert(number, 1, State::Pending, None);
    }
    desk.hear(3).await;
    let claimed = desk.claim(9).await.remove(0);
    let mut session = desk.ledger.session("walhook holds").await.expect("a session");
    assert_eq!(states::hold(&session.client, "crm").await.expect("a hold"), 2);
    assert_eq!(desk.all().await, ["pending 0 due", "held 0", "held 0"]);
    desk.finish(claimed, State::Delivered, Some(attempt(200)));
    desk.hear(1).await;
    assert_eq!(desk.all().await, ["delivered 1", "held 0", "held 0"]);
    assert_eq!(states::release(&mut session.client, "crm").await.expect("a release"), 1);
    assert_eq!(desk.all().await, ["delivered 1", "pending 0 due", "pending 0"]);
}

/// Whoever releases has looked at the states before; somebody may have paused the webhook since.
#[tokio::test]
async fn nothing_of_a_webhook_that_was_suspended_meanwhile_is_released() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, State::Pending, None);
    desk.hear(1).await;
    let mut session = desk.ledger.session("walhook holds").await.expect("a session");
    assert_eq!(states::hold(&session.client, "crm").await.expect("a hold"), 1);
    desk.database.execute("insert into webhook_states values ('crm', 'paused', 'by hand', now())").await;
    assert_eq!(states::release(&mut session.client, "crm").await.expect("a release"), 0);
    assert_eq!(desk.all().await, ["held 0"]);
    desk.database.execute("delete from webhook_states").await;
    assert_eq!(states::release(&mut session.client, "crm").await.expect("a release"), 1);
    assert_eq!(desk.all().await, ["pending 0 due"]);
}

/// Whoever holds has not committed yet; the writer has found the next of the lane as it was.
#[tokio::test]
async fn the_next_of_a_lane_that_is_being_held_does_not_become_due() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let mut session = desk.ledger.session("walhook holds").await.expect("a session");
    for (round, ends) in [(0, State::Delivered), (1, State::Failed("no".to_owned()))] {
        desk.insert(round * 2 + 1, 1, State::Pending, None);
        desk.insert(round * 2 + 2, 1, State::Pending, None);
        desk.hear(2).await;
        let first = desk.claim(1).await.remove(0);
        let holding = connect(&desk.database.url).await.expect("a connection");
        holding.batch_execute("set search_path to walhook; begin").await.expect("a transaction");
        assert_eq!(states::hold(&holding, "crm").await.expect("a hold"), 1);
        desk.finish(first, ends, Some(attempt(200)));
        desk.wait_for_lock("walhook ledger").await;
        holding.batch_execute("commit").await.expect("the end of the hold");
        desk.hear(1).await;
        desk.check().await;
        assert_eq!(
            desk.database.number("select count(*) from deliveries_open where status = 'held'").await,
            1
        );
        assert_eq!(states::release(&mut session.client, "crm").await.expect("a release"), 1);
        let second = desk.claim(1).await.remove(0);
        desk.finish(second, State::Delivered, Some(attempt(200)));
        desk.hear(1).await;
    }
}

/// A transaction a delivery would cost the database more than the deliveries do.
#[tokio::test]
async fn what_is_recorded_in_quick_succession_shares_its_transactions() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let began = Instant::now();
    for number in 1..=100 {
        desk.insert(
            number,
            i64::try_from(number).expect("a small number"),
            State::Delivered,
            Some(attempt(200)),
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    desk.hear(100).await;
    let gathered = i64::try_from(began.elapsed().as_millis() / 25).expect("a small number");
    let transactions = desk.database.number("select count(distinct xmin::text) from deliveries").await;
    assert!(transactions <= gathered + 2, "{transactions} transactions in {gathered} times 25 ms");
}

#[tokio::test]
async fn retention_drops_only_days_that_are_too_old() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, State::Delivered, Some(attempt(200)));
    desk.hear(1).await;
    desk.database.execute("select ensure_partitions(current_date - 40, current_date - 2)").await;
    let retention = Retention { delivered: DAY * 7, failed: DAY * 30, audit: DAY * 365 };
    let dropped = desk.ledger.prune(&retention).await.expect("pruned");
    let days = |parent: &str| dropped.iter().filter(|name| name.contains(parent)).count();
    assert_eq!((days("delivered"), days("failed"), days("past_attempts")), (33, 10, 10), "{dropped:?}");
    assert!(desk.ledger.prune(&retention).await.expect("pruned").is_empty());
    assert_eq!(desk.all().await, ["delivered 1"]);
}

#[tokio::test]
async fn the_audit_and_ended_retries_are_forgotten_when_they_are_too_old() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    desk.database
        .execute(
            "insert into walhook.audit (at, actor_kind, actor, action)
             select now() - make_interval(days => n), 'command', 'ops', 'test' from generate_series(0, 19) n;
             insert into walhook.retries (slot, webhook, ended, status, finished_at) values
                ('walhook', 'crm', '{failed}', 'done', now() - interval '31 days'),
                ('walhook', 'crm', '{failed}', 'done', now()), ('walhook', 'crm', '{failed}', 'pending', null)",
        )
        .await;
    let retention = Retention { delivered: DAY * 7, failed: DAY * 30, audit: DAY * 10 };
    desk.ledger.prune(&retention).await.expect("pruned");
    assert_eq!(desk.database.number("select count(*) from walhook.audit").await, 10);
    assert_eq!(desk.database.number("select count(*) from walhook.retries").await, 2);
}

#[tokio::test]
async fn rows_that_cannot_be_are_refused() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, soon(), Some(attempt(500)));
    desk.hear(1).await;
    for change in [
        "status = 'lost'",
        "status = 'delivered'",
        "status = 'delivered', due_at = null, finished_at = now()",
        "status = 'failed', due_at = null, finished_at = now()",
        "status = 'held'",
        "attempts = 0",
        "attempts = -1",
        "lease = 1, due_at = null",
        "body = null",
        "fail_reason = 'no'",
        "finished_at = now()",
        "last_outcome = 'bored'",
    ] {
        let client = &desk.claims.0.client;
        let refused = client.batch_execute(&format!("update deliveries set {change}")).await;
        let code = refused.expect_err(change).code().cloned();
        assert_eq!(code, Some(tokio_postgres::error::SqlState::CHECK_VIOLATION), "{change}");
    }
}

/// Twenty webhooks, a thousand lanes each; and as many delivered.
const FILL: &str = "
insert into deliveries (id, event_id, event_type, webhook, lane, status, due_at, committed_at, schema_name,
    table_name, row_key, operation, content_type, body, attempts, finished_at, last_attempt_at, last_http_status)
select 'dlv_0001' || lpad(n::text, 32, '0'), 'e', 't', case when n % 20 = 0 then 'crm' else 'w' || n % 20 end,
    n % 20000, case when n > 20000 then 'delivered' else 'pending' end,
    case when n <= 20000 then now() end, now(), 's', 't', 'k', 'insert', 'c', 'b',
    (n > 20000)::int, case when n > 20000 then now() end, case when n > 20000 then now() end, 200
from generate_series(1, 40000) n";

#[tokio::test]
async fn what_is_overdue_is_found_without_reading_a_young_backlog() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    // Five pages of a webhook: the first three rows are old, but the first was sent again a moment ago.
    let fill = FILL.replace("n % 20 = 0", "n <= 10000");
    desk.database
        .execute(&format!(
            "{fill}; update deliveries_open set committed_at = now() - interval '2 hours' where id <= 'dlv_0001' || lpad('3', 32, '0');
             update deliveries_open set sent_again_at = now() where id = 'dlv_0001' || lpad('1', 32, '0')"
        ))
        .await;
    let mut session = desk.ledger.session("walhook holds").await.expect("a session");
    let mut expiry = Expiry::new("crm", Overdue::TooOld(Duration::from_secs(3600), "too old"));
    let mut steps = Vec::new();
    while let Some(ended) = expiry.step(&mut session.client, StoreBodies::All).await.expect("a step") {
        steps.push(ended);
    }
    assert_eq!(steps, [2, 0, 0, 0], "a page of the old ones and one more; one of each other status");
    let failed = "select string_agg(right(id, 1), ',' order by id) from deliveries where status = 'failed'";
    assert_eq!(desk.database.text(failed).await, "2,3");
}

#[tokio::test]
async fn retries_of_another_slot_are_none_of_ours() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    desk.database
        .execute(
            "insert into retries (slot, webhook, ended, created_at)
             values ('another', 'crm', '{failed}', now() - interval '1 day')",
        )
        .await;
    let client = &desk.claims.0.client;
    assert_eq!(retries::open(client, "slot", "crm", 10).await.expect("a count"), 0);
    assert_eq!(retries::open(client, "another", "crm", 10).await.expect("a count"), 1);
    let ours = retries::spares(client, "slot", "crm").await.expect("a time");
    let others = retries::spares(client, "another", "crm").await.expect("a time");
    assert!(ours.duration_since(others) > jiff::SignedDuration::from_hours(23), "{ours} and {others}");
}

#[tokio::test]
async fn no_statement_that_runs_often_reads_a_whole_table() {
    let _turn = beside_others().await;
    let mut desk = Desk::with_options("?options=-c%20plan_cache_mode%3Dforce_generic_plan").await;
    desk.database.execute(FILL).await;
    desk.database.execute("analyze deliveries").await;
    let scans = "select coalesce(sum(seq_scan), 0)::int8 from pg_stat_user_tables where n_live_tup > 1000 \
                 or relname = 'deliveries_open'";
    let writes = "select coalesce(sum(n_tup_upd + n_tup_del), 0)::int8 from pg_stat_user_tables where relname = 'deliveries_open'";
    eventually("the statistics", PATIENCE, async || {
        desk.database.number("select count(*) from pg_stat_user_tables where n_live_tup > 1000").await == 2
    })
    .await;
    // What one index read of an entry each would cost, with room to spare: a webhook's thousand rows are not read.
    let entries = "select coalesce(sum(idx_tup_read), 0)::int8 from pg_stat_user_indexes where relname = 'deliveries_open'";
    let (before, entries_before) = (desk.database.number(scans).await, desk.database.number(entries).await);
    for round in 0..7 {
        let claimed = desk.claim(5).await;
        assert_eq!(claimed.len(), 5);
        for claimed in claimed {
            desk.finish(claimed, State::Delivered, Some(attempt(200)));
        }
        desk.insert(1_000_000 + round, 500_000, State::Pending, None);
        desk.hear(6).await;
        let client = &desk.claims.0.client;
        assert_eq!(trigger::end(client, "crm", "no").await.expect("an answer"), 0);
        assert_eq!(open_webhooks(client).await.expect("webhooks").len(), 20);
        let furthest = recorded::furthest(client, &desk.own, CommitLsn::default()).await;
        assert!(furthest.expect("an answer").is_some());
        assert_eq!(recorded::among(client, &["dlv_x"]).await.expect("an answer").len(), 0);
    }
    // Sessions tell of what they did when they end.
    let (database, commands) = (desk.database, desk.commands);
    drop((commands, desk.claims));
    eventually("the statistics", PATIENCE, async || database.number(writes).await >= 7 * 10).await;
    assert_eq!(database.number(scans).await, before, "a table was read from end to end");
    let read = database.number(entries).await - entries_before;
    assert!(read < 7 * 500, "{read} index entries were read for 7 claims of 5 deliveries");
}
