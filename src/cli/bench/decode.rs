//! Rows a second from the log to the question who wants them, against `pg_recvlogical`.
//!
//! A publication holds a table that is loaded and one that is not; the only webhook wants the latter. So every row is
//! read, decoded as far as it must be, and matched, and none is delivered. Each round has two slots at one position,
//! made before the load: the sidecar's and a copy of it for `pg_recvlogical`, which writes to `/dev/null`. For both, time begins when the server
//! shows the slot as active, and ends when the last row has been taken.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::figures::{Figure, median};
use super::receiver::COUNTED;
use super::sidecar::Sidecar;
use super::stage::{Stage, patience, quiet};
use super::{BenchError, Sizes, io, process};

/// How often it is looked whether somebody is done.
const GLANCE: Duration = Duration::from_millis(5);
/// How often the sidecar is asked until it is nearly done: its page of metrics is no free question.
const FAR_GLANCE: Duration = Duration::from_millis(100);
/// From this share of the rows on it is nearly done.
const NEAR: f64 = 0.9;
const TAKEN: &str = "walhook_source_changes_total";
const AGAINST: &str = "`pg_recvlogical`";
/// Rows that mark the end of a load, each a transaction: one that all must have read, and one beyond it.
const MARKS: u32 = 2;

const TABLES: &str = "
create table loaded (id bigint primary key, name text, amount numeric(10, 2), at timestamptz);
create table quiet (id bigint primary key);
create publication bench for table loaded, quiet;
create publication bench_inserts with (publish = 'insert, truncate', publish_via_partition_root = true)";

/// One way to write rows.
struct Load {
    database: &'static str,
    what: &'static str,
    transactions: u32,
    rows: u32,
}

/// One reader's round.
#[derive(Debug, Clone, Copy)]
struct Read {
    rows_per_second: f64,
    cpu_per_million: f64,
    peak_mib: Option<f64>,
}

/// Both loads, one after the other.
pub(super) async fn measure(stage: &Stage, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let (transactions, rows) = sizes.large;
    let large = Load { database: "large", what: "decode and match, large transactions", transactions, rows };
    let what = "decode and match, one-row transactions";
    let small = Load { database: "small", what, transactions: sizes.small, rows: 1 };
    let mut figures = Vec::new();
    for load in [large, small] {
        figures.extend(load.measure(stage, sizes.rounds).await?);
    }
    Ok(figures)
}

impl Load {
    async fn measure(&self, stage: &Stage, rounds: u32) -> Result<Vec<Figure>, BenchError> {
        stage.cluster.create_database(self.database).await?;
        let client = stage.connect(self.database).await?;
        client.batch_execute(TABLES).await?;
        for round in 0..rounds {
            // The sidecar makes its slot and its ledger, and goes away again.
            let mut sidecar = Sidecar::start(&self.config(stage, round)).await?;
            sidecar.ready().await?;
            sidecar.stop().await?;
            let copy = "select pg_copy_logical_replication_slot($1, $2)";
            client.execute(copy, &[&self.slot(round), &self.copy(round)]).await?;
        }
        let end = self.write(&client).await?;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            theirs.push(self.by_pg_recvlogical(stage, &client, round, &end).await?);
            ours.push(self.by_walhook(stage, &client, round).await?);
        }
        for slot in (0..rounds).flat_map(|round| [self.slot(round), self.copy(round)]) {
            client.execute("select pg_drop_replication_slot($1)", &[&slot]).await?;
        }
        let of = |reads: &[Read], what: fn(&Read) -> f64| median(&reads.iter().map(what).collect::<Vec<_>>());
        let rate = |read: &Read| read.rows_per_second;
        let cpu = |read: &Read| read.cpu_per_million;
        let peak = ours.iter().filter_map(|read| read.peak_mib).reduce(f64::max);
        let rates = Figure::new(self.what, "rows/s", of(&ours, rate), AGAINST, of(&theirs, rate));
        let what = format!("{}, processor time", self.what);
        let times = Figure::new(what, "s per million rows", of(&ours, cpu), AGAINST, of(&theirs, cpu));
        Ok(vec![rates.wanting(1.0).resident(peak), times])
    }

    fn slot(&self, round: u32) -> String {
        format!("{}_{round}", self.database)
    }

    fn copy(&self, round: u32) -> String {
        format!("{}_{round}_copy", self.database)
    }

    fn config(&self, stage: &Stage, round: u32) -> String {
        format!(
            "{}publication = \"bench\"\nmanage_publication = false\n\
             [[webhooks]]\nname = \"quiet\"\nurl = \"{}\"\nevents = [\"quiet.created\"]\n",
            stage.database(self.database, &self.slot(round)),
            stage.receiver.url(COUNTED)
        )
    }

    fn total(&self) -> u32 {
        self.transactions * self.rows + MARKS
    }

    /// Writes the rows and answers with a position that all but the last one are before.
    async fn write(&self, client: &Client) -> Result<String, BenchError> {
        client.batch_execute("set synchronous_commit = off").await?;
        let Self { transactions, rows, .. } = self;
        let load = format!(
            "do $$ begin
                for t in 1..{transactions} loop
                    insert into loaded
                    select t::bigint * {rows} + n, 'customer number ' || n, n * 1.25, now()
                    from generate_series(0, {rows} - 1) n;
                    commit;
                end loop;
            end $$"
        );
        client.batch_execute(&load).await?;
        client.batch_execute("set synchronous_commit = on").await?;
        client.batch_execute("insert into loaded (id) values (-1)").await?;
        let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?;
        client.batch_execute("insert into loaded (id) values (-2)").await?;
        client.batch_execute("checkpoint").await?;
        Ok(row.get(0))
    }

    /// What all rows in this time, with processor time before and after, come to.
    fn read(&self, took: Duration, cpu: (f64, f64), peak_mib: Option<f64>) -> Read {
        let rows_per_second = f64::from(self.total()) / took.as_secs_f64();
        Read { rows_per_second, cpu_per_million: process::per_million(cpu.0, cpu.1, self.total()), peak_mib }
    }

    async fn by_pg_recvlogical(
        &self,
        stage: &Stage,
        client: &Client,
        round: u32,
        end: &str,
    ) -> Result<Read, BenchError> {
        let slot = self.copy(round);
        let cluster = &stage.cluster;
        let mut child = Command::new(cluster.binaries().program("pg_recvlogical"))
            .args(["--start", "--no-loop", "--file=/dev/null", "--option=proto_version=1"])
            .args(["--option=publication_names=bench", "--username=postgres", "--host=127.0.0.1"])
            .arg(format!("--port={}", cluster.port()))
            .arg(format!("--dbname={}", self.database))
            .arg(format!("--slot={slot}"))
            .arg(format!("--endpos={end}"))
            .env("PGPASSWORD", cluster.password())
            .stdin(Stdio::null())
            .stderr(quiet()?)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start pg_recvlogical"))?;
        let pid = child.id().unwrap_or(0);
        until_active(client, &slot).await?;
        let begun = Instant::now();
        let deadline = begun + patience(self.total());
        let mut cpu = (process::cpu_seconds(pid), 0.0);
        let status = loop {
            cpu.1 = process::cpu_seconds(pid);
            if let Some(status) = child.try_wait().map_err(io("wait for pg_recvlogical"))? {
                break status;
            }
            if Instant::now() > deadline {
                return Err(BenchError::Late { what: "pg_recvlogical" });
            }
            tokio::time::sleep(GLANCE).await;
        };
        if !status.success() {
            return Err(BenchError::Child { what: "pg_recvlogical", said: status.to_string() });
        }
        Ok(self.read(begun.elapsed(), cpu, None))
    }

    async fn by_walhook(&self, stage: &Stage, client: &Client, round: u32) -> Result<Read, BenchError> {
        let mut sidecar = Sidecar::start(&self.config(stage, round)).await?;
        until_active(client, &self.slot(round)).await?;
        let begun = Instant::now();
        let deadline = begun + patience(self.total());
        let cpu_before = sidecar.cpu_seconds();
        let total = f64::from(self.total());
        loop {
            let taken = sidecar.number(TAKEN).await.unwrap_or_default();
            if taken >= total {
                break;
            }
            sidecar.must_live()?;
            if Instant::now() > deadline {
                return Err(BenchError::Late { what: "the sidecar's reading" });
            }
            tokio::time::sleep(if taken < total * NEAR { FAR_GLANCE } else { GLANCE }).await;
        }
        let took = begun.elapsed();
        let read = self.read(took, (cpu_before, sidecar.cpu_seconds()), sidecar.peak_mib());
        sidecar.stop().await?;
        Ok(read)
    }
}

/// Waits until somebody reads from the slot.
async fn until_active(client: &Client, slot: &str) -> Result<(), BenchError> {
    let sql = client.prepare("select active from pg_replication_slots where slot_name = $1").await?;
    for _ in 0..30_000 {
        if client.query_one(&sql, &[&slot]).await?.get::<_, bool>(0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(BenchError::Late { what: "the start of a reader" })
}
