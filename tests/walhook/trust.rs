//! Whose certificates are believed: those that the machine believes.

use crate::support::{Database, PATIENCE, Run, Sidecar, beside_others, eventually, speaks_http2};

#[tokio::test]
async fn the_systems_roots_are_believed_and_are_those_that_the_environment_names() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (port, certificate) = speaks_http2().await;
    let keys =
        "events = [\"orders.*\"]\nretry = { schedule = [\"100ms\", \"1h\"], jitter = 0 }\nbreaker = false";
    let run = Run::default().webhook("crm", &format!("https://localhost:{port}/"), keys);
    let mut sidecar = Sidecar::start(&database, run.expecting("gave deliveries up")).await;
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    let refused = "select count(*) from walhook.attempts where error like '%certificate%'";
    eventually("a certificate that nobody vouches for", PATIENCE, async || {
        database.number(refused).await == 2
    })
    .await;

    let roots = sidecar.file().with_file_name("roots.pem");
    std::fs::write(&roots, certificate).expect("a file");
    sidecar.next_run(|mut run| {
        run.environment.push(("SSL_CERT_FILE".to_owned(), roots.display().to_string()));
        run
    });
    sidecar.restart().await;
    database.execute("insert into orders values (2, 'a', 1, null)").await;
    let arrived = "select count(*) from walhook.deliveries where status = 'delivered'";
    eventually("the next one is delivered", PATIENCE, async || database.number(arrived).await == 1).await;
}
