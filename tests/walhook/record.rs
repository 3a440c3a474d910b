//! Records streams of a real server, as seeds for the fuzzers.
//!
//! `tests/fuzz/seeds/stream/types` has a row for every value of the matrix, alone and in an array;
//! `…/changes` the beginning of what the random statements of the rebuilding test make. Payloads stand one after the
//! other, each behind its length.

use std::path::Path;

use crate::rebuild::generate::Generator;
use crate::rebuild::{TABLES, create_tables};
use crate::support::{Database, beside_others};
use crate::types::{CUSTOM, PINNED, create_extensions, subjects};

/// Larger payloads are left out: they only repeat a letter.
const PAYLOAD_BYTES: usize = 1500;

async fn begin(database: &Database) {
    database.execute("create publication recorded for all tables").await;
    let slot = format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", database.name);
    database.rows(&slot, &[]).await;
}

async fn end(database: &Database, name: &str) {
    database.execute(PINNED).await;
    let query = format!(
        "select data from pg_logical_slot_get_binary_changes('{}', null, null, 'proto_version', '1',
         'publication_names', 'recorded', 'messages', 'true')",
        database.name
    );
    let mut recording = Vec::new();
    for row in database.rows(&query, &[]).await {
        let payload: &[u8] = row.get(0);
        if payload.len() <= PAYLOAD_BYTES {
            recording.extend(u32::try_from(payload.len()).expect("small").to_be_bytes());
            recording.extend_from_slice(payload);
        }
    }
    database.rows(&format!("select pg_drop_replication_slot('{}')", database.name), &[]).await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/stream");
    std::fs::create_dir_all(&directory).expect("a directory");
    println!("{name}: {} bytes", recording.len());
    std::fs::write(directory.join(name), recording).expect("a file");
}

#[tokio::test]
#[ignore = "writes files of the tree: the seeds of the fuzzers"]
async fn record_the_seeds_of_the_fuzzers() {
    let _turn = beside_others().await;
    let database = Database::new().await;
    let extensions = create_extensions(&database).await;
    database.execute(CUSTOM).await;
    database.execute("create schema types").await;
    begin(&database).await;
    for (number, subject) in subjects().iter().enumerate() {
        if subject.extension.as_ref().is_some_and(|name| !extensions.contains(name)) {
            continue;
        }
        let name = &subject.name;
        let plain = [
            "pg_node_tree",
            "pg_ndistinct",
            "pg_dependencies",
            "pg_mcv_list",
            "int2vector",
            "oidvector",
            "tags",
        ];
        let (array, value) = if plain.contains(&&**name) || name.ends_with("[]") {
            (String::new(), "x")
        } else {
            (format!(", a {name}[]"), "x, array[x, null]")
        };
        database
            .execute(&format!("create table types.m{number} (id int primary key, v {name}{array})"))
            .await;
        let values: Vec<String> = subject
            .values
            .iter()
            .enumerate()
            .map(|(id, (sql, _))| format!("select {id}, {value} from (select ({sql})::{name} as x) s"))
            .collect();
        database.execute(&format!("insert into types.m{number} {}", values.join(" union all "))).await;
    }
    end(&database, "types").await;

    let database = Database::new().await;
    create_tables(&database).await;
    begin(&database).await;
    let mut generator = Generator::new(fastrand::Rng::with_seed(1), &TABLES);
    for _ in 0..60 {
        database.execute(&generator.transaction()).await;
    }
    database.rows("select pg_logical_emit_message(false, 'walhook', 'outside')", &[]).await;
    database.rows("select pg_logical_emit_message(true, 'walhook', 'inside')", &[]).await;
    end(&database, "changes").await;
}
