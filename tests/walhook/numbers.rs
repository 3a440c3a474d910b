//! Numbers: what is summed up is what a recount of the ledger gives, at any moment and after any crash; and it is read
//! without reading the ledger.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_postgres::Client;
use walhook::domain::{Attempt, Ending, Outcome, Promise, RefusedBy, Tally, TimeoutStage, UnreachableBy};
use walhook::ledger::prune::Retention;
use walhook::ledger::record::{NewRow, State};
use walhook::ledger::states::{Expiry, Overdue};
use walhook::ledger::writer::Command;
use walhook::ledger::{Ledger, numbers};
use walhook::postgres::Server;
use walhook::settlement::Settlement;

use crate::ledger::{CUT_OFF, Desk, SLA, attempt, block, soon};
use crate::support::{Answer, Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually};

const LONG_AGO: Timestamp = Timestamp::UNIX_EPOCH;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Every delivery that counts, with each of its attempts.
const ALL: &str = "
select d.webhook, d.status, d.attempts, d.committed_at, d.operation <> 'snapshot' and d.sent_again_at is null,
    a.number, a.attempted_at, a.took_ms, a.outcome, a.http_status
from deliveries d left join attempts a on a.delivery = d.id
where d.operation <> 'test'";

fn outcome(word: &str, status: Option<i32>) -> Outcome {
    let reason = String::new();
    match (word, status) {
        ("responded", Some(status)) => {
            let status = u16::try_from(status).expect("a status");
            Outcome::Responded { status, retry_after: None, body: Bytes::new() }
        }
        ("timed_out", _) => Outcome::TimedOut { stage: TimeoutStage::Connect },
        ("unreachable", _) => Outcome::Unreachable { by: UnreachableBy::Connect, reason },
        ("refused", _) => Outcome::Refused { by: RefusedBy::Request, reason },
        other => panic!("{other:?}"),
    }
}

fn time(time: std::time::SystemTime) -> Timestamp {
    time.try_into().expect("a time")
}

/// The tallies that the ledger's rows give, by webhook.
async fn recount(client: &Client) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for row in client.query(ALL, &[]).await.expect("the ledger") {
        let (status, attempts): (&str, i32) = (row.get(1), row.get(2));
        let promise = row.get::<_, bool>(4).then(|| Promise { committed_at: time(row.get(3)), within: SLA });
        let number: Option<i32> = row.get(5);
        let attempt = number.map(|number| Attempt {
            number: u32::try_from(number).expect("a number"),
            started_at: time(row.get(6)),
            took: Duration::from_secs_f64(row.get::<_, f64>(7) / 1e3),
            outcome: outcome(row.get(8), row.get(9)),
        });
        let is_last = number.is_none_or(|number| number == attempts);
        let ending = match status {
            "delivered" if is_last => Some(Ending::Delivered),
            "failed" if is_last => Some(Ending::Failed),
            _ => None,
        };
        if attempt.is_some() || ending.is_some() {
            tallies.entry(row.get(0)).or_default().count(attempt.as_ref(), ending, promise);
        }
    }
    tallies
}

/// The tallies that the sums give.
async fn summed(client: &Client) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let each = |sums: numbers::Sums| tallies.entry(sums.webhook.to_string()).or_default().merge(&sums.tally);
    numbers::sums_since(client, LONG_AGO, None, each).await.expect("the sums");
    tallies
}

/// Holds the sums against a recount, both as of one moment. Returns how many attempts there were.
pub async fn agree(ledger: &Ledger) -> u64 {
    let session = ledger.session("walhook recount").await.expect("a session");
    let client = &session.client;
    client.batch_execute("begin isolation level repeatable read").await.expect("a transaction");
    let (recount, summed) = (recount(client).await, summed(client).await);
    assert_eq!(summed, recount, "the sums are not what the ledger's rows give");
    recount.values().map(|tally| tally.attempts).sum()
}

fn ledger_of(database: &Database) -> Ledger {
    Ledger::new(Server::parse(&database.url).expect("a connection string"), "walhook")
}

/// A receiver that fails in every way, each delivery otherwise.
fn fail_in_every_way(receiver: &Receiver, path: &str) {
    receiver.script(path, |request| {
        match (request.id().bytes().map(u32::from).sum::<u32>() % 8, request.nth) {
            (0, 1) => Answer::Status(500),
            (1, _) => Answer::Status(404),
            (2, 1..3) => Answer::Drop,
            (3, _) => Answer::Status(503),
            (4, 1) => Answer::Status(302),
            (5, 1) => Answer::Late(Duration::from_millis(1500), 200),
            _ => Answer::Status(204),
        }
    });
}

const KEYS: &str = "events = [\"orders.*\"]\ntimeout = \"1s\"\nbreaker = false\n\
    retry = { schedule = [\"50ms\", \"100ms\"], jitter = 0, give_up_on = [404] }";

async fn killed_at(point: Option<&str>) {
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    for path in ["/crm", "/other"] {
        fail_in_every_way(&receiver, path);
    }
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), KEYS)
        .webhook("other", &receiver.url("/other"), KEYS)
        .expecting("\"level\":\"WARN\"");
    let (mut sidecar, ledger) = (Sidecar::start(&database, run).await, ledger_of(&database));
    let mut from = 1;
    for skip in [2, 9] {
        if let Some(point) = point {
            sidecar.terminate().await;
            sidecar.next_run(|run| run.fail_at(&format!("{point}={skip}*off->return")));
            sidecar.spawn();
        }
        for _ in 0..20 {
            let insert = format!(
                "insert into orders select n, 'a', 1, null from generate_series({from}, {}) n",
                from + 9
            );
            database.execute(&insert).await;
            from += 10;
            if point.is_none() {
                agree(&ledger).await;
            }
        }
        if point.is_none() {
            sidecar.kill9().await;
        } else {
            assert!(!sidecar.ended().await.success(), "it was never reached");
        }
        agree(&ledger).await;
        sidecar.next_run(|mut run| {
            run.environment.clear();
            run
        });
        sidecar.spawn();
        sidecar.ready().await;
    }
    // All but what the killed processes had under lease, which is at most what they had in flight.
    let ended = "select count(*) from walhook.deliveries where finished_at is not null";
    let most = i64::from(from - 1) * 2 - 2 * 2 * 16;
    eventually("nearly all to end", PATIENCE, async || {
        agree(&ledger).await;
        database.number(ended).await >= most
    })
    .await;
    assert!(agree(&ledger).await >= 800);
    sidecar.stop().await;
    agree(&ledger).await;
}

#[tokio::test]
async fn sums_are_what_a_recount_gives_at_any_moment_and_after_a_kill() {
    let _turn = beside_others().await;
    killed_at(None).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn sums_are_what_a_recount_gives_after_a_kill_at_the_ledgers_commit() {
    let _turn = beside_others().await;
    killed_at(Some("before_ledger_commit")).await;
    killed_at(Some("after_ledger_commit")).await;
}

#[tokio::test]
async fn sums_are_right_after_a_commit_whose_answer_was_lost() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let row = |number: u64, state: State, status: u16| {
        let (delivery, tried) = (desk.delivery(number, number.cast_signed()), Some(attempt(status)));
        let owed = Some(Settlement::new().owe());
        Command::Insert(Box::new(NewRow { delivery, state, attempt: tried, owed }), None)
    };
    // As if this writer had written these, and not heard that the second had been committed.
    let (commands, mut acks, other, _) = Desk::writer(&desk.ledger, &desk.own, &Settlement::new());
    for command in [row(1, soon(), 500), row(2, State::Delivered, 200)] {
        commands.send(command).expect("a writer");
        acks.recv().await.expect("an answer");
    }
    drop(commands);
    other.await.expect("no panic").expect("all written");
    let claimed = desk.claim(1).await.remove(0);
    let blocker = block(&desk).await;
    desk.insert(2, 2, State::Delivered, Some(attempt(200)));
    desk.insert(3, 3, State::Failed("no".to_owned()), None);
    desk.finish(claimed, State::Delivered, Some(attempt(200)));
    desk.wait_for_lock("walhook ledger").await;
    assert_eq!(desk.database.number(CUT_OFF).await, 1);
    blocker.batch_execute("commit").await.expect("an end");
    desk.hear(3).await;
    assert_eq!(agree(&desk.ledger).await, 3);
    desk.insert(4, 4, State::Delivered, Some(attempt(200)));
    desk.hear(1).await;
    assert_eq!(agree(&desk.ledger).await, 4);
}

#[tokio::test]
async fn minutes_become_hours_and_hours_go_and_nothing_counts_twice() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let tried = attempt(200);
    for number in 1..=5 {
        desk.insert(number, number.cast_signed(), State::Delivered, Some(tried.clone()));
    }
    desk.hear(5).await;
    // As many minutes of three days ago, two of them in another hour; by two processes.
    desk.database
        .execute(
            "with now as (select date_trunc('hour', now(), 'UTC') as hour),
             at as (select n, hour - interval '3 days' + n * interval '15 minutes' as begins
                 from now, generate_series(0, 5) n)
             insert into rollups select r.webhook, at.begins, r.span, r.slot, r.epoch + 10 + at.n % 2, attempts, delivered,
                 first_try, failed, sla_met, sla_missed, http_4xx, http_5xx, http_other, timed_out, unreachable,
                 refused, receipt, request from rollups r, at",
        )
        .await;
    let session = desk.ledger.session("walhook recount").await.expect("a session");
    let rows = async |span: &str| {
        desk.database.number(&format!("select count(*) from rollups where span = '{span}'")).await
    };
    let before = summed(&session.client).await;
    let minutes = rows("1 minute").await;
    let now = 1;
    assert_eq!((before["crm"].attempts, minutes), (35, 7));
    let retention = Retention { delivered: DAY * 7, failed: DAY * 30, audit: DAY * 365 };
    for _ in 0..2 {
        desk.ledger.prune(&retention).await.expect("pruned");
        assert_eq!((rows("1 minute").await, rows("1 hour").await), (now, 2));
        assert_eq!(summed(&session.client).await, before);
    }
    // A minute of an hour that is put together already.
    desk.database
        .execute(
            "insert into rollups select webhook, begins + interval '1 minute', '1 minute', slot, 7, attempts, delivered,
                 first_try, failed, sla_met, sla_missed, http_4xx, http_5xx, http_other, timed_out, unreachable,
                 refused, receipt, request from rollups where span = '1 hour' order by begins limit 1",
        )
        .await;
    let more = summed(&session.client).await;
    assert_eq!(more["crm"].attempts, 35 + 20);
    desk.ledger.prune(&retention).await.expect("pruned");
    assert_eq!((rows("1 minute").await, rows("1 hour").await, summed(&session.client).await), (now, 2, more));
    desk.database
        .execute("update rollups set begins = begins - interval '33 days' where span = '1 hour'")
        .await;
    desk.ledger.prune(&retention).await.expect("pruned");
    assert_eq!((rows("1 minute").await, rows("1 hour").await), (now, 0));
}

#[tokio::test]
async fn what_fails_because_it_is_too_old_counts_as_failed() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    for number in 1..=3 {
        desk.insert(number, 1, State::Pending, None);
    }
    desk.hear(3).await;
    let mut session = desk.ledger.session("walhook holds").await.expect("a session");
    let store = walhook::domain::StoreBodies::All;
    let mut expiry = Expiry::new("crm", Overdue::TooOld(Duration::ZERO, "too old"));
    assert_eq!(expiry.step(&mut session.client, store).await.expect("an end"), Some(3));
    agree(&desk.ledger).await;
    let failed = &summed(&session.client).await["crm"];
    assert_eq!((failed.failed, failed.sla_missed, failed.attempts), (3, 3, 0));
}

/// Thirty thousand minutes of twenty webhooks, and as many open deliveries.
const FILL: &str = "
insert into rollups select 'w' || n % 20, date_trunc('minute', now()) - n / 20 * interval '1 minute', '1 minute', 's', 1,
    1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, '', '' from generate_series(0, 29999) n;
insert into deliveries (id, event_id, event_type, webhook, lane, status, due_at, committed_at, schema_name,
    table_name, row_key, operation, content_type, body)
select 'dlv_0001' || lpad(n::text, 32, '0'), 'e', 't', 'w' || n % 20, n, 'pending', now(), now(), 's', 't', 'k',
    'insert', 'c', 'b'
from generate_series(1, 30000) n;
analyze rollups; analyze deliveries_open";

#[tokio::test]
async fn reading_numbers_reads_no_table_from_end_to_end() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    desk.database.execute(FILL).await;
    let counters = "select coalesce(sum(seq_scan), 0)::int8 from pg_stat_user_tables \
                    where relname in ('rollups', 'deliveries_open') or relname like 'deliveries_%_2%'";
    let read = "select coalesce(sum(idx_tup_read), 0)::int8 from pg_stat_user_indexes \
                where relname in ('rollups', 'deliveries_open')";
    // Sessions tell of what they did when they end.
    let session = desk.ledger.session("walhook numbers").await.expect("a session");
    let (scans_before, read_before) =
        (desk.database.number(counters).await, desk.database.number(read).await);
    let (now, client) = (walhook::clock::Clock::system().now(), &session.client);
    let since = now.checked_sub(Duration::from_secs(300)).expect("a time");
    let mut minutes = HashMap::new();
    for webhook in [Some("w3"), None] {
        numbers::sums_since(client, since, webhook, |sums| *minutes.entry(sums.webhook).or_insert(0) += 1)
            .await
            .expect("sums");
    }
    // Five minutes and a part of one, unless another has begun meanwhile.
    assert!((4..=6).contains(&minutes["w4"]), "{minutes:?}");
    assert_eq!((minutes.len(), minutes["w3"]), (20, 2 * minutes["w4"]));
    let oldest = numbers::oldest(client, &["w3", "w4", "w5"]).await.expect("the oldest");
    assert_eq!(oldest.len(), 3);
    let late = numbers::late(client, "w3", Duration::from_secs(3600), (since, now)).await;
    assert_eq!(late.expect("a count"), 0);
    drop(session);
    eventually("the statistics", PATIENCE, async || desk.database.number(read).await > read_before).await;
    assert_eq!(desk.database.number(counters).await, scans_before, "a table was read from end to end");
    // An hour and some minutes of all webhooks and one; what one webhook has waiting; the first of three webhooks.
    let entries = desk.database.number(read).await - read_before;
    assert!(entries < 66 * 21 + 1500 + 100, "{entries} index entries were read");
}
