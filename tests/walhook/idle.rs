//! Idle means idle: few statements, no processor time, and no log held back for somebody else's tables.

use std::time::Duration;

use walhook::cluster::{Cluster, Options};

use crate::support::{Database, Receiver, Run, Sidecar, alone, eventually};

const WATCHED: Duration = Duration::from_secs(10);

/// Processor time that a process has used, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after_name) = text.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    [11, 12].iter().map(|index| fields[*index].parse::<u64>().expect("a number")).sum()
}

fn statements(cluster: &Cluster) -> usize {
    let text = std::fs::read_to_string(cluster.log_path()).expect("a log");
    let sent = ["LOG:  statement: ", "LOG:  execute "];
    text.lines().filter(|line| sent.iter().any(|mark| line.contains(mark))).count()
}

#[tokio::test]
async fn an_idle_sidecar_makes_fewer_than_five_statements_a_second_and_holds_no_log_back() {
    let _turn = alone().await;
    let settings = vec![("log_statement".to_owned(), "all".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    database.execute("create table elsewhere (id bigserial primary key, filler text)").await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]");
    let sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/crm", 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let (statements_before, ticks_before) = (statements(&cluster), ticks(sidecar.pid()));
    tokio::time::sleep(WATCHED).await;
    let made = statements(&cluster) - statements_before;
    let used = ticks(sidecar.pid()) - ticks_before;
    println!("idle for {WATCHED:?}: {made} statements, {used} ticks of 10 ms");
    assert!(made < 50, "{made} statements in {WATCHED:?}");
    // A hundredth of a core is ten ticks in ten seconds.
    assert!(used < 10, "{used} ticks of 10 ms in {WATCHED:?}");

    // Tens of megabytes of log, all of it about a table that no webhook wants.
    let fill =
        "insert into elsewhere (filler) select repeat(md5(g::text), 8) from generate_series(1, 100000) g";
    database.execute(fill).await;
    let patience = Duration::from_secs(60);
    eventually("a slot that moves on", patience, async || database.slot_lag_bytes().await < 256 * 1024).await;
    assert_eq!(receiver.count(), 1);
}
