//! No value, type or statement that Postgres accepts stops the stream.
//!
//! The scripts in `statements/` run in order, on a server of the test's own, under a publication of everything that the
//! operator made, with a webhook that wants everything. Beside the sidecar's slot there is one whose changes are counted
//! with SQL, from the bytes that `pgoutput` itself makes of the same log: what was received must be as many, and the
//! last statement must be among it. The ledger is elsewhere, so every change is one event.
//!
//! A script is blocks between empty lines, each sent as one query. `-- fails` before a block: the server must refuse it;
//! `-- since 15`: for servers from that version on; `-- needs hstore`: where that extension is to be had. Statements of
//! one block are one transaction, as always, except where they say `begin` and `commit` themselves.

use std::fs;
use std::path::Path;

use walhook::cluster::{Cluster, Options};

use crate::support::{Database, PATIENCE, Receiver, Run, Sidecar, beside_others, connect};

/// Changes that `pgoutput` makes of the log: rows, and the tables of each TRUNCATE.
const COUNTED: &str = "
select coalesce(sum(case chr(get_byte(data, 0))
    when 'I' then 1 when 'U' then 1 when 'D' then 1
    when 'T' then ('x' || encode(substr(data, 2, 4), 'hex'))::bit(32)::int
    else 0 end), 0)::int8
from pg_logical_slot_peek_binary_changes('counter', null, null,
    'proto_version', '1', 'publication_names', 'everything')";

/// What is read of a body. Not all of it: a json value may hold a lone surrogate, which is JSON but no Rust string.
#[derive(serde::Deserialize)]
struct Head {
    #[serde(rename = "type")]
    event_type: String,
}

/// What a block is for.
#[derive(Debug, Default)]
struct Block {
    text: String,
    fails: bool,
    since: i64,
    needs: Option<String>,
}

fn blocks(script: &str) -> Vec<Block> {
    let mut all = Vec::new();
    for part in script.split("\n\n") {
        let mut block = Block::default();
        for line in part.lines() {
            match line.strip_prefix("-- ") {
                None => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                Some("fails") => block.fails = true,
                Some(said) => {
                    if let Some(version) = said.strip_prefix("since ") {
                        block.since = version.parse().expect("a version");
                    } else if let Some(extension) = said.strip_prefix("needs ") {
                        block.needs = Some(extension.to_owned());
                    }
                }
            }
        }
        if !block.text.trim().is_empty() {
            all.push(block);
        }
    }
    all
}

/// Runs every script; gives how many blocks were accepted, and how many refused as they should be.
async fn run_scripts(database: &Database) -> (usize, usize) {
    let (mut accepted, mut refused) = (0, 0);
    let version = database.version().await / 10_000;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/walhook/statements");
    let mut scripts: Vec<_> =
        fs::read_dir(directory).expect("the scripts").map(|entry| entry.expect("an entry").path()).collect();
    scripts.sort();
    for script in scripts {
        let client = connect(&database.url).await.expect("a connection");
        for block in blocks(&fs::read_to_string(&script).expect("a script")) {
            if version < block.since {
                continue;
            }
            if let Some(extension) = &block.needs {
                let available = "select count(*) from pg_available_extensions where name = $1";
                let row = client.query_one(available, &[extension]).await.expect("an answer");
                if row.get::<_, i64>(0) == 0 {
                    continue;
                }
            }
            let ran = client.batch_execute(&block.text).await;
            assert_eq!(ran.is_err(), block.fails, "{}: {}\n{ran:?}", script.display(), block.text);
            if ran.is_err() {
                client.batch_execute("rollback").await.expect("a rollback");
                refused += 1;
            } else {
                accepted += 1;
            }
        }
    }
    (accepted, refused)
}

#[tokio::test]
async fn no_value_type_or_statement_that_postgres_accepts_stops_the_stream() {
    let _turn = beside_others().await;
    let settings = vec![("max_prepared_transactions".to_owned(), "10".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (database, ledger, receiver) =
        (Database::on(&cluster).await, Database::new().await, Receiver::start().await);
    let generated =
        if database.version().await >= 180_000 { ", publish_generated_columns = stored" } else { "" };
    database
        .execute(&format!(
            "create publication everything for all tables with (publish_via_partition_root = true{generated})"
        ))
        .await;
    database.execute("select pg_create_logical_replication_slot('counter', 'pgoutput')").await;
    // Warnings are of tables without an identity, whose updates are not to be had.
    let mut run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"*\"]\nordering = \"none\"")
        .expecting("without a replica identity");
    for (name, value) in [
        ("WALHOOK_LEDGER__URL", &*ledger.url),
        ("WALHOOK_DATABASE__PUBLICATION", "everything"),
        ("WALHOOK_DATABASE__MANAGE_PUBLICATION", "false"),
    ] {
        run.environment.push((name.to_owned(), value.to_owned()));
    }
    let mut sidecar = Sidecar::start(&database, run).await;
    let (accepted, refused) = run_scripts(&database).await;
    assert!(accepted > 100 && refused >= 8, "{accepted} accepted, {refused} refused");
    let counted = usize::try_from(database.number(COUNTED).await).expect("a count");
    let what = format!("all of {counted} changes");
    let all = |requests: &[crate::support::Request]| requests.len() >= counted;
    let requests = receiver.wait("/crm", &what, PATIENCE * 2, all).await;
    assert_eq!(requests.len(), counted);
    let of = |request: &crate::support::Request| {
        serde_json::from_slice::<Head>(&request.body).expect("a JSON body").event_type
    };
    let types: Vec<String> = requests.iter().map(of).collect();
    assert!(types.iter().any(|of| of == "the_end.created"), "the last statement");
    for of in [".created", ".updated", ".deleted", ".truncated"] {
        assert!(types.iter().any(|made| made.ends_with(of)), "{of}");
    }
    let not_delivered = "select count(*) from walhook.deliveries where status <> 'delivered' and operation";
    assert_eq!(ledger.number(&format!("{not_delivered} <> 'message'")).await, 0, "what is not delivered");
    let one = "one message is no JSON, and a dead letter";
    assert_eq!(
        ledger.number(&format!("{not_delivered} = 'message' and status = 'failed'")).await,
        1,
        "{one}"
    );
    println!("{accepted} blocks accepted, {refused} refused, {counted} changes");
    sidecar.stop().await;
}
