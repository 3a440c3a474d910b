//! What is wrong is said once, with its detail and remedy, an exit code and no backtrace; and nothing is lost.

use walhook::cluster::{Cluster, Options};

use crate::support::{Database, Receiver, Run, SECRET, Sidecar, beside_others, refused, run_once};

const FAILED: Option<i32> = Some(1);

/// What every refusal has in common, and the parts that this one names.
fn check(refusal: (Option<i32>, String), parts: &[&str]) {
    let (code, said) = refusal;
    assert_eq!(code, FAILED, "{said}");
    let lower = said.to_lowercase();
    for part in parts {
        assert!(lower.contains(&part.to_lowercase()), "nothing about `{part}` in:\n{said}");
    }
    assert!(lower.contains("hint"), "no remedy in:\n{said}");
    for never in ["panicked", "backtrace", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "open-sesame"] {
        assert!(!said.contains(never), "`{never}` in:\n{said}");
    }
}

fn file(url: &str, slot: &str, rest: &str) -> String {
    format!(
        "[database]\nurl = \"{url}\"\nslot = \"{slot}\"\n\n[server]\nlisten = \"127.0.0.1:0\"\n\n\
         [[webhooks]]\nname = \"crm\"\nurl = \"http://127.0.0.1:9/\"\nsecret = \"{SECRET}\"\n{rest}\n"
    )
}

const ORDERS: &str = "events = [\"orders.*\"]";

#[tokio::test]
async fn all_mistakes_in_a_file_are_told_at_once_each_with_its_place_and_the_nearest_name() {
    let _turn = beside_others().await;
    let text = file(
        "postgres://app@localhost/app",
        "walhook",
        "events = [\"orders.*\"]\ntimeot = \"3s\"\nconcurrency = \"x\"",
    );
    check(refused(&text).await, &["walhook.toml", "timeot", "timeout", "concurrency"]);
}

#[tokio::test]
async fn a_condition_that_does_not_compile_is_refused_with_its_place() {
    let _turn = beside_others().await;
    let text = file(
        "postgres://app@localhost/app",
        "walhook",
        "events = [\"orders.*\"]\nfilter = \"record.total >\"",
    );
    check(refused(&text).await, &["webhooks[0].filter", "line 1"]);
}

#[tokio::test]
async fn a_template_that_does_not_compile_is_refused_with_its_place() {
    let _turn = beside_others().await;
    let rest = "events = [\"orders.*\"]\ntemplate = \"t\"\n\n[templates.t]\ncontent_type = \"text/plain\"\nbody = \"{{#if\"";
    check(refused(&file("postgres://app@localhost/app", "walhook", rest)).await, &["templates.t"]);
}

#[tokio::test]
async fn a_missing_file_and_a_wrong_option_exit_1_and_2() {
    let _turn = beside_others().await;
    let output = run_once(&["run", "--config", "/nowhere/walhook.toml"], &[]).await;
    check(
        (output.status.code(), String::from_utf8(output.stderr).expect("text")),
        &["/nowhere/walhook.toml"],
    );
    let output = run_once(&["run", "--nonsense"], &[]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn i12_a_database_that_is_not_there_is_named_and_a_wrong_password_is_not_repeated() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let nobody = "postgres://postgres:open-sesame@127.0.0.1:9/app";
    check(refused(&file(nobody, &database.name, ORDERS)).await, &["127.0.0.1"]);
    let (start, rest) = database.url.split_once("://postgres:").expect("a URL");
    let (_, place) = rest.split_once('@').expect("a URL");
    let wrong = format!("{start}://postgres:open-sesame@{place}");
    check(refused(&file(&wrong, &database.name, ORDERS)).await, &["password"]);
}

#[tokio::test]
async fn a_server_without_logical_decoding_is_told_the_setting() {
    let _turn = beside_others().await;
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let database = Database::on(&cluster).await;
    database.execute(crate::support::ORDERS).await;
    check(refused(&file(&database.url, &database.name, ORDERS)).await, &["wal_level", "logical"]);
}

#[tokio::test]
async fn a_role_without_the_privileges_is_told_the_grants() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let role = format!("plain_{}", database.name);
    database.execute(&format!("create role {role} login password 'open-sesame'")).await;
    let (start, rest) = database.url.split_once("://").expect("a URL");
    let (_, place) = rest.split_once('@').expect("a URL");
    let url = format!("{start}://{role}:open-sesame@{place}");
    check(refused(&file(&url, &database.name, ORDERS)).await, &["replication", &role]);
}

#[tokio::test]
async fn a_pattern_that_matches_no_table_is_refused_with_the_nearest() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let text = file(&database.url, &database.name, "events = [\"order.created\"]");
    check(refused(&text).await, &["order.created", "orders"]);
}

#[tokio::test]
async fn a_table_without_replica_identity_is_refused_before_the_applications_updates_break() {
    let _turn = beside_others().await;
    let database = Database::new().await;
    database
        .execute("create table orders (id int8, status text); insert into orders values (1, 'paid')")
        .await;
    let text = file(&database.url, &database.name, ORDERS);
    check(refused(&text).await, &["orders", "replica identity"]);
    database.execute("update orders set status = 'shipped'").await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let text = file(&database.url, &database.name, ORDERS).replace("127.0.0.1:0", &address);
    check(refused(&text).await, &[&address]);
}

#[tokio::test]
async fn a_second_sidecar_stands_by_and_takes_over() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ORDERS).expecting("standby");
    let mut first = Sidecar::start(&database, run.clone()).await;
    let mut second = Sidecar::prepare(&database, run);
    second.spawn();
    second.logged("standby").await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/crm", 1).await;
    first.kill9().await;
    second.ready().await;
    database.execute("insert into orders values (2, 'paid', 1, null)").await;
    receiver.expect("/crm", 2).await;
}

#[tokio::test]
async fn a_body_over_the_limit_becomes_a_dead_letter_with_its_reason() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), ORDERS).expecting("\"level\":\"WARN\"");
    let _sidecar = Sidecar::start(&database, run).await;
    database
        .execute("insert into orders values (1, 'big', 1, repeat('x', 3000000)), (2, 'small', 1, null)")
        .await;
    assert_eq!(receiver.expect("/crm", 1).await[0].column("id"), 2);
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    crate::support::eventually("a dead letter", crate::support::PATIENCE, async || {
        database.number(failed).await == 1
    })
    .await;
}
