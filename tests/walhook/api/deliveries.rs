//! Deliveries over the API.

use serde_json::{Value, json};

use super::{Client, served_by};
use crate::support::{Answer as Reply, Database, PATIENCE, Receiver, Run, beside_others, eventually};

async fn ids(client: &Client, query: &str) -> Vec<String> {
    let page = client.get(&format!("/api/deliveries?{query}")).await.is(200).json();
    page["data"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned()).collect()
}

/// The ids of all deliveries, by pages of one.
async fn walked(client: &Client) -> Vec<String> {
    let all = "/api/deliveries?limit=1&since=2000-01-01T00:00:00Z";
    let (mut seen, mut path) = (Vec::new(), all.to_owned());
    loop {
        let page = client.get(&path).await.is(200).json();
        let ids = page["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        let Some(cursor) = page["next_cursor"].as_str() else { return seen };
        path = format!("{all}&cursor={cursor}");
    }
}

fn webhook(name: &str, url: &str, keys: &str) -> String {
    format!(
        "[[webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"orders.*\"]\n\
         headers = {{ \"x-key\" = \"geheim\" }}\n{keys}\n"
    )
}

#[tokio::test]
async fn deliveries_are_searched_shown_sent_again_and_cancelled() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/bad", |_| Reply::Body(503, "not now".to_owned()));
    receiver.script("/slow", |_| Reply::Status(500));
    let toml = webhook("good", &receiver.url("/good"), "")
        + &webhook("bad", &receiver.url("/bad"), "retry = { schedule = [\"20ms\"], jitter = 0 }")
        + &webhook("slow", &receiver.url("/slow"), "retry = { schedule = [\"1h\"], jitter = 0 }");
    let run = Run::with(toml).expecting("gave deliveries up");
    let (_sidecar, operator) = served_by(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null), (2, 'paid', 2, null)").await;
    let states = "select count(*) from walhook.deliveries
                  where (webhook, status) in (('good', 'delivered'), ('bad', 'failed'), ('slow', 'retrying'))";
    eventually("six deliveries", PATIENCE, async || database.number(states).await == 6).await;

    assert_eq!(ids(&operator, "webhook=good").await, ["2", "1"]);
    assert_eq!(ids(&operator, "status=failed&key=1").await, ["1"]);
    assert_eq!(ids(&operator, "status=failed,retrying&error=5xx&table=orders&event=orders.*").await.len(), 4);
    for none in
        ["error=timeout", "table=other.orders", "event=x*", "until=2000-01-01T00:00:00Z", "webhook=nosuch"]
    {
        assert!(ids(&operator, none).await.is_empty(), "{none}");
    }
    let seen = walked(&operator).await;
    let mut sorted = seen.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((seen.len(), &seen), (6, &sorted), "each once, newest first");
    operator.get("/api/webhooks/nosuch/deliveries").await.is(404);

    let failed = operator.get("/api/webhooks/bad/deliveries?status=failed&key=1").await.is(200).json();
    let path = format!("/api/webhooks/bad/deliveries/{}", failed["data"][0]["id"].as_str().unwrap());
    let whole = operator.get(&path).await.is(200);
    assert!(!whole.text().contains("geheim"), "{}", whole.text());
    let whole = whole.json();
    assert_eq!((&whole["attempt_count"], whole["attempts"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!(whole["attempts"][0]["response"], json!({ "encoding": "utf-8", "content": "not now" }));
    let header = |name: &str| {
        let all = whole["request"]["headers"].as_array().unwrap();
        all.iter().find(|header| header["name"] == name).map(|header| header["value"].clone())
    };
    assert_eq!((header("x-key"), header("webhook-id")), (Some(json!("***")), Some(whole["id"].clone())));
    let body: Value = serde_json::from_str(whole["request"]["body"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(body["data"]["record"]["id"], 1);
    operator.get(&path.replace("/bad/", "/good/")).await.is(404);

    receiver.script("/bad", |_| Reply::Status(200));
    let again = operator.ask("POST", &format!("{path}/retry"), &[], "").await.is(200).json();
    assert_eq!(again["status"], "retrying");
    eventually("it arrives", PATIENCE, async || operator.get(&path).await.json()["status"] == "delivered")
        .await;
    let requests = receiver.requests("/bad");
    let (first, last) = (&requests[0], &requests[requests.len() - 1]);
    let mine: Vec<_> = requests.iter().filter(|request| request.id() == whole["id"]).collect();
    assert!(mine.len() == 3 && mine.iter().all(|request| request.body == mine[0].body), "{first:?} {last:?}");

    let waiting = operator.get("/api/webhooks/slow/deliveries?key=1").await.is(200).json();
    let path = format!("/api/webhooks/slow/deliveries/{}", waiting["data"][0]["id"].as_str().unwrap());
    assert_eq!(operator.ask("POST", &format!("{path}/retry"), &[], "").await.is(409).kind(), "state");
    let ended = operator.ask("POST", &format!("{path}/cancel"), &[], "").await.is(200).json();
    assert_eq!((&ended["status"], &ended["due_at"]), (&json!("cancelled"), &json!(null)));
    assert_eq!(operator.ask("POST", &format!("{path}/cancel"), &[], "").await.is(409).kind(), "state");
    for verb in ["retry", "cancel"] {
        operator.ask("POST", &format!("/api/webhooks/slow/deliveries/dlv_0/{verb}"), &[], "").await.is(404);
    }
    // Its row is free: the next change of it goes out.
    receiver.script("/slow", |_| Reply::Status(200));
    database.execute("update orders set status = 'shipped' where id = 1").await;
    let updated =
        |requests: &[crate::support::Request]| requests.iter().any(|r| r.column("status") == "shipped");
    receiver.wait("/slow", "the next change", PATIENCE, updated).await;
    let actions = "select string_agg(action, ' ' order by id) from walhook.audit";
    assert_eq!(database.text(actions).await, "delivery.retry delivery.cancel");
}
