//! The HTTP API beside a full ledger: how fast webhooks are made, and how long a page takes.
//!
//! Here the limits are promises rather than measurements: 10,000 webhooks in a minute, and 20 ms for a page beside
//! 5,000,000 deliveries. The webhooks are made one by one, over a few connections, as a platform does that moves its
//! customers over; each is in its own transaction and in the catalog of the running instance within a second. The
//! deliveries are written by SQL, as the ledger would have written them over a week: of two hundred webhooks, and one
//! in five thousand of a webhook that has little to do. Pages are asked for one after another, over one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::figures::{Figure, share};
use super::sidecar::Sidecar;
use super::stage::Stage;
use super::{BenchError, Sizes};

const SLOT: &str = "api";
const TOKEN: &str = "a token that only this run of the bench knows";
/// Connections over which webhooks are made.
const MAKERS: u32 = 4;
/// Webhooks promised in a second: 10,000 in a minute.
const PROMISED: f64 = 10_000.0 / 60.0;
/// What a page may take, in milliseconds.
const PAGE_MS: f64 = 20.0;
/// How often each page is asked for.
const ASKED: u32 = 100;

/// What is asked for, and its name.
const PAGES: [(&str, &str); 7] = [
    ("the newest deliveries", "deliveries"),
    ("a busy webhook's deliveries", "deliveries?webhook=w7"),
    ("a quiet webhook's deliveries", "deliveries?webhook=quiet"),
    ("failed deliveries", "deliveries?status=failed"),
    ("deliveries of a row", "deliveries?table=orders&key=17"),
    ("one delivery in full", "deliveries/dlv_"),
    ("a list of webhooks", "webhooks?limit=50"),
];

/// Makes the webhooks, fills the ledger, asks for pages.
pub(super) async fn measure(stage: &Stage, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let client = stage.orders("api").await?;
    let config = format!("server.admin_token = \"{TOKEN}\"\n") + &stage.database("api", SLOT);
    let mut sidecar = Sidecar::start(&config).await?;
    sidecar.ready().await?;
    let caller = Caller::of(&sidecar);
    let (webhooks, deliveries) = sizes.api;
    let rate = make(&caller, webhooks).await?;
    sidecar.must_live()?;
    let what = format!("webhooks made over the API, {webhooks} in a row");
    let mut figures = vec![Figure::new(what, "webhooks/s", rate, "promised", PROMISED).wanting(1.0)];
    fill(&client, deliveries).await?;
    for (what, path) in PAGES {
        let path = if path.ends_with("dlv_") { one(&client).await? } else { path.to_owned() };
        let mut took = Vec::new();
        for _ in 0..ASKED {
            let begun = Instant::now();
            caller.get(&path).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let what = format!("{what} beside {deliveries} deliveries, p95");
        figures.push(Figure::new(what, "ms", share(&took, 0.95), "promised", PAGE_MS).wanting_at_most(1.0));
    }
    if let Some(last) = figures.pop() {
        figures.push(last.resident(sidecar.peak_mib()));
    }
    sidecar.stop().await?;
    client.execute("select pg_drop_replication_slot($1)", &[&SLOT]).await?;
    Ok(figures)
}

/// Who asks.
#[derive(Debug, Clone)]
struct Caller {
    http: Http<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Caller {
    fn of(sidecar: &Sidecar) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        Self { http, base: format!("http://{}/api/", sidecar.address()) }
    }

    async fn get(&self, path: &str) -> Result<(), BenchError> {
        self.answered(Method::GET, path, String::new(), StatusCode::OK).await
    }

    async fn make(&self, number: u32) -> Result<(), BenchError> {
        let body = format!(
            "{{\"name\":\"made-{number}\",\"url\":\"https://receiver-{number}.example.com/hooks\",\
             \"events\":[\"orders.created\"]}}"
        );
        self.answered(Method::POST, "webhooks", body, StatusCode::CREATED).await
    }

    async fn answered(
        &self,
        method: Method,
        path: &str,
        body: String,
        wanted: StatusCode,
    ) -> Result<(), BenchError> {
        let refused = |error: &dyn std::error::Error| BenchError::Api { told: error.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| refused(&error))?;
        let response = self.http.request(request).await.map_err(|error| refused(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| refused(&error))?.to_bytes();
        let told = || format!("{status}: {}", String::from_utf8_lossy(&body));
        if status == wanted { Ok(()) } else { Err(BenchError::Api { told: told() }) }
    }
}

/// Makes webhooks, a few at a time. Returns how many a second.
async fn make(caller: &Caller, webhooks: u32) -> Result<f64, BenchError> {
    let begun = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let mut makers = JoinSet::new();
    for _ in 0..MAKERS {
        let (caller, next) = (caller.clone(), Arc::clone(&next));
        makers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= webhooks {
                    return Ok::<_, BenchError>(());
                }
                caller.make(number).await?;
            }
        });
    }
    while let Some(ended) = makers.join_next().await {
        ended??;
    }
    Ok(f64::from(webhooks) / begun.elapsed().as_secs_f64())
}

/// Writes deliveries of the week that ends now, the days' partitions with them.
async fn fill(client: &Client, deliveries: u32) -> Result<(), BenchError> {
    client.batch_execute("set search_path = walhook; set synchronous_commit = off").await?;
    client.batch_execute("select ensure_partitions(current_date - 8, current_date + 1)").await?;
    let count = i64::from(deliveries);
    client.execute(FILL, &[&count]).await?;
    for statement in ["vacuum analyze deliveries", "analyze webhooks", "checkpoint"] {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// The path of a delivery in the middle.
async fn one(client: &Client) -> Result<String, BenchError> {
    let sql = "select 'webhooks/' || webhook || '/deliveries/' || id from deliveries where id > 'dlv_08' order by id limit 1";
    let row = client.query_opt(sql, &[]).await?;
    row.map(|row| row.get(0)).ok_or(BenchError::Late { what: "a delivery" })
}

/// One in a hundred failed. The ids are spread evenly over the ids that begin so, in the order of time, as ours are.
const FILL: &str = "
insert into deliveries (id, event_id, event_type, webhook, lane, status, attempts, committed_at, schema_name,
    table_name, row_key, operation, content_type, body, finished_at, fail_reason, last_attempt_at, last_took_ms,
    last_outcome, last_http_status)
select 'dlv_0' || lpad(to_hex(n * 268435455 / $1::bigint), 7, '0') || repeat('0', 20), 'evt_' || n, 'orders.created',
    case when n % 5000 = 0 then 'quiet' else 'w' || n * 7919 % 200 end,
    n, case when n % 100 = 0 then 'failed' else 'delivered' end, 1, t, 'public', 'orders', n::text, 'insert',
    'application/json', convert_to(repeat('{\"type\":\"orders.created\"}', 20), 'utf8'), t,
    case when n % 100 = 0 then 'the last attempt failed' end, t, 1, 'responded',
    case when n % 100 = 0 then 500 else 200 end
from generate_series(1, $1::bigint) n,
    lateral (select now() - interval '7 days' * (1 - n::float8 / $1::bigint) t) x";
