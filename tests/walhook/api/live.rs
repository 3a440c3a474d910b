//! What happens, told to who listens.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;

use super::{ADMIN, Client, OPEN, served_by};
use crate::support::{Answer as Reply, Database, PATIENCE, Receiver, Run, beside_others};

struct Stream {
    lines: Lines<BufReader<TcpStream>>,
}

impl Stream {
    /// Listens; answers once it does.
    async fn open(client: &Client, query: &str) -> Self {
        let mut stream = TcpStream::connect(&client.address).await.expect("a server");
        let head = format!(
            "GET /api/live{query} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {ADMIN}\r\n\r\n",
            client.address
        );
        stream.write_all(head.as_bytes()).await.expect("a reader");
        let mut stream = Self { lines: BufReader::new(stream).lines() };
        let first = stream.line().await.expect("an answer");
        assert!(first.contains(" 200 "), "{first}");
        while stream.line().await.expect("a stream") != ": listening" {}
        stream
    }

    /// The next line; none where the stream has ended.
    async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("a line in time").ok().flatten()
    }

    /// The next event of a name.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            if self.line().await.expect("the stream goes on") == format!("event: {name}") {
                let data = self.line().await.expect("its data");
                return serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            }
        }
    }
}

#[tokio::test]
async fn changes_and_deliveries_are_told_as_they_happen_until_the_instance_goes() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/bad", |_| Reply::Status(500));
    let toml = format!(
        "{OPEN}[[webhooks]]\nname = \"good\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n\
         [[webhooks]]\nname = \"bad\"\nurl = \"{}\"\nevents = [\"orders.*\"]\nretry = {{ schedule = [\"1h\"] }}\n",
        receiver.url("/good"),
        receiver.url("/bad")
    );
    let (mut sidecar, operator) = served_by(&database, Run::with(toml)).await;
    let mut changes = Stream::open(&operator, "?kind=change&table=orders").await;
    let mut bad = Stream::open(&operator, "?webhook=ba*").await;
    database.execute("insert into orders values (7, 'paid', 1, null)").await;
    let change = changes.event("change").await;
    assert_eq!(
        (&change["table"], &change["operation"], &change["sequence"]),
        (&"orders".into(), &"insert".into(), &1.into())
    );
    assert!(!change.to_string().contains("paid"), "no values of rows: {change}");
    let delivery = bad.event("delivery").await;
    assert_eq!((&delivery["webhook"], &delivery["status"]), (&"bad".into(), &"retrying".into()));
    assert_eq!(
        (&delivery["event"], &delivery["attempt"]["http_status"]),
        (&"orders.created".into(), &500.into())
    );

    for wrong in ["?kind=row", "?kinds=change"] {
        operator.get(&format!("/api/live{wrong}")).await.is(400);
    }
    let most = walhook::domain::limits::LIVE_LISTENERS;
    let mut all = Vec::new();
    for _ in 2..most {
        all.push(Stream::open(&operator, "").await);
    }
    operator.get("/api/live").await.is(503);
    drop(all);
    crate::support::eventually("there is room again", PATIENCE, async || {
        let mut stream = TcpStream::connect(&operator.address).await.expect("a server");
        let head = format!("GET /api/live HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a reader");
        let line = BufReader::new(stream).lines().next_line().await;
        line.ok().flatten().is_some_and(|line| line.contains(" 200 "))
    })
    .await;
    assert_eq!(sidecar.terminate().await, Some(0), "who listens does not keep it from ending");
    while changes.line().await.is_some() {}
}

#[tokio::test]
async fn a_stream_ends_after_as_many_events_or_as_long_as_was_asked_for() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let hook = "[[webhooks]]\nname = \"a\"\nurl = \"http://127.0.0.1:9/\"\nevents = [\"orders.*\"]\n";
    let (_sidecar, operator) = served_by(&database, Run::with(hook)).await;
    let mut few = Stream::open(&operator, "?kind=change&limit=2").await;
    database.execute("insert into orders select n, 'paid', 1, null from generate_series(1, 5) n").await;
    let mut told = 0;
    while let Some(line) = few.line().await {
        told += usize::from(line == "event: change");
    }
    assert_eq!(told, 2);
    // Of nothing, and with nothing happening: the time alone ends it.
    let short = operator.get("/api/live?table=nosuch&kind=change&seconds=1").await.is(200);
    assert!(short.text().starts_with(": listening") && !short.text().contains("event:"), "{}", short.text());
    assert_eq!(short.header("content-type"), "text/event-stream");
    for wrong in ["?limit=0", "?limit=many", "?seconds=86401", "?seconds=-1", "?seconds=1&seconds=2"] {
        operator.get(&format!("/api/live{wrong}")).await.is(400);
    }
    for (key, status) in [(None, 401), (Some("wk_0000000000000000_x"), 401)] {
        operator.with_key(key).get("/api/live?seconds=1").await.is(status);
    }
    let tenant = serde_json::json!({ "name": "t", "scopes": ["webhook:read"], "tenant": "acme" });
    let tenant = operator.post("/api/keys", &tenant).await.is(201).json();
    operator.with_key(tenant["key"].as_str()).get("/api/live?seconds=1").await.is(403);
}
