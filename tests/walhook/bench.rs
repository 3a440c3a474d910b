//! `walhook bench` measures what it says, and every figure has its limit.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::alone;

/// A cluster and a small round of everything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_small_run_tells_every_figure_beside_its_limit() {
    let _turn = alone().await;
    let run = Command::new(env!("CARGO_BIN_EXE_walhook"))
        .args(["bench", "--quick", "--json"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("an end in time").expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Vec<Value> = serde_json::from_slice(&output.stdout).expect("figures");
    let told: Vec<&str> = figures.iter().filter_map(|figure| figure["what"].as_str()).collect();
    for what in [
        "decode and match, large transactions",
        "decode and match, one-row transactions",
        "delivery end to end",
        "delivery end to end, beside what Postgres takes",
        "delivery of a backlog",
        "commit to receipt at 100 changes/s, p50",
        "commit to receipt at 100 changes/s, p99",
        "webhooks made over the API, 50 in a row",
        "a quiet webhook's deliveries beside 10000 deliveries, p95",
        "one delivery in full beside 10000 deliveries, p95",
    ] {
        assert!(told.contains(&what), "{what} in {told:?}");
    }
    for figure in &figures {
        // What is not finite is null in JSON.
        for part in ["measured", "limit", "ratio"] {
            assert!(figure[part].as_f64().is_some_and(f64::is_finite), "{part} of {figure}");
        }
        assert!(figure["limit"].as_f64() > Some(0.0), "{figure}");
    }
    let resident = figures.iter().filter(|figure| figure["resident_mib"].as_f64() > Some(1.0)).count();
    assert!(!cfg!(target_os = "linux") || resident >= 6, "memory of every stage");
}
