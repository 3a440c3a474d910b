//! What somebody else writes to the ledger is heard, and disturbs nobody whom it does not concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::api::{OPEN, served_by};
use crate::support::{Answer, Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually};

/// The value of a metric without labels.
async fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let page = sidecar.page("/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().expect("a number")
}

#[tokio::test]
async fn a_hint_for_one_webhook_probes_the_receiver_of_no_other() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = "events = [\"orders.*\"]\nretry = { schedule = [\"10ms\", \"1h\"], jitter = 0 }\n\
                breaker = { min_attempts = 5, probe_after = \"1h\", probe_max = \"1h\" }";
    let run = Run::default().webhook("one", &receiver.url("/one"), keys).webhook(
        "two",
        &receiver.url("/two"),
        keys,
    );
    for path in ["/one", "/two"] {
        receiver.script(path, |_| Answer::Status(500));
    }
    let expected = "the webhooks of the database cannot be read";
    let sidecar = Sidecar::start(&database, run.expecting(expected)).await;
    database.execute("insert into orders select n, 'a', 1, null from generate_series(1, 50) n").await;
    eventually("both fail", PATIENCE, async || metric(&sidecar, "walhook_webhooks_failing").await == 2).await;
    eventually("nothing is under way", PATIENCE, async || {
        metric(&sidecar, "walhook_deliveries_in_flight").await == 0
    })
    .await;
    // A hint is of what is in the ledger, and whoever is to hear it must be listening.
    let recorded = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    eventually("all are recorded", PATIENCE, async || database.number(recorded).await == 100).await;
    sidecar.logged("the catalog is up to date").await;
    let came = || (receiver.requests("/one").len(), receiver.requests("/two").len());
    let (one, two) = came();
    for probes in 1..=3 {
        database.execute("select pg_notify('walhook', 'ledger one')").await;
        eventually("a probe", PATIENCE, async || came().0 == one + probes).await;
    }
    assert_eq!(came().1, two, "a hint for one webhook has probed the other");
    // Of rows that were only moved, as by each step of a job, no receiver is tried.
    database.execute("select pg_notify('walhook', 'moved one')").await;
    // A hint that names nobody is for all, as an older version sends it.
    database.execute("select pg_notify('walhook', 'ledger')").await;
    eventually("a probe of each", PATIENCE, async || came() == (one + 4, two + 1)).await;
    // Nor is a hint lost that comes while nobody listens.
    let hangs_up = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                    where application_name = 'walhook catalog' and datname = current_database()";
    assert_eq!(database.number(hangs_up).await, 1);
    eventually("a probe of each", PATIENCE, async || came() == (one + 5, two + 2)).await;
}

#[tokio::test]
async fn what_was_cancelled_keeps_no_later_change_of_its_row_from_the_quick_way() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "{OPEN}[[webhooks]]\nname = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n\
         retry = {{ schedule = [\"1h\"], jitter = 0 }}\nbreaker = false\n",
        receiver.url("/crm")
    );
    let (sidecar, operator) = served_by(&database, Run::with(toml)).await;
    let fails = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&fails);
    receiver.script("/crm", move |_| Answer::Status(if answers.load(Ordering::SeqCst) { 500 } else { 200 }));
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    let waits = "select count(*) from walhook.deliveries where status = 'retrying'";
    eventually("one waits", PATIENCE, async || database.number(waits).await == 1).await;
    fails.store(false, Ordering::SeqCst);
    let id = database.text("select id from walhook.deliveries").await;
    operator.ask("POST", &format!("/api/webhooks/crm/deliveries/{id}/cancel"), &[], "").await.is(200);
    let handed_over = "walhook_deliveries_handed_over_total";
    let mut change = 0;
    eventually("a change that the ledger does not delay", PATIENCE, async || {
        let (before, came) = (metric(&sidecar, handed_over).await, receiver.requests("/crm").len());
        change += 1;
        database.execute(&format!("update orders set total = {change}")).await;
        eventually("the change", PATIENCE, async || receiver.requests("/crm").len() > came).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        metric(&sidecar, handed_over).await == before
    })
    .await;
}
