//! Numbers as an operator reads them: in words, as JSON, and in the metrics.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually, run_once,
};

/// Runs a command beside the sidecar: its exit code, and what it said.
async fn say(desk: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let file = desk.path().join("walhook.toml");
    let config = ["--config", file.to_str().expect("a plain path")];
    let output = run_once(&[arguments, &config].concat(), &[]).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("plain text");
    (output.status.code(), said)
}

async fn stats(desk: &TempDir, arguments: &[&str]) -> Value {
    let (code, said) = say(desk, &[&["stats", "--json"], arguments].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).expect("JSON")
}

fn desk_of(database: &Database, toml: &str) -> TempDir {
    let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
    let text = format!("[database]\nurl = \"{}\"\nslot = \"{}\"\n\n{toml}", database.url, database.name);
    std::fs::write(home.path().join("walhook.toml"), text).expect("a file");
    home
}

/// The same numbers in words, and what is refused.
async fn people_read_them(desk: &TempDir) {
    let (_, said) = say(desk, &["stats"]).await;
    for part in ["WEBHOOK", "80.00%", "75.00%", "RECEIPT P50", "slow", "0.00%"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let (_, said) = say(desk, &["stats", "crm"]).await;
    for part in ["5m", "7d", "waiting   nothing", "1 HTTP 5xx in 7d", "within 5m of the commit"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let (code, said) = say(desk, &["stats", "cmr"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("Perhaps you meant \"crm\"."), "{said}");
    let (code, said) = say(desk, &["stats", "--since", "yesterday"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("how long ago, such as 2h or 3d"), "{said}");
}

#[tokio::test]
async fn operator_reads_numbers_in_which_tests_do_not_count_and_what_was_sent_again_has_no_latency() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let once = "events = [\"orders.*\"]\nretry = { schedule = [] }\nsla = \"5m\"\nbreaker = false";
    let slow = "events = [\"orders.*\"]\nsla = \"10ms\"";
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), once)
        .webhook("slow", &receiver.url("/slow"), slow)
        .expecting("gave deliveries up");
    let desk = desk_of(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    receiver.script("/crm", |request| {
        Answer::Status(if request.column("id") == 4 && request.nth == 1 { 503 } else { 200 })
    });
    receiver.script("/slow", |_| Answer::Late(Duration::from_millis(50), 200));
    database.execute("insert into orders select n, 'a', 1, null from generate_series(1, 4) n").await;
    let count = "select count(*) from walhook.deliveries where finished_at is not null";
    eventually("all to end", PATIENCE, async || database.number(count).await == 8).await;

    let crm = stats(&desk, &["crm"]).await;
    assert_eq!(
        (&crm["webhook"], &crm["sla_seconds"], &crm["waiting"]),
        (&json!("crm"), &json!(300.0), &json!([]))
    );
    let names: Vec<_> = crm["windows"].as_array().expect("windows").iter().map(|w| &w["window"]).collect();
    assert_eq!(names, ["5m", "1h", "24h", "7d"]);
    for window in crm["windows"].as_array().expect("windows") {
        let deliveries = json!({"delivered": 3, "first_try": 3, "failed": 1, "success_rate": 0.75});
        assert_eq!(window["deliveries"], deliveries);
        assert_eq!(
            (&window["attempts"]["total"], &window["attempts"]["causes"]["http_5xx"]),
            (&json!(4), &json!(1))
        );
        assert_eq!(window["sla"], json!({"met": 3, "missed": 1, "late": 0, "share": 0.75}));
        assert_eq!(
            (&window["receipt_seconds"]["count"], &window["request_seconds"]["count"]),
            (&json!(3), &json!(4))
        );
    }
    let slow = stats(&desk, &["slow", "--since", "1h"]).await;
    let window = &slow["windows"][0];
    assert_eq!(
        (&window["window"], &window["sla"]["missed"], &window["sla"]["share"]),
        (&json!("1h"), &json!(4), &json!(0.0))
    );
    let p50 = window["request_seconds"]["p50"].as_f64().expect("a number");
    assert!(p50 > 0.05 * 0.95, "{p50}");

    // Neither a test nor what is sent again by hand tells how long the way is; the second is a delivery all the same.
    let (code, said) = say(&desk, &["trigger", "crm", "orders.created"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = say(&desk, &["retry", "crm", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    eventually("the dead letter", PATIENCE, async || {
        database.number("select count(*) from walhook.deliveries where status = 'delivered'").await == 9
    })
    .await;
    let all = stats(&desk, &[]).await;
    let crm = &all["webhooks"][0]["windows"][0];
    assert_eq!(crm["deliveries"], json!({"delivered": 4, "first_try": 3, "failed": 1, "success_rate": 0.8}));
    assert_eq!((&crm["attempts"]["total"], &crm["receipt_seconds"]["count"]), (&json!(5), &json!(3)));
    assert_eq!(crm["sla"], json!({"met": 3, "missed": 1, "late": 0, "share": 0.75}));

    people_read_them(&desk).await;
    let metrics = sidecar.page("/metrics").await;
    for line in ["walhook_sla_met_total 3\n", "walhook_sla_missed_total 5\n"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn operator_sees_what_waits_for_how_long_and_why() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let patient = "events = [\"orders.*\"]\nsla = \"10ms\"\nretry = { schedule = [\"1h\"] }\nbreaker = false";
    let run = Run::default().webhook("crm", &receiver.url("/crm"), patient).webhook(
        "idle",
        &receiver.url("/idle"),
        "events = [\"orders.deleted\"]",
    );
    let desk = desk_of(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    receiver.script("/crm", |_| Answer::Status(500));
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    let count = async |status: &str| {
        database.number(&format!("select count(*) from walhook.deliveries where status = '{status}'")).await
    };
    eventually("a failed try", PATIENCE, async || count("retrying").await == 1).await;
    let of = |stats: &Value| (stats["waiting"][0].clone(), stats["windows"][0]["sla"].clone());
    let (waiting, sla) = of(&stats(&desk, &["crm"]).await);
    assert_eq!((&waiting["status"], &waiting["why"]), (&json!("retrying"), &Value::Null));
    assert_eq!(waiting["reason"], "retry");
    assert_eq!(sla, json!({"met": 0, "missed": 0, "late": 1, "share": 0.0}));
    // The next look, within ten seconds.
    eventually("the metric", PATIENCE, async || {
        let metrics = sidecar.page("/metrics").await;
        metrics.lines().any(|line| {
            line.starts_with(
                "walhook_waiting_oldest_seconds{webhook=\"crm\",status=\"retrying\",reason=\"retry\"} ",
            ) && !line.ends_with(" 0")
        })
    })
    .await;

    let (code, said) = say(&desk, &["pause", "crm", "--reason", "moving house"]).await;
    assert_eq!(code, Some(0), "{said}");
    eventually("it to be held", PATIENCE, async || count("held").await == 1).await;
    let (waiting, _) = of(&stats(&desk, &["crm"]).await);
    assert_eq!((&waiting["status"], &waiting["why"]), (&json!("held"), &json!("paused: moving house")));
    assert_eq!(waiting["reason"], "paused");
    let (_, said) = say(&desk, &["stats", "crm"]).await;
    assert!(said.contains("waiting   held (paused: moving house): the oldest for"), "{said}");
    let idle = stats(&desk, &["idle"]).await;
    assert_eq!(idle["sla_seconds"], json!(5.0), "the default");
    assert_eq!(idle["windows"][0]["deliveries"]["success_rate"], Value::Null);
    assert_eq!(
        idle["windows"][0]["receipt_seconds"],
        json!({"count": 0, "p50": null, "p90": null, "p99": null})
    );
    let (_, said) = say(&desk, &["stats"]).await;
    assert!(said.contains('–') && said.contains("held"), "{said}");
    let (_, said) = say(&desk, &["status"]).await;
    for part in ["OLDEST", "1H OK", "1H P99", "s held", "–"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn what_is_sent_again_waits_since_then_and_the_reason_is_that_of_the_oldest() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let patient =
        "events = [\"orders.*\"]\nretry = { schedule = [\"1h\"], give_up_on = [422] }\nbreaker = false";
    let run = Run::default().webhook("crm", &receiver.url("/crm"), patient).expecting("gave deliveries up");
    let desk = desk_of(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    receiver.script("/crm", |_| Answer::Status(422));
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    let count = async |status: &str| {
        database.number(&format!("select count(*) from walhook.deliveries where status = '{status}'")).await
    };
    eventually("a dead letter", PATIENCE, async || count("failed").await == 1).await;
    // Twenty days later it is sent again, and fails again; another change of its row stands behind it.
    let later = "update walhook.deliveries set committed_at = committed_at - interval '20 days'";
    database.execute(later).await;
    receiver.script("/crm", |_| Answer::Status(500));
    let (code, said) = say(&desk, &["retry", "crm", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    let tried = "select count(*) from walhook.deliveries where status = 'retrying' and attempts = 2";
    eventually("a failed try", PATIENCE, async || database.number(tried).await == 1).await;
    database.execute("update orders set status = 'b'").await;
    eventually("one behind it", PATIENCE, async || count("pending").await == 1).await;
    let told = stats(&desk, &["crm"]).await;
    let of = |status: &str| {
        let all = told["waiting"].as_array().expect("a list");
        all.iter().find(|one| one["status"] == status).cloned().unwrap_or_else(|| panic!("{told}"))
    };
    let (retrying, pending) = (of("retrying"), of("pending"));
    assert_eq!((&retrying["reason"], &pending["reason"]), (&json!("retry"), &json!("behind")), "{told}");
    let seconds = |one: &Value| one["oldest_seconds"].as_u64().expect("a number");
    assert!(seconds(&retrying) < 3600 && seconds(&pending) < 3600, "{told}");
    let (_, said) = say(&desk, &["stats", "crm"]).await;
    assert!(said.contains("waiting   retrying (for its next attempt): the oldest for"), "{said}");
    assert!(said.contains("waiting   pending (behind another of its row): the oldest for"), "{said}");
    eventually("the metric", PATIENCE, async || {
        let metrics = sidecar.page("/metrics").await;
        let labels = "{webhook=\"crm\",status=\"pending\",reason=\"behind\"} ";
        metrics.contains(&format!("walhook_waiting_oldest_seconds{labels}"))
    })
    .await;
    // What was committed before and not sent again has waited for longer.
    database
        .execute(
            "update walhook.deliveries set sent_again_at = now() where status = 'pending';
             update walhook.deliveries set sent_again_at = null where status = 'retrying'",
        )
        .await;
    let told = stats(&desk, &["crm"]).await;
    let old = told["waiting"].as_array().expect("a list").iter().find(|one| one["status"] == "retrying");
    assert!(seconds(old.expect("one")) > 19 * 24 * 3600, "{told}");
    sidecar.stop().await;
}
