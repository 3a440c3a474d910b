//! The database that PostgreSQL's own regression scripts make, streamed to the end.
//!
//! `.config/regress.sh` fetches the scripts from the system's source package and `./test` names their directory in
//! `WALHOOK_REGRESS`; without it this test is not run. The scripts run with `psql`, one after the other, in the order of
//! their schedule, under a publication of everything; what the server refuses is theirs to refuse, and their output is
//! nobody's concern here. An event trigger gives every new table the full identity, so that updates are published too.
//!
//! As in [`super::statements`], a second slot tells from `pgoutput`'s own bytes how many changes there were, and as many
//! deliveries must have come; a second webhook has a condition that looks at each value of each row. Tables that hold the
//! same row ten thousand times over are left to that one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use walhook::cluster::{Cluster, Options};

use crate::support::{Database, Receiver, Run, Sidecar, alone, connect};

/// Tables of bulk: half of all rows, and few values.
const BULK: [&str; 11] = [
    "agg_data_20k",
    "bmscantest",
    "delete_test_table",
    "gin_test_tbl",
    "gist_point_tbl",
    "hash_split_heap",
    "mcv_lists",
    "pagg_tab_ml",
    "pagg_tab_para",
    "parallel_vacuum_table",
    "spgist_point_tbl",
];

/// How long one script may take.
const SCRIPT: Duration = Duration::from_secs(180);
/// How long all that is left may take after the last.
const REST: Duration = Duration::from_secs(600);

/// Every new table with its full identity; where that is not to be had, without.
const IDENTITY: &str = "
create function identify() returns event_trigger language plpgsql as $$
declare made record;
begin
    for made in select * from pg_event_trigger_ddl_commands()
        where object_type = 'table' and command_tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    loop
        begin
            execute format('alter table %s replica identity full', made.object_identity);
        exception when others then null;
        end;
    end loop;
end $$;
create event trigger identify on ddl_command_end execute function identify()";

fn scripts() -> PathBuf {
    PathBuf::from(std::env::var_os("WALHOOK_REGRESS").expect("WALHOOK_REGRESS, from .config/regress.sh"))
}

/// The schedule's scripts in their order.
fn schedule(directory: &Path) -> Vec<String> {
    let schedule = fs::read_to_string(directory.join("parallel_schedule")).expect("the schedule");
    let named = schedule.lines().filter_map(|line| line.strip_prefix("test:"));
    named.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Runs all scripts; gives how many ran to their end, and how many statements the server refused meanwhile.
async fn run_scripts(cluster: &Cluster, database: &Database, directory: &Path) -> (usize, usize) {
    let (mut ended, mut refused) = (0, 0);
    let results = tempfile::tempdir().expect("a directory");
    for name in schedule(directory) {
        let script = directory.join("sql").join(format!("{name}.sql"));
        let Ok(text) = fs::File::open(&script) else { continue };
        let mut psql = tokio::process::Command::new(cluster.binaries().program("psql"));
        psql.args(["-X", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", &database.url])
            .envs([("PGTZ", "PST8PDT"), ("PGDATESTYLE", "Postgres, MDY"), ("PG_DLSUFFIX", ".so")])
            .env("PG_ABS_SRCDIR", directory)
            .env("PG_ABS_BUILDDIR", results.path())
            .env("PG_LIBDIR", results.path())
            .stdin(text)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = tokio::time::timeout(SCRIPT, psql.spawn().expect("psql").wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{name} takes longer than {SCRIPT:?}")).expect("psql");
        refused +=
            String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("ERROR:")).count();
        ended += usize::from(output.status.success());
    }
    (ended, refused)
}

/// What `pgoutput` makes of the log: all changes, and those of no table of bulk.
async fn count(database: &Database) -> (u64, u64) {
    let client = connect(&database.url).await.expect("a connection");
    let query = "select data from pg_logical_slot_peek_binary_changes('counter', null, null,
        'proto_version', '1', 'publication_names', 'everything')
        where chr(get_byte(data, 0)) in ('R', 'I', 'U', 'D', 'T')";
    let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
    let mut rows = pin!(client.query_raw(query, none).await.expect("the changes"));
    let mut is_bulk = HashMap::<Vec<u8>, bool>::new();
    let (mut all, mut sent) = (0, 0);
    while let Some(row) = rows.try_next().await.expect("a change") {
        let data: Vec<u8> = row.get(0);
        let id = data[1..5].to_vec();
        match data[0] {
            b'R' => {
                let name = data[5..].split(|byte| *byte == 0).nth(1).expect("a name");
                is_bulk.insert(id, BULK.iter().any(|bulk| bulk.as_bytes() == name));
            }
            b'T' => {
                for id in data[6..].chunks_exact(4) {
                    all += 1;
                    sent += u64::from(!is_bulk[id]);
                }
            }
            _ => {
                all += 1;
                sent += u64::from(!is_bulk[&id]);
            }
        }
    }
    (all, sent)
}

#[tokio::test]
#[ignore = "needs PostgreSQL's regression scripts, see .config/regress.sh"]
async fn the_servers_own_regression_database_streams_to_the_end() {
    let _turn = alone().await;
    let directory = scripts();
    let settings = vec![("max_prepared_transactions".to_owned(), "10".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (database, ledger, receiver) =
        (Database::on(&cluster).await, Database::new().await, Receiver::start().await);
    let everything = "create publication everything for all tables with (publish_via_partition_root = true)";
    database.execute(everything).await;
    database.execute("select pg_create_logical_replication_slot('counter', 'pgoutput')").await;
    database.execute(IDENTITY).await;
    receiver.only_count();
    let bulk = BULK.map(|table| format!("'{table}'")).join(", ");
    let sent = format!(
        "events = [\"*\"]\nordering = \"none\"\nconcurrency = 64\nfilter = \"!(table in [{bulk}])\"\n\
         format = \"raw\""
    );
    let looked_at = "events = [\"*\"]\nfilter = \"record == {'no such column': 'in any table'}\"";
    let mut run = Run::default()
        .webhook("sent", &receiver.url("/"), &sent)
        .webhook("looked-at", &receiver.url("/never"), looked_at)
        .expecting("without a replica identity");
    for (name, value) in [
        ("WALHOOK_LEDGER__URL", &*ledger.url),
        ("WALHOOK_LEDGER__STORE_BODIES", "none"),
        ("WALHOOK_DELIVERY__MAX_BODY", "16MiB"),
        ("WALHOOK_DATABASE__PUBLICATION", "everything"),
        ("WALHOOK_DATABASE__MANAGE_PUBLICATION", "false"),
    ] {
        run.environment.push((name.to_owned(), value.to_owned()));
    }
    let mut sidecar = Sidecar::start(&database, run).await;
    let (ended, refused) = run_scripts(&cluster, &database, &directory).await;
    assert!(ended > 150, "only {ended} scripts ran to their end");
    database.execute("create table the_end (id int primary key)").await;
    database.execute("insert into the_end values (1)").await;
    let (all, sent) = count(&database).await;
    println!("{ended} scripts, {refused} statements refused, {all} changes, {sent} of them to be sent");
    assert!(all > 500_000 && sent > 100_000, "{all} changes, {sent} to be sent");
    receiver.expect_count(sent, REST).await;
    sidecar.stop().await;
    assert_eq!(receiver.count(), sent, "more came than there were");
    let open = "select count(*) from walhook.deliveries where status <> 'delivered'";
    assert_eq!(ledger.number(open).await, 0, "what is not delivered");
}
