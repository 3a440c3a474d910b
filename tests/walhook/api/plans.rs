//! How the database answers what the API asks, where there are many rows.

use walhook::ledger::LedgerError;
use walhook::ledger::audit::{Sought, page_sql};
use walhook::ledger::deliveries::{Look, STATES, Search, plan_for, search, search_sql};
use walhook::ledger::pool::Pool;
use walhook::ledger::retries::to_do_sql;

use crate::ledger::Desk;
use crate::support::beside_others;

const MANY: &str = "
insert into walhook.deliveries (id, event_id, event_type, webhook, lane, status, attempts, committed_at, schema_name,
    table_name, row_key, operation, content_type, body, finished_at, fail_reason, last_attempt_at, last_took_ms,
    last_outcome, last_http_status)
select 'dlv_' || to_char(n, 'FM000000000000'), 'evt', 'orders.created', case when n % 1000 = 0 then 'rare' when n % 1000 = 1 then 'acme~crm' else 'crm' end,
    n, case when n % 10 = 0 then 'failed' else 'delivered' end, 1, now(), 'public', 'orders', n::text, 'insert',
    'application/json', '{}', now(), case when n % 10 = 0 then 'gave up' end, now(), 1, 'responded',
    case when n % 10 = 0 then 500 else 200 end
from generate_series(1, 40000) n";

#[tokio::test]
async fn a_search_goes_by_an_index_and_looks_through_so_many_rows() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    desk.database.execute(MANY).await;
    desk.database.execute("analyze").await;
    let looked = "text[], text, bigint, timestamptz, text";
    let types = format!("{looked}, text, text, text, text, text, integer, integer, timestamptz, bigint");
    let searches = [
        ("search", Look::All, false),
        ("search_of", Look::OfWebhook, false),
        ("search_of_since", Look::OfWebhook, true),
    ];
    for (name, look, has_since) in searches {
        desk.database.execute(&format!("prepare {name} ({types}) as {}", search_sql(look, has_since))).await;
    }
    let of_tenant = search_sql(Look::OfTenant, false);
    desk.database.execute(&format!("prepare tenants ({types}, text) as {of_tenant}")).await;
    let states = STATES.join(",");
    let rest = |status: &str| format!("null, null, null, null, null, {status}, null, 51");
    for (asked, rows) in [
        (format!("search('{{{states}}}', 'e', 10000, null, null, {})", rest("null, null")), 51),
        (format!("search('{{cancelled}}', 'e', 10000, null, null, {})", rest("null, null")), 0),
        (format!("search_of('{{{states}}}', 'e', 10000, null, 'rare', {})", rest("null, null")), 40),
        (
            format!(
                "search_of_since('{{held,delivered}}', 'e', 10000, 'yesterday', 'crm', {})",
                rest("null, null")
            ),
            51,
        ),
        (
            format!(
                "tenants('{{{states}}}', 'e', 11000, null, 'dlv_000000030001', {}, 'acme')",
                rest("null, null")
            ),
            10,
        ),
        (format!("search('{{failed}}', 'dlv_000000020000', 10000, null, null, {})", rest("500, 599")), 51),
    ] {
        let mode = if asked.starts_with("search_of") { "custom" } else { "generic" };
        desk.database.execute(&format!("set plan_cache_mode = force_{mode}_plan")).await;
        let plan: String = desk
            .database
            .rows(&format!("explain (analyze, timing off, costs off) execute {asked}"), &[])
            .await
            .iter()
            .map(|row| row.get::<_, String>(0) + "\n")
            .collect();
        assert!(plan.contains("Index Scan Backward") && plan.contains("Index Cond"), "{asked}\n{plan}");
        // No part of the table is read as a whole, and nothing is sorted but parts that are empty.
        for line in plan.lines().filter(|line| line.contains("Seq Scan")) {
            let is_empty = line.contains("rows=0") || line.contains("never executed");
            assert!(is_empty, "{asked}\n{plan}");
        }
        // Of a webhook, nothing is looked at that is another's.
        if asked.contains("'rare'") {
            assert!(!plan.contains("Rows Removed by Filter"), "{asked}\n{plan}");
        }
        let top = plan.lines().next().unwrap_or_default();
        let found = [format!("rows={rows} "), format!("rows={rows}.00 ")];
        assert!(found.iter().any(|found| top.contains(found)), "{asked}\n{plan}");
    }
}

#[tokio::test]
async fn the_audit_of_one_object_and_the_retries_to_do_are_found_by_an_index() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    desk.database
        .execute(
            "insert into walhook.audit (actor_kind, actor, action, object)
             select 'command', 'ops', 'test', 'object ' || n % 1000 from generate_series(1, 40000) n;
             insert into walhook.retries (slot, webhook, ended, status, finished_at)
             select 'walhook', 'crm', '{failed}', 'done', now() from generate_series(1, 20000);
             insert into walhook.retries (slot, webhook, ended) values ('walhook', 'crm', '{failed}');
             analyze",
        )
        .await;
    let sought = Sought { object: Some("object 7".to_owned()), ..Sought::default() };
    let types = "bigint, bigint, text, text, text, text, timestamptz, timestamptz";
    desk.database.execute(&format!("prepare audit_of ({types}) as {}", page_sql(&sought))).await;
    desk.database.execute(&format!("prepare audit_all ({types}) as {}", page_sql(&Sought::default()))).await;
    desk.database.execute(&format!("prepare to_do (text, bigint) as {}", to_do_sql())).await;
    let most = i64::MAX;
    for (asked, index) in [
        (format!("audit_of({most}, 51, 'object 7', null, null, null, null, null)"), "audit_object"),
        (format!("audit_all({most}, 51, null, null, null, null, null, null)"), "audit_pkey"),
        ("to_do('walhook', 100)".to_owned(), "retries_open"),
    ] {
        let explained = desk.database.rows(&format!("explain (costs off) execute {asked}"), &[]).await;
        let plan: String = explained.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{asked}\n{plan}");
    }
}

/// One search over a session of the pool.
async fn searched(pool: &Pool, of: &Search) -> Result<usize, LedgerError> {
    let mut session = pool.session().await?;
    let prepared = session.prepared();
    let transaction = session.transaction().await.expect("a transaction");
    plan_for(&transaction, of).await?;
    let page = search(&prepared.on(&transaction), of, None, 50).await?;
    transaction.commit().await.expect("an end");
    Ok(page.found.len())
}

#[tokio::test]
async fn a_search_is_prepared_once_for_as_long_as_its_session_lives_and_planned_once_but_for_a_webhooks() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    desk.database.execute(MANY).await;
    let pool = Pool::new(desk.ledger.clone());
    let of_one = Search { webhook: Some("rare".to_owned()), ..Search::default() };
    for _ in 0..7 {
        assert_eq!(searched(&pool, &Search::default()).await.expect("a page"), 50);
        assert_eq!(searched(&pool, &of_one).await.expect("a page"), 40);
    }
    let session = pool.session().await.expect("a session");
    let kept =
        "select count(*), sum(generic_plans)::int8, sum(custom_plans)::int8 from pg_prepared_statements
                where statement like '%deliveries_open%' and statement not like '%pg_prepared_statements%'";
    let row = session.query_one(kept, &[]).await.expect("a row");
    let told: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    // Two statements each, where the page that is full has no need of the second; of a webhook, planned for that one.
    assert_eq!(told, (3, 7, 14));
    // What the server does not know any more is prepared anew, after one failure each.
    session.batch_execute("deallocate all").await.expect("nothing prepared");
    drop(session);
    let mut failures = 0;
    while searched(&pool, &of_one).await.is_err() {
        failures += 1;
        assert!(failures < 5, "it does not recover");
    }
    assert!(failures > 0, "nothing was kept");
}
