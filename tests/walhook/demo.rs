//! The demo does what it says, and leaves nothing behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{beside_others, eventually};

/// A cluster, a run and their end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A place for everything temporary, open to the user that the server runs as.
fn place() -> TempDir {
    let place = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("open it");
    place
}

fn demo(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walhook"));
    command.arg("demo").env("TMPDIR", place).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Nothing in the place, and no process that was started for it.
async fn nothing_is_left(place: &Path) {
    let name = place.to_str().expect("a plain path").to_owned();
    eventually("no file and no process", PATIENCE, async || {
        let is_empty = std::fs::read_dir(place).expect("the place").next().is_none();
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let ours = processes.filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&name)
        });
        is_empty && ours.count() == 0
    })
    .await;
}

#[tokio::test]
async fn a_fixed_run_delivers_verifies_retries_and_exits_0() {
    let _turn = beside_others().await;
    let place = place();
    let run = demo(place.path()).arg("--once").output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("an end in time").expect("the binary");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("PASSED: 8 commits, 1 rolled back"), "{said}");
    assert!(said.contains("delivered at attempt 3"), "{said}");
    assert!(!said.contains("\u{1b}["), "colours in a pipe");
    nothing_is_left(place.path()).await;
}

#[tokio::test]
async fn an_interrupt_leaves_nothing_behind() {
    let _turn = beside_others().await;
    let place = place();
    let mut child = demo(place.path()).args(["--pace", "100"]).spawn().expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let seen = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.starts_with("webhook") {
                return;
            }
        }
        panic!("no webhook was shown");
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("a webhook in time");
    let interrupt = format!("kill -INT {}", child.id().expect("a process"));
    assert!(Command::new("sh").args(["-c", &interrupt]).status().await.expect("a shell").success());
    let rest = async { while lines.next_line().await.expect("text").is_some() {} };
    let (status, ()) = tokio::join!(tokio::time::timeout(PATIENCE, child.wait()), rest);
    assert_eq!(status.expect("an end in time").expect("a status").code(), Some(0));
    nothing_is_left(place.path()).await;
}

#[tokio::test]
async fn not_even_a_kill_leaves_the_server_behind() {
    let _turn = beside_others().await;
    let place = place();
    let mut child = demo(place.path()).spawn().expect("the binary");
    eventually("a server", PATIENCE, async || {
        let homes = std::fs::read_dir(place.path()).expect("the place").flatten();
        homes.into_iter().any(|home| home.path().join("data/postmaster.pid").exists())
    })
    .await;
    child.kill().await.expect("a kill");
    let name = place.path().to_str().expect("a plain path").to_owned();
    eventually("no server", PATIENCE, async || {
        std::fs::read_dir("/proc").expect("processes").flatten().all(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&line).contains(&format!("{name}/walhook-pg-"))
        })
    })
    .await;
}
