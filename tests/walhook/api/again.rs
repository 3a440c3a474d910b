//! Sending again: what could not be rendered gets a body after all, and nobody sends what somebody else has just sent.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ADMIN, Client, OPEN, served_by};
use crate::support::{
    Answer as Reply, Database, PATIENCE, Receiver, Run, beside_others, eventually, run_once,
};

fn count(webhook: &str, status: &str) -> String {
    format!("select count(*) from walhook.deliveries where webhook = '{webhook}' and status = '{status}'")
}

/// Makes what was sent again a while ago.
const A_MINUTE_LATER: &str =
    "update walhook.deliveries set sent_again_at = sent_again_at - interval '1 minute'";

/// Makes it this moment, however long the machine has taken since.
const JUST_NOW: &str = "update walhook.deliveries set sent_again_at = now() where sent_again_at is not null";

async fn id_of(database: &Database, webhook: &str) -> String {
    database.text(&format!("select min(id) from walhook.deliveries where webhook = '{webhook}'")).await
}

const TEMPLATE: &str = "[templates.chat]\ncontent_type = \"application/json\"\nbody = '''";

#[tokio::test]
async fn i4_what_could_not_be_rendered_is_rendered_anew_when_it_is_sent_again_and_never_sent_empty() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    // The note stands without quotes: no JSON.
    let broken = format!("{TEMPLATE}{{\"note\": {{{{data.record.note}}}} }}'''\n");
    let mended = format!("{TEMPLATE}{{\"note\": {{{{json data.record.note}}}} }}'''\n");
    let rest = format!(
        "[tables.orders]\nmask = {{ status = \"redact\" }}\n[[events]]\ntype = \"order.packed\"\non = [\"message\"]\n\
         [[webhooks]]\nname = \"chat\"\nurl = \"{}\"\nevents = [\"orders.created\"]\ntemplate = \"chat\"\n\
         [[webhooks]]\nname = \"told\"\nurl = \"{}\"\nevents = [\"order.packed\"]\n",
        receiver.url("/chat"),
        receiver.url("/told"),
    );
    let run = Run::with(format!("{rest}{broken}"));
    let (sidecar, operator) = served_by(&database, run).await;
    database.execute("insert into orders values (1, 'secret', 1, 'two words')").await;
    database.execute("select pg_logical_emit_message(true, 'walhook:order.packed', 'no JSON')").await;
    eventually("two dead letters", PATIENCE, async || {
        database.number(&count("chat", "failed")).await + database.number(&count("told", "failed")).await == 2
    })
    .await;
    let kept = "select convert_from(unrendered, 'UTF8') from walhook.deliveries where webhook = 'chat'";
    assert!(!database.text(kept).await.contains("secret"), "what is masked is kept masked");
    let empty = "select count(*) from walhook.deliveries where body is not null";
    assert_eq!(database.number(empty).await, 0, "no body is no body");

    // As long as the template is as it was, nothing is sent and everybody is told.
    let id = id_of(&database, "chat").await;
    let path = format!("/api/webhooks/chat/deliveries/{id}/retry");
    // Rendering keeps nobody from the ledger, and waits for nobody: this lock is what recording takes.
    let recording = crate::support::connect(&database.url).await.expect("a connection");
    recording.batch_execute("begin; select 1 from walhook.sources for update").await.expect("the lock");
    let refused = operator.post(&path, &json!({})).await.is(409);
    assert!(refused.text().contains("template chat"), "{}", refused.text());
    recording.batch_execute("commit").await.expect("the end of the lock");
    let dry = json!({ "dry_run": true });
    assert_eq!(operator.post("/api/webhooks/chat/retry", &dry).await.is(200).json()["count"], 1);
    let job = operator.post("/api/webhooks/chat/retry", &json!({})).await.is(202).json();
    let done = over(&operator, &format!("/api/webhooks/chat/retry/{}", job["id"])).await;
    assert_eq!((&done["status"], &done["sent"], &done["unsent"]), (&json!("done"), &json!(0), &json!(1)));
    assert!(done["reason"].as_str().unwrap().contains("template chat"), "{done}");

    // A message that is no JSON has nothing to render.
    let counted = operator.post("/api/webhooks/told/retry", &dry).await.is(200).json();
    assert_eq!((&counted["count"], &counted["left_out"]), (&json!(0), &json!(1)), "{counted}");
    assert!(counted["reasons"][0]["reason"].as_str().unwrap().contains("JSON"), "{counted}");
    let told = format!("/api/webhooks/told/deliveries/{}/retry", id_of(&database, "told").await);
    assert_eq!(operator.post(&told, &json!({})).await.is(409).kind(), "state");
    let said = command(&sidecar, &["retry", "told"]).await;
    assert!(said.contains("no failed deliveries that can be sent again"), "{said}");
    assert!(said.contains("1 cannot be sent again") && said.contains("JSON"), "{said}");

    sidecar.write_file(&database, &format!("{rest}{mended}"));
    sidecar.signal("HUP").await;
    eventually("the template is mended, and the row sent", PATIENCE, async || {
        operator.post(&path, &json!({})).await.status == 200
    })
    .await;
    let came = receiver.expect("/chat", 1).await;
    assert_eq!(came[0].json(), json!({ "note": "two words" }));
    assert_eq!((came[0].id(), came[0].header("x-webhook-attempt")), (&*id, "1"));
    eventually("it is delivered", PATIENCE, async || database.number(&count("chat", "delivered")).await == 1)
        .await;
    assert_eq!(
        database
            .number(
                "select count(*) from walhook.deliveries where webhook = 'chat' and unrendered is not null"
            )
            .await,
        0
    );
    assert!(receiver.requests("/told").is_empty());
}

/// Waits until a job is over; answers how it stands.
async fn over(client: &Client, path: &str) -> Value {
    eventually("the job is over", PATIENCE, async || {
        !client.get(path).await.is(200).json()["finished_at"].is_null()
    })
    .await;
    client.get(path).await.is(200).json()
}

/// A command beside the sidecar; what it says.
async fn command(sidecar: &crate::support::Sidecar, arguments: &[&str]) -> String {
    let url = format!("http://{}", sidecar.address().expect("an address"));
    let of = ["--server", &url];
    let output = run_once(&[arguments, &of].concat(), &[("WALHOOK_API_KEY", ADMIN)]).await;
    String::from_utf8([output.stdout, output.stderr].concat()).expect("plain text")
}

#[tokio::test]
async fn what_was_too_large_is_sent_when_the_limit_is_raised() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = |max: &str| {
        let url = receiver.url("/crm");
        format!(
            "[delivery]\nmax_body = \"{max}\"\n[[webhooks]]\nname = \"crm\"\nurl = \"{url}\"\nevents = [\"orders.*\"]\n"
        )
    };
    let (mut sidecar, _) = served_by(&database, Run::with(toml("2KiB"))).await;
    database
        .execute("insert into orders select n, 'paid', n, repeat('x', 4000) from generate_series(1, 3) n")
        .await;
    eventually("dead letters", PATIENCE, async || database.number(&count("crm", "failed")).await == 3).await;
    sidecar.stop().await;
    sidecar.next_run(|run| Run { toml: toml("64KiB"), ..run });
    sidecar.write_file(&database, &toml("64KiB"));
    sidecar.spawn();
    sidecar.ready().await;
    let operator = Client::of(&sidecar, ADMIN);
    let job = operator.post("/api/webhooks/crm/retry", &json!({})).await.is(202).json();
    let done = over(&operator, &format!("/api/webhooks/crm/retry/{}", job["id"])).await;
    assert_eq!((&done["sent"], &done["unsent"], &done["reason"]), (&json!(3), &json!(0), &Value::Null));
    let came = receiver.expect("/crm", 3).await;
    for request in &came {
        let whole = request.json();
        assert_eq!(whole["data"]["record"]["note"].as_str().unwrap().len(), 4000);
        assert_eq!(
            (&whole["metadata"]["webhook"], &whole["type"]),
            (&json!("crm"), &json!("orders.created"))
        );
        assert!(whole["metadata"]["sequence"].as_u64().is_some_and(|n| (1..=3).contains(&n)));
    }
    eventually("all delivered", PATIENCE, async || database.number(&count("crm", "delivered")).await == 3)
        .await;
}

#[tokio::test]
async fn what_an_older_version_kept_as_an_empty_body_has_none() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "[[webhooks]]\nname = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n",
        receiver.url("/crm")
    );
    let (_sidecar, operator) = served_by(&database, Run::with(toml)).await;
    let row = |id: &str, reason: &str| {
        format!(
            "insert into walhook.deliveries (id, event_id, event_type, webhook, lane, status, finished_at, fail_reason,
                 committed_at, schema_name, table_name, row_key, operation, content_type, body)
             values ('{id}', 'e', 'orders.created', 'crm', 1, 'failed', now(), '{reason}', now(), 'public', 'orders', '1',
                 'insert', 'text/plain', '');"
        )
    };
    let (dead, aged) =
        (row("dlv_1", "template crm: no"), row("dlv_2", "it is older than retry.max_age allows"));
    database.execute(&(dead + &aged)).await;
    let migration = include_str!("../../../migrations/V21__again.sql");
    let statement = migration.split(';').find(|one| one.contains("update deliveries")).expect("a statement");
    database.execute(&format!("set search_path to walhook; {statement}")).await;
    let counted = operator.post("/api/webhooks/crm/retry", &json!({ "dry_run": true })).await.is(200).json();
    assert_eq!((&counted["count"], &counted["left_out"]), (&json!(1), &json!(1)), "{counted}");
    assert_eq!(counted["reasons"], json!([{ "reason": "template crm: no", "count": 1 }]));
}

#[tokio::test]
async fn a_delivery_that_several_send_again_at_once_is_sent_once() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "{OPEN}[[webhooks]]\nname = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n\
         retry = {{ schedule = [], jitter = 0 }}\nbreaker = false\n",
        receiver.url("/crm")
    );
    let (_sidecar, operator) = served_by(&database, Run::with(toml).expecting("gave deliveries up")).await;
    receiver.script("/crm", |_| Reply::Status(500));
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    eventually("a dead letter", PATIENCE, async || database.number(&count("crm", "failed")).await == 1).await;
    let id = id_of(&database, "crm").await;
    let (path, of) = (format!("/api/webhooks/crm/deliveries/{id}/retry"), format!("/api/deliveries/{id}"));
    let ended = async |attempts: i64| {
        eventually("it has ended", PATIENCE, async || {
            let now = operator.get(&of).await.is(200).json();
            now["attempt_count"] == attempts && !now["finished_at"].is_null()
        })
        .await;
        assert_eq!(receiver.requests("/crm").len(), usize::try_from(attempts).unwrap());
    };
    let press = async |wish: &Value| operator.post(&path, wish).await;
    let nothing = json!({});
    // Failed: it fails again at once, and the other press may come before or after that.
    let (one, two) = tokio::join!(press(&nothing), press(&nothing));
    let mut answers = [one.status, two.status];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409], "{} {}", one.text(), two.text());
    ended(2).await;
    database.execute(JUST_NOW).await;
    let late = press(&json!({})).await.is(409);
    assert!(late.text().contains("was sent again at") && late.text().contains("attempts"), "{}", late.text());
    ended(2).await;
    // Who knows of the attempts means it, and twice the same is once.
    receiver.script("/crm", |_| Reply::Status(200));
    let known = json!({ "attempts": 2 });
    let (one, two) = tokio::join!(press(&known), press(&known));
    assert_eq!(one.status + two.status, 200 + 409, "{} {}", one.text(), two.text());
    ended(3).await;
    assert_eq!(press(&known).await.is(409).kind(), "state");
    // Delivered: only by an explicit wish, and then once.
    database.execute(A_MINUTE_LATER).await;
    let refused = press(&json!({})).await.is(409);
    assert!(refused.text().contains("It is delivered"), "{}", refused.text());
    let replay = json!({ "status": "delivered" });
    let (one, two) = tokio::join!(press(&replay), press(&replay));
    assert_eq!(one.status + two.status, 200 + 409, "{} {}", one.text(), two.text());
    ended(4).await;
    database.execute(JUST_NOW).await;
    press(&replay).await.is(409);
    ended(4).await;
    // Later it is meant again.
    database.execute(A_MINUTE_LATER).await;
    press(&replay).await.is(200);
    ended(5).await;
    assert_eq!(operator.post(&path, &json!({ "status": "held" })).await.is(422).wrong(), ["/status"]);
    assert_eq!(operator.post(&path, &json!({ "attempts": -1 })).await.is(422).wrong(), ["/attempts"]);
}

#[tokio::test]
async fn a_cancelled_delivery_is_sent_once_however_many_press() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "{OPEN}[[webhooks]]\nname = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n\
         retry = {{ schedule = [\"1h\"], jitter = 0 }}\nbreaker = false\n",
        receiver.url("/crm")
    );
    let (_sidecar, operator) = served_by(&database, Run::with(toml)).await;
    receiver.script("/crm", |_| Reply::Status(500));
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    eventually("one waits", PATIENCE, async || database.number(&count("crm", "retrying")).await == 1).await;
    let id = id_of(&database, "crm").await;
    let path = format!("/api/webhooks/crm/deliveries/{id}");
    operator.ask("POST", &format!("{path}/cancel"), &[], "").await.is(200);
    receiver.script("/crm", |_| Reply::Status(200));
    let press = async || operator.post(&format!("{path}/retry"), &json!({})).await.status;
    let (one, two, three) = tokio::join!(press(), press(), press());
    assert_eq!(one + two + three, 200 + 409 + 409);
    eventually("it arrives", PATIENCE, async || database.number(&count("crm", "delivered")).await == 1).await;
    assert_eq!(receiver.requests("/crm").len(), 2);
}

#[tokio::test]
async fn a_retry_that_several_ask_for_at_once_is_one_and_takes_nothing_that_was_just_sent() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "{OPEN}[[webhooks]]\nname = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n\
         retry = {{ schedule = [], jitter = 0 }}\nbreaker = false\n",
        receiver.url("/crm")
    );
    let (_sidecar, operator) = served_by(&database, Run::with(toml).expecting("gave deliveries up")).await;
    receiver.script("/crm", |_| Reply::Status(500));
    database.execute("insert into orders select n, 'paid', n, null from generate_series(1, 6) n").await;
    eventually("dead letters", PATIENCE, async || database.number(&count("crm", "failed")).await == 6).await;
    receiver.script("/crm", |_| Reply::Status(200));
    let jobs = "/api/webhooks/crm/retry";
    let press = async |wish: &Value| operator.post(jobs, wish).await;
    let came = || receiver.requests("/crm").len();

    // Failed: slowly, so that the other is there while it is not over.
    let slow = json!({ "per_second": 1 });
    let (one, two) = tokio::join!(press(&slow), press(&slow));
    let (made, refused) = if one.status == 202 { (one, two) } else { (two, one) };
    let (made, refused) = (made.is(202).json(), refused.is(409));
    assert!(refused.text().contains(&format!("retry {} of webhook", made["id"])), "{}", refused.text());
    // The same at another pace is the same.
    press(&json!({})).await.is(409);
    // Another choice is another retry; what the first one sends is not its.
    let other = press(&json!({ "status": ["failed", "delivered"] })).await.is(202).json();
    for job in [&made, &other] {
        assert_eq!(over(&operator, &format!("{jobs}/{}", job["id"])).await["status"], "done");
    }
    eventually("all delivered", PATIENCE, async || database.number(&count("crm", "delivered")).await == 6)
        .await;
    assert_eq!(came(), 12, "each once more");

    // Delivered: the first press is over before the second comes.
    database.execute(A_MINUTE_LATER).await;
    let replay = json!({ "status": "delivered" });
    for (expect, left_out) in [(18, 0), (18, 6)] {
        if left_out > 0 {
            database.execute(JUST_NOW).await;
        }
        let dry = json!({ "status": "delivered", "dry_run": true });
        let counted = press(&dry).await.is(200).json();
        assert_eq!((&counted["count"], &counted["left_out"]), (&json!(6 - left_out), &json!(left_out)));
        let job = press(&replay).await.is(202).json();
        over(&operator, &format!("{jobs}/{}", job["id"])).await;
        eventually("all delivered", PATIENCE, async || {
            database.number(&count("crm", "delivered")).await == 6 && came() == expect
        })
        .await;
    }
    // Later it is meant again.
    database.execute(A_MINUTE_LATER).await;
    let job = press(&replay).await.is(202).json();
    assert_eq!(over(&operator, &format!("{jobs}/{}", job["id"])).await["sent"], 6);
    eventually("all delivered", PATIENCE, async || {
        database.number(&count("crm", "delivered")).await == 6 && came() == 24
    })
    .await;

    // Cancelled.
    database.execute("update walhook.deliveries set status = 'cancelled' where status = 'delivered'").await;
    database.execute(A_MINUTE_LATER).await;
    let cancelled = json!({ "status": "cancelled" });
    let (one, two) = tokio::join!(press(&cancelled), press(&cancelled));
    // The first may be over when the second comes: then that finds nothing.
    assert!(
        [202, 409].contains(&one.status)
            && [202, 409].contains(&two.status)
            && one.status.min(two.status) == 202
    );
    eventually("all delivered", PATIENCE, async || {
        database.number(&count("crm", "delivered")).await == 6
            && database.number("select count(*) from walhook.retries where finished_at is null").await == 0
    })
    .await;
    assert_eq!(came(), 30);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(came(), 30);
}

#[tokio::test]
async fn of_an_answer_as_much_is_kept_as_was_configured() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "[ledger]\ncapture_response = \"16B\"\n[[webhooks]]\nname = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n",
        receiver.url("/crm")
    );
    let (_sidecar, operator) = served_by(&database, Run::with(toml)).await;
    receiver.script("/crm", |_| Reply::Body(200, "0123456789abcdefghij".to_owned()));
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    eventually("it is delivered", PATIENCE, async || database.number(&count("crm", "delivered")).await == 1)
        .await;
    let whole =
        operator.get(&format!("/api/deliveries/{}", id_of(&database, "crm").await)).await.is(200).json();
    let kept = &whole["attempts"][0]["response"];
    assert_eq!(*kept, json!({ "encoding": "utf-8", "content": "0123456789abcdef" }));
}
