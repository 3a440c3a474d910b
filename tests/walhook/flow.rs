//! How fast a webhook is sent to, and how it is left alone: breakers, rates, holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use walhook::clock::Clock;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually, run_once,
};

const KEYS: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"200ms\", \"200ms\"], jitter = 0 }\n\
                    breaker = { min_attempts = 5, probe_after = \"300ms\", probe_max = \"600ms\" }";

/// A folder with the sidecar's file, for commands.
fn desk(database: &Database, toml: &str) -> TempDir {
    let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
    let text = format!("[database]\nurl = \"{}\"\nslot = \"{}\"\n\n{toml}", database.url, database.name);
    std::fs::write(home.path().join("walhook.toml"), text).expect("a file");
    home
}

/// Runs a command; what it says.
async fn say(desk: &TempDir, arguments: &[&str]) -> String {
    let file = desk.path().join("walhook.toml");
    let config = ["--config", file.to_str().expect("a plain path")];
    let output = run_once(&[arguments, &config].concat(), &[]).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("plain text");
    assert!(output.status.success(), "{said}");
    said
}

async fn orders(database: &Database, from: u32, to: u32) {
    let insert = format!("insert into orders select n, 'a', 1, null from generate_series({from}, {to}) n");
    database.execute(&insert).await;
}

fn count(status: &str) -> String {
    format!("select count(*) from walhook.deliveries where status = '{status}'")
}

#[tokio::test]
async fn a_failing_webhook_is_probed_one_at_a_time_uses_up_no_attempts_and_drains_when_it_is_well() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let well = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&well);
    receiver.script("/crm", move |_| Answer::Status(if answers.load(Ordering::SeqCst) { 200 } else { 500 }));
    let run = Run::default().webhook("crm", &receiver.url("/crm"), KEYS);
    let desk = desk(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;

    orders(&database, 1, 200).await;
    sidecar.logged("the webhook fails").await;
    // Far more probes than the schedule has attempts, for what was under way when it opened: none is given up.
    let opened = receiver.requests("/crm").len();
    receiver.expect("/crm", opened + 5).await;
    let status: Value = serde_json::from_str(&say(&desk, &["status", "--json"]).await).expect("JSON");
    let webhook = &status["webhooks"][0];
    assert_eq!((&webhook["state"], &webhook["reason"]), (&json!("failing"), &json!("HTTP 500")), "{status}");
    assert!(webhook["since"].is_string(), "{status}");
    let standing = "select status || ' ' || reason from walhook.webhook_standings where webhook = 'crm'";
    assert_eq!(database.text(standing).await, "failing HTTP 500");
    assert!(sidecar.page("/metrics").await.contains("walhook_webhooks_failing 1"));
    assert_eq!(database.number(&count("failed")).await, 0);

    // The next process goes on from there: a probe, and not the whole backlog.
    let before = receiver.requests("/crm").len();
    sidecar.stop().await;
    sidecar.restart().await;
    receiver.expect("/crm", before + 2).await;
    let probes = &receiver.requests("/crm")[before..];
    assert!(probes.windows(2).all(|two| two[1].at - two[0].at >= Duration::from_millis(200)), "no probes");

    well.store(true, Ordering::SeqCst);
    eventually("everything delivered", PATIENCE, async || database.number(&count("delivered")).await == 200)
        .await;
    eventually("its health forgotten", PATIENCE, async || {
        database.number("select count(*) from walhook.webhook_health").await == 0
    })
    .await;
    let status: Value = serde_json::from_str(&say(&desk, &["status", "--json"]).await).expect("JSON");
    assert_eq!(status["webhooks"][0]["state"], json!("active"), "{status}");
}

/// Three rows, three attempts each on the schedule, and ever more probes.
#[tokio::test]
async fn probes_use_up_no_attempts_however_many_there_are() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(500));
    let keys = KEYS.replace("min_attempts = 5", "min_attempts = 3").replace("600ms", "300ms");
    let sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), &keys)).await;
    orders(&database, 1, 3).await;
    sidecar.logged("the webhook fails").await;
    receiver.expect("/crm", 3 + 4 * 3).await;
    assert_eq!(database.number(&count("failed")).await, 0, "a probe used up an attempt");
    receiver.script("/crm", |_| Answer::Status(200));
    eventually("all delivered", PATIENCE, async || database.number(&count("delivered")).await == 3).await;
}

#[tokio::test]
async fn whatever_a_receiver_asks_for_it_is_probed_when_the_longest_wait_is_over() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::With(503, "retry-after", u64::MAX.to_string()));
    let keys = KEYS.replace("jitter = 0", "jitter = 0, retry_after_max = \"700ms\"");
    let sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), &keys)).await;
    orders(&database, 1, 30).await;
    sidecar.logged("the webhook fails").await;
    let opened = receiver.requests("/crm").len();
    receiver.expect("/crm", opened + 3).await;
    receiver.script("/crm", |_| Answer::Status(200));
    eventually("all delivered", PATIENCE, async || database.number(&count("delivered")).await == 30).await;
}

#[tokio::test]
async fn a_status_with_a_wait_of_its_own_does_not_wait_for_the_schedule() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/crm", &[Answer::Status(429), Answer::Status(429)]);
    let keys =
        "events = [\"orders.*\"]\nretry = { schedule = [\"2h\", \"2h\"], wait_on = { 429 = \"200ms\" } }";
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), keys)).await;
    orders(&database, 1, 1).await;
    let came = receiver.expect("/crm", 3).await;
    assert!(
        came.windows(2).all(|two| two[1].at - two[0].at >= Duration::from_millis(150)),
        "sooner than said"
    );
}

#[tokio::test]
async fn a_test_send_goes_out_to_a_failing_webhook_and_counts_for_nothing() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |request| {
        Answer::Status(if request.json()["data"]["operation"] == "test" { 200 } else { 500 })
    });
    let keys = KEYS.replace("300ms", "1h").replace("600ms", "1h");
    let run = Run::default().webhook("crm", &receiver.url("/crm"), &keys);
    let desk = desk(&database, &run.toml);
    let sidecar = Sidecar::start(&database, run).await;
    orders(&database, 1, 50).await;
    sidecar.logged("the webhook fails").await;
    let said = say(&desk, &["trigger", "crm", "orders.created"]).await;
    assert!(said.contains("delivered: HTTP 200"), "{said}");
    let status = say(&desk, &["status"]).await;
    assert!(status.contains("failing"), "a test closed it:\n{status}");
}

#[tokio::test]
async fn after_nothing_but_failures_a_webhook_is_disabled_and_what_was_held_is_cancelled_by_choice() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(500));
    let keys = format!("{KEYS}\ndisable_after = \"2s\"");
    let run =
        Run::default().webhook("crm", &receiver.url("/crm"), &keys).expecting("the webhook is disabled");
    let desk = desk(&database, &run.toml);
    let sidecar = Sidecar::start(&database, run).await;
    orders(&database, 1, 100).await;
    sidecar.logged("the webhook is disabled").await;
    eventually("all held", PATIENCE, async || database.number(&count("held")).await == 100).await;
    let standing = "select status || ': ' || reason from walhook.webhook_states where webhook = 'crm'";
    assert!(database.text(standing).await.starts_with("disabled: nothing but failures"));
    let status: Value = serde_json::from_str(&say(&desk, &["status", "--json"]).await).expect("JSON");
    let since =
        status["webhooks"][0]["since"].as_str().and_then(|since| since.parse::<jiff::Timestamp>().ok());
    let ago = Clock::system().now().duration_since(since.expect("a time"));
    assert!((0..60).contains(&ago.as_secs()), "{status}");
    receiver.script("/crm", |_| Answer::Status(200));
    let said = say(&desk, &["enable", "crm", "--cancel-held"]).await;
    assert!(said.contains("active again; 100 held deliveries were cancelled"), "{said}");
    assert_eq!(database.number(&count("cancelled")).await, 100);
    let before = receiver.requests("/crm").len();
    orders(&database, 101, 103).await;
    let came = receiver.expect("/crm", before + 3).await;
    assert!(
        came[before..].iter().all(|request| request.column("id").as_u64() > Some(100)),
        "a cancelled one came"
    );
}

#[tokio::test]
async fn what_is_held_for_too_long_fails_and_so_does_what_is_older_than_its_age() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/young", |_| Answer::Status(500));
    let held = "events = [\"orders.*\"]\nheld_for = \"1h\"";
    let young = "events = [\"orders.*\"]\nretry = { schedule = [\"1h\"], jitter = 0, max_age = \"1h2m\" }\nbreaker = false";
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), held)
        .webhook("young", &receiver.url("/young"), young)
        .expecting("too old to be sent");
    let desk = desk(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    say(&desk, &["pause", "crm"]).await;
    // The instance knows of the pause when something is held.
    let mut last = 0;
    eventually("some held", PATIENCE, async || {
        last += 1;
        orders(&database, last, last).await;
        database.number(&count("held")).await >= 2
    })
    .await;
    let tried = "select count(*) from walhook.deliveries where webhook = 'young' and status = 'retrying'";
    eventually("all tried", PATIENCE, async || database.number(tried).await == i64::from(last)).await;
    let settled = "select count(*) from walhook.deliveries where status <> 'pending'";
    eventually("all settled", PATIENCE, async || database.number(settled).await == 2 * i64::from(last)).await;
    let held = database.number(&count("held")).await;
    // Time passes. What was committed long ago, and is held since a moment ago, is held on.
    let older = "update walhook.deliveries set committed_at = committed_at - interval '2 hours'";
    database.execute(older).await;
    sidecar.restart().await;
    // Webhooks are looked through by name: the other one is already.
    eventually("the old ones failed", PATIENCE, async || {
        database.number(&count("failed")).await == i64::from(last)
    })
    .await;
    assert_eq!(database.number(&count("held")).await, held, "held for a moment");
    // One that was sent again and then held counts from there.
    database
        .execute(
            "update walhook.webhook_states set since = since - interval '2 hours';
             update walhook.deliveries set sent_again_at = now()
             where id = (select min(id) from walhook.deliveries where status = 'held')",
        )
        .await;
    sidecar.restart().await;
    eventually("the others failed", PATIENCE, async || database.number(&count("held")).await == 1).await;
    database
        .execute(
            "update walhook.deliveries set sent_again_at = now() - interval '2 hours' where status = 'held'",
        )
        .await;
    sidecar.restart().await;
    eventually("all failed", PATIENCE, async || {
        database.number(&count("failed")).await == held + i64::from(last)
    })
    .await;
    let reasons =
        "select string_agg(distinct fail_reason, '; ' order by fail_reason) from walhook.deliveries";
    let expected = "it is older than retry.max_age allows; it was held for longer than held_for allows";
    assert_eq!(database.text(reasons).await, expected);
    // Who sends one again means it, however old it is: its age counts from there.
    say(&desk, &["retry", "young"]).await;
    eventually("all tried again", PATIENCE, async || database.number(tried).await == i64::from(last)).await;
    let aged = "update walhook.deliveries set sent_again_at = now() - interval '2 hours'
        where id = (select min(id) from walhook.deliveries where webhook = 'young')";
    database.execute(aged).await;
    sidecar.restart().await;
    let others = i64::from(last) - 1;
    eventually("one is too old", PATIENCE, async || database.number(tried).await == others).await;
}

#[tokio::test]
async fn a_rate_limit_spreads_what_is_owed() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = "events = [\"orders.*\"]\nrate_limit = \"40/s\"";
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), keys)).await;
    orders(&database, 1, 200).await;
    let came = receiver.expect("/crm", 200).await;
    // 40 a second and a burst of 4. Whatever is slow bunches them up, and makes none of them early; but the first of them may
    // have been late itself.
    for (before, request) in (0_u32..).zip(&came) {
        let earliest = Duration::from_millis(25) * before.saturating_sub(4);
        assert!(
            request.at - came[0].at + Duration::from_millis(400) >= earliest,
            "the {before}th came too early"
        );
    }
    let mut ids: Vec<&str> = came.iter().map(Request::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 200, "some came twice");
}

#[tokio::test]
async fn concurrency_follows_a_receiver_that_can_do_few_at_a_time() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&under_way), Arc::clone(&most));
    // Overload is answered with 503; the receiver's own clock takes requests out again.
    receiver.script("/crm", move |_| {
        let here = now.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(here, Ordering::SeqCst);
        let left = Arc::clone(&now);
        crate::support::background(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            left.fetch_sub(1, Ordering::SeqCst);
        });
        Answer::Late(Duration::from_millis(20), if here > 10 { 503 } else { 200 })
    });
    let keys = "events = [\"orders.*\"]\nconcurrency = \"auto\"\nbreaker = false\n\
                retry = { initial = \"100ms\", factor = 1, max = \"100ms\", max_attempts = 50 }";
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), keys)).await;
    orders(&database, 1, 600).await;
    eventually("everything delivered", PATIENCE, async || database.number(&count("delivered")).await == 600)
        .await;
    let most = most.load(Ordering::SeqCst);
    assert!((5..=40).contains(&most), "{most} at once, where 10 are well");
}

#[tokio::test]
async fn attempts_that_end_after_their_webhook_was_deleted_leave_nothing_behind() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Late(Duration::from_secs(2), 500));
    let declare = format!(
        "insert into walhook.webhooks (name, url, events, breaker, retry) values ('crm', '{}', '{{orders.*}}',
            '{{\"min_attempts\": 5}}', '{{\"schedule\": [\"1h\"]}}')",
        receiver.url("/crm")
    );
    let sidecar = Sidecar::start(&database, Run::with(crate::api::OPEN)).await;
    database.execute(&declare).await;
    let mut last = 0;
    eventually("the webhook is live", PATIENCE, async || {
        last += 1;
        orders(&database, last, last).await;
        receiver.requests("/crm").len() >= 12
    })
    .await;
    let before = sidecar.catalogs();
    database.execute("delete from walhook.webhooks").await;
    sidecar.published_after(before).await;
    let metric = async |line: &str| sidecar.page("/metrics").await.contains(line);
    eventually("all have ended", PATIENCE, async || metric("walhook_deliveries_in_flight 0\n").await).await;
    assert!(!metric("walhook_breakers_opened_total 1\n").await, "they opened a breaker");
    assert!(metric("walhook_webhooks_failing 0\n").await, "what is declared no more fails");
    assert_eq!(database.number("select count(*) from walhook.webhook_health").await, 0);
}

#[tokio::test]
async fn i8_what_cannot_be_held_or_released_for_one_webhook_keeps_no_other_waiting() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (well, keys) = (Arc::new(AtomicBool::new(false)), "events = [\"orders.*\"]\nbreaker = false");
    for path in ["/amber", "/birch"] {
        let answers = Arc::clone(&well);
        receiver
            .script(path, move |_| Answer::Status(if answers.load(Ordering::SeqCst) { 200 } else { 500 }));
    }
    let run = Run::with("[delivery]\nretry = { schedule = [\"2s\", \"1h\"] }\n")
        .webhook("amber", &receiver.url("/amber"), keys)
        .webhook("birch", &receiver.url("/birch"), keys)
        .expecting("held deliveries could not be looked after");
    let desk = desk(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    orders(&database, 1, 5).await;
    let waiting = "select count(*) from walhook.deliveries where status = 'retrying'";
    eventually("ten that wait", PATIENCE, async || database.number(waiting).await == 10).await;
    let of = |webhook: &str, status: &str| {
        format!("select count(*) from walhook.deliveries where webhook = '{webhook}' and status = '{status}'")
    };
    let refuse = |what: &str| {
        format!(
            "create function public.refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'no' using errcode = '53100'; end $$;
             create trigger refuse before update on walhook.deliveries_open for each row \
             when (new.webhook = 'amber' and {what}) execute function public.refuse()"
        )
    };
    let allow = "drop function public.refuse() cascade";

    database.execute(&refuse("new.status = 'held'")).await;
    say(&desk, &["pause", "amber"]).await;
    say(&desk, &["pause", "birch"]).await;
    eventually("birch's to be held", PATIENCE, async || database.number(&of("birch", "held")).await == 5)
        .await;
    sidecar.logged("held deliveries could not be looked after").await;
    assert_eq!(database.number(&of("amber", "held")).await, 0);
    database.execute(allow).await;
    eventually("amber's to be held", PATIENCE, async || database.number(&of("amber", "held")).await == 5)
        .await;

    well.store(true, Ordering::SeqCst);
    database.execute(&refuse("old.status = 'held'")).await;
    say(&desk, &["enable", "amber"]).await;
    say(&desk, &["enable", "birch"]).await;
    eventually("birch's to arrive", PATIENCE, async || database.number(&of("birch", "delivered")).await == 5)
        .await;
    assert_eq!(database.number(&of("amber", "held")).await, 5);
    database.execute(allow).await;
    eventually("amber's to arrive", PATIENCE, async || database.number(&of("amber", "delivered")).await == 5)
        .await;
    sidecar.stop().await;
}
