//! How far the log is behind, and how safe it is: in `status` and in the metrics, also while nothing moves.

use walhook::cluster::{Cluster, Options};

use crate::support::{
    Database, ORDERS, PATIENCE, Receiver, Run, Sidecar, beside_others, connect, eventually, run_once,
};

/// What a metric of this name, with its labels, is.
fn metric(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().expect("a number")
}

async fn reload(database: &Database, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        database.execute(&format!("alter system set {name} = '{value}'")).await;
    }
    database.execute("select pg_reload_conf()").await;
}

async fn status(sidecar: &Sidecar) -> (serde_json::Value, String) {
    let file = sidecar.file();
    let config = ["--config", file.to_str().expect("a plain path")];
    let json = run_once(&[&["status", "--json"], &config[..]].concat(), &[]).await;
    let text = run_once(&[&["status"], &config[..]].concat(), &[]).await;
    let json = serde_json::from_slice(&json.stdout).expect("JSON");
    (json, String::from_utf8_lossy(&text.stdout).into_owned())
}

#[tokio::test]
async fn lag_in_bytes_and_seconds_and_the_danger_to_the_log_are_told_while_nothing_moves() {
    let _turn = beside_others().await;
    let settings = [("max_slot_wal_keep_size", "1GB"), ("min_wal_size", "32MB"), ("max_wal_size", "32MB")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let cluster =
        Cluster::create(&Options { settings: settings.to_vec(), ..Options::default() }).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(ORDERS).await;
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("the ledger cannot be written")
        .expecting("the server is about to remove log");
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/crm", 1).await;
    let idle = status(&sidecar).await;
    assert_eq!(idle.0["slot_state"]["lag_seconds"], 0, "{}", idle.0);

    // What has been sent cannot be recorded, so nothing is confirmed.
    let blocker = connect(&database.url).await.expect("a connection");
    blocker.batch_execute("begin; lock table walhook.deliveries in exclusive mode").await.expect("a lock");
    database.execute("insert into orders values (2, 'paid', 1, null)").await;
    receiver.expect("/crm", 2).await;
    let more = "create table if not exists filler (x text); \
                insert into filler select repeat('x', 100) from generate_series(1, 200000); \
                truncate filler";
    for _ in 0..4 {
        database.execute(more).await;
    }
    sidecar.logged("keeps more log for the slot than max_wal_size").await;
    let extended = "walhook_slot_wal_status{status=\"extended\"}";
    eventually("a lag that grows", PATIENCE * 2, async || {
        let page = sidecar.page("/metrics").await;
        metric(&page, "walhook_source_lag_seconds") >= 10.0 && metric(&page, extended) > 0.5
    })
    .await;
    let page = sidecar.page("/metrics").await;
    assert!(metric(&page, "walhook_slot_lag_bytes") > 50e6);
    assert!(metric(&page, "walhook_slot_retained_bytes") > 50e6);
    let safe = metric(&page, "walhook_slot_safe_bytes");
    assert!(safe > 1e6 && safe < 2e9, "{safe}");
    for status in ["reserved", "unreserved", "lost"] {
        assert!(metric(&page, &format!("walhook_slot_wal_status{{status=\"{status}\"}}")) < 0.5);
    }
    // What the page says is noted for others a moment later.
    eventually("a lag that others see", PATIENCE, async || {
        status(&sidecar).await.0["slot_state"]["lag_seconds"].as_u64() >= Some(10)
    })
    .await;
    let (json, text) = status(&sidecar).await;
    let slot = &json["slot_state"];
    assert!(slot["lag_bytes"].as_u64() > Some(50_000_000), "{json}");
    assert_eq!(slot["wal_status"], "extended");
    let told = text.lines().find(|line| line.starts_with("slot ")).expect("a line of the slot");
    assert!(told.contains(" MiB and ") && told.contains(" behind at "), "{told}");

    reload(&database, &[("max_wal_size", "10GB"), ("max_slot_wal_keep_size", "16MB")]).await;
    sidecar.logged("the server is about to remove log").await;
    let page = sidecar.page("/metrics").await;
    assert!(metric(&page, "walhook_slot_wal_status{status=\"unreserved\"}") > 0.5);
    assert!(metric(&page, "walhook_slot_safe_bytes") < 0.5);

    blocker.batch_execute("commit").await.expect("a commit");
    sidecar.logged("the slot's log is safe again").await;
    eventually("no lag", PATIENCE * 2, async || {
        let page = sidecar.page("/metrics").await;
        metric(&page, "walhook_source_lag_seconds") < 1.0
            && status(&sidecar).await.0["slot_state"]["lag_seconds"] == 0
    })
    .await;
    sidecar.stop().await;

    // Nobody reads: what is written now has waited since the stop at most.
    database.execute("insert into orders values (3, 'paid', 1, null)").await;
    eventually("a lag", PATIENCE, async || {
        status(&sidecar).await.0["slot_state"]["lag_seconds"].as_u64() > Some(0)
    })
    .await;
}
