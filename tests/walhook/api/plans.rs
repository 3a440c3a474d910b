//! How the database answers what the API asks, where there are many rows.

use walhook::ledger::deliveries::{STATES, search_sql};

use crate::ledger::Desk;
use crate::support::beside_others;

const MANY: &str = "
insert into walhook.deliveries (id, event_id, event_type, webhook, lane, status, attempts, committed_at, schema_name,
    table_name, row_key, operation, content_type, body, finished_at, fail_reason, last_attempt_at, last_took_ms,
    last_outcome, last_http_status)
select 'dlv_' || to_char(n, 'FM000000000000'), 'evt', 'orders.created', case when n % 1000 = 0 then 'rare' else 'crm' end,
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
    let types = "text[], text, bigint, text, text, text, text, text, text, integer, integer, timestamptz, \
                 timestamptz, bigint";
    desk.database.execute(&format!("prepare search ({types}) as {}", search_sql())).await;
    let states = STATES.join(",");
    for (asked, rows) in [
        (format!("'{{{states}}}', 'e', 51, null, null, null, null, null, null, null, null, null, null, 51"), 51),
        (format!("'{{{states}}}', 'e', 10000, 'rare', null, null, null, null, null, null, null, null, null, 51"), 10),
        ("'{failed}', 'dlv_000000020000', 10000, null, null, null, null, null, null, 500, 599, null, null, 51".to_owned(), 51),
    ] {
        let plan: String = desk
            .database
            .rows(&format!("explain (analyze, timing off, costs off) execute search ({asked})"), &[])
            .await
            .iter()
            .map(|row| row.get::<_, String>(0) + "\n")
            .collect();
        assert!(plan.contains("Index Scan Backward") && plan.contains("Index Cond"), "{plan}");
        // No part of the table is read as a whole, and nothing is sorted but parts that are empty.
        for line in plan.lines().filter(|line| line.contains("Seq Scan")) {
            assert!(line.contains("rows=0") || line.contains("never executed"), "{plan}");
        }
        let top = plan.lines().next().unwrap_or_default();
        assert!(top.contains(&format!("rows={rows} ")) || top.contains(&format!("rows={rows}.00 ")), "{plan}");
    }
}
