//! Rights that are missing or taken away: nothing half-made stays behind, and nothing is lost.

use crate::support::{
    Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, connect, eventually, refused,
    run_once,
};

const KEYS: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"200ms\", \"200ms\"], jitter = 0 }";

/// A database whose tables belong to a role that may do what walhook needs, and the database's connection as that role.
pub async fn restricted() -> (Database, String) {
    let mut database = Database::with_orders().await;
    let role = format!("least_{}", database.name);
    let grants = format!(
        "create role {role} login replication password 'w'; grant create, connect on database {0} to {role}; \
         revoke connect on database {0} from public; alter table orders owner to {role}",
        database.name
    );
    database.execute(&grants).await;
    let (_, tail) = database.url.split_once('@').expect("a password");
    database.url = format!("postgres://{role}:w@{tail}");
    (database, role)
}

async fn insert(database: &Database, id: i64) {
    database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
}

/// Ends every session of the role, so that it must come in again.
async fn throw_out(database: &Database, role: &str) {
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1";
    database.rows(sql, &[&role]).await;
}

async fn arrived(receiver: &Receiver, ids: &[i64]) {
    let all = |requests: &[Request]| {
        ids.iter().all(|id| requests.iter().any(|request| request.accepted && request.column("id") == *id))
    };
    receiver.wait("/crm", "every row", PATIENCE, all).await;
}

#[tokio::test]
async fn a_right_to_come_in_that_is_taken_away_ends_it_with_the_remedy_and_given_back_nothing_is_lost() {
    let _turn = beside_others().await;
    let (database, role) = restricted().await;
    let receiver = Receiver::start().await;
    let expected = Run::default().webhook("crm", &receiver.url("/crm"), KEYS).expecting("\"level\":\"WARN\"");
    let expected = expected.expecting("\"level\":\"ERROR\"").expecting("\"text\"");
    let mut sidecar = Sidecar::start(&database, expected).await;
    insert(&database, 0).await;
    arrived(&receiver, &[0]).await;
    let mut ids = vec![0];
    for (number, (taken, given, hint)) in [
        ("alter role {role} noreplication", "alter role {role} replication", "REPLICATION"),
        ("alter role {role} nologin", "alter role {role} login", "LOGIN"),
        (
            "revoke connect on database {db} from {role}",
            "grant connect on database {db} to {role}",
            "GRANT CONNECT",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let sql = |text: &str| text.replace("{role}", &role).replace("{db}", &database.name);
        database.execute(&sql(taken)).await;
        let id = i64::try_from(number).expect("a small number") + 1;
        insert(&database, id).await;
        throw_out(&database, &role).await;
        assert_eq!(sidecar.ended().await.code(), Some(1), "{taken}: {}", sidecar.log_text());
        let said = sidecar.lines().iter().rev().map(ToString::to_string).find(|line| line.contains("hint"));
        assert!(said.is_some_and(|line| line.contains(hint)), "{taken}: {}", sidecar.log_text());
        insert(&database, id + 10).await;
        database.execute(&sql(given)).await;
        ids.extend([id, id + 10]);
        sidecar.spawn();
        sidecar.ready().await;
        arrived(&receiver, &ids).await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_right_that_was_only_needed_at_the_start_can_be_taken_away_while_it_runs() {
    let _turn = beside_others().await;
    let (database, role) = restricted().await;
    let receiver = Receiver::start().await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders*\"]");
    let mut sidecar = Sidecar::start(&database, run).await;
    database
        .execute(&format!(
            "revoke create on database {0} from {role}; alter table orders owner to current_user; \
             create table orders_more (id int8 primary key); alter table orders_more owner to {role}",
            database.name
        ))
        .await;
    insert(&database, 1).await;
    arrived(&receiver, &[1]).await;
    let more = "select count(*) from pg_publication_tables where tablename = 'orders_more'";
    eventually("the new table", PATIENCE, async || database.number(more).await == 1).await;
    sidecar.stop().await;
    database.execute("insert into orders_more values (2)").await;
    sidecar.spawn();
    sidecar.ready().await;
    insert(&database, 3).await;
    arrived(&receiver, &[1, 2, 3]).await;
    sidecar.stop().await;
}

/// Why a first start is refused: keys of `[database]`, events, what is done before, what is said, what is done after.
const REFUSALS: [[&str; 6]; 9] = [
    ["", "\"orders.*\", \"theirs.*\"", "", "grant \"postgres\" to", "", "a table of another's"],
    [
        "manage_publication = false",
        "\"orders.*\"",
        "",
        "create publication",
        "",
        "publications that its owner must make",
    ],
    ["", "\"log.*\"", "", "REPLICA IDENTITY FULL", "", "a table without a key"],
    ["", "\"ordres.created\"", "", "orders.created", "", "a pattern that nothing matches"],
    [
        "",
        "\"orders.*\"",
        "revoke create on database {db} from {role}",
        "CREATE ON DATABASE",
        "grant create on database {db} to {role}",
        "no right to make a schema",
    ],
    [
        "",
        "\"orders.*\"",
        "alter role {role} noreplication",
        "REPLICATION",
        "alter role {role} replication",
        "no right to replicate",
    ],
    [
        "",
        "\"orders.*\"",
        "alter role {role} noreplication; create role rds_replication; grant rds_replication to {role}",
        "REPLICATION",
        "drop role rds_replication; alter role {role} replication",
        "a replication login that is refused",
    ],
    [
        "",
        "\"orders.*\"",
        "revoke execute on {slots} from public",
        "could not create the replication slot",
        "grant execute on {slots} to public",
        "a slot that cannot be made",
    ],
    [
        "",
        "\"orders.*\"",
        "revoke usage on language plpgsql from public",
        "cannot be brought up to date",
        "grant usage on language plpgsql to public",
        "a ledger that cannot be made",
    ],
];

#[tokio::test]
async fn a_first_start_that_is_refused_leaves_no_schema_no_publication_and_no_slot_behind() {
    let _turn = beside_others().await;
    let (database, role) = restricted().await;
    let receiver = Receiver::start().await;
    let file = |keys: &str, events: &str| {
        let webhook = Run::default().webhook("crm", &receiver.url("/crm"), &format!("events = [{events}]"));
        format!(
            "[database]\nurl = \"{}\"\nslot = \"{}\"\n{keys}\n[server]\nlisten = \"127.0.0.1:0\"\n{}",
            database.url, database.name, webhook.toml
        )
    };
    database.execute("create table theirs (id int8 primary key); create table log (line text)").await;
    let left = "select count(*) from (
        select nspname from pg_namespace where nspname = 'walhook' union all select pubname from pg_publication union all
        select slot_name from pg_replication_slots where slot_name = current_database()) left_behind";
    let slots = "function pg_create_logical_replication_slot(name, name, bool, bool";
    let slots = match database.version().await {
        170_000.. => format!("{slots}, bool)"),
        _ => format!("{slots})"),
    };
    for [keys, events, before, says, after, what] in REFUSALS {
        let sql = |text: &str| {
            text.replace("{role}", &role).replace("{db}", &database.name).replace("{slots}", &slots)
        };
        database.execute(&sql(before)).await;
        let (code, said) = refused(&file(keys, events)).await;
        database.execute(&sql(after)).await;
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(says), "{what}: {said}");
        assert_eq!(database.number(left).await, 0, "{what}: {said}");
    }
    let mut sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), KEYS)).await;
    assert_eq!(database.number(left).await, 4);
    sidecar.stop().await;
}

#[tokio::test]
async fn rows_that_the_role_may_not_read_are_not_backfilled_and_the_remedy_is_told() {
    let _turn = beside_others().await;
    let (database, role) = restricted().await;
    let receiver = Receiver::start().await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), KEYS);
    let mut sidecar = Sidecar::start(&database, run.expecting("a backfill cannot go on")).await;
    insert(&database, 1).await;
    arrived(&receiver, &[1]).await;
    let file = sidecar.file();
    let path = file.to_str().expect("a plain path");
    let backfill = ["backfill", "crm", "--table", "orders", "--config", path];
    let security = format!(
        "alter table orders owner to current_user; grant select on orders to {role}; \
         create policy none on orders using (id > 5); alter table orders enable row level security"
    );
    for (taken, given, hint) in [
        (
            format!("revoke select on orders from {role}"),
            format!("grant select on orders to {role}"),
            "GRANT SELECT",
        ),
        (security, format!("alter role {role} bypassrls"), "BYPASSRLS"),
    ] {
        database.execute(&taken).await;
        let output = run_once(&backfill, &[]).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{taken}: {said}");
        assert!(said.contains(hint), "{taken}: {said}");
        let snapshots = receiver.requests("/crm").len();
        database.execute(&given).await;
        let output = run_once(&backfill, &[]).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(0), "{given}: {said}");
        receiver.expect("/crm", snapshots + 1).await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_live_webhook_whose_table_nobody_may_publish_keeps_no_start_from_beginning() {
    let _turn = beside_others().await;
    let (database, _) = restricted().await;
    let receiver = Receiver::start().await;
    let problem = "the publication could not be looked after";
    let mut run = Run::with("[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n")
        .webhook("crm", &receiver.url("/crm"), KEYS)
        .expecting(problem);
    run.environment.push(("WALHOOK_DATABASE__MANAGE_PUBLICATION".to_owned(), "false".to_owned()));
    database
        .execute(
            "create publication walhook for table orders with (publish_via_partition_root); create table more (id int8 primary key);
             create publication walhook_inserts with (publish = 'insert, truncate', publish_via_partition_root)",
        )
        .await;
    let mut sidecar = Sidecar::start(&database, run).await;
    let stored = format!(
        "insert into walhook.webhooks (name, url, secret, events) values ('live', '{}', '{SECRET}', '{{more.created}}')",
        receiver.url("/live")
    );
    connect(&database.url).await.expect("a connection").batch_execute(&stored).await.expect("a webhook");
    sidecar.logged(problem).await;
    sidecar.stop().await;
    sidecar.spawn();
    sidecar.ready().await;
    insert(&database, 1).await;
    arrived(&receiver, &[1]).await;
    database.execute("alter publication walhook add table more; insert into more values (7)").await;
    receiver.expect("/live", 1).await;
    sidecar.stop().await;
}
