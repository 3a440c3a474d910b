//! The tests' own tools can fail: the receiver misbehaves as scripted, and the witness sees what is wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{Answer, Database, Receiver, Request, beside_others, witness};

/// Sends one request by hand; gives what came back, up to the end of the connection.
async fn post(receiver: &Receiver, path: &str, id: &str) -> std::io::Result<String> {
    let url = receiver.url("");
    let address = url.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).await?;
    let text =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nwebhook-id: {id}\r\ncontent-length: 4\r\n\r\nbody");
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn the_receiver_answers_as_scripted_and_remembers() {
    let receiver = Receiver::start().await;
    receiver.answers("/a", &[Answer::Status(500), Answer::Drop]);
    for (expected, is_whole) in [("HTTP/1.1 500", true), ("HTTP/1.1 200", false), ("HTTP/1.1 200", true)] {
        let answer = post(&receiver, "/a", "one").await.expect("an answer");
        assert!(answer.starts_with(expected) && answer.ends_with("ok") == is_whole, "{answer}");
    }
    let came = receiver.expect("/a", 3).await;
    assert_eq!(
        came.iter().map(|r| (r.nth, r.accepted)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, true)]
    );
    assert_eq!((came[0].id(), &came[0].body), ("one", &Bytes::from_static(b"body")));

    receiver.refuse();
    crate::support::eventually("a closed door", crate::support::PATIENCE, async || {
        post(&receiver, "/a", "two").await.is_err()
    })
    .await;
    receiver.welcome();
    crate::support::eventually("an open door", crate::support::PATIENCE, async || {
        post(&receiver, "/a", "two").await.is_ok()
    })
    .await;
}

fn request(id: &str, operation: &str, row: i64, mark: i64, accepted: bool) -> Request {
    let row = serde_json::json!({ "id": row, "mark": mark });
    let (record, old) = if operation == "delete" { (None, Some(row)) } else { (Some(row), None) };
    let data = serde_json::json!({ "table": "apples", "operation": operation, "record": record, "old": old });
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_str(id).expect("plain text"));
    let body = Bytes::from(serde_json::json!({ "data": data }).to_string());
    Request { path: "/".to_owned(), headers, body, at: Instant::now(), nth: 1, accepted }
}

fn judged(requests: &[Request]) -> bool {
    let change = |operation: &str, mark| ("apples".to_owned(), operation.to_owned(), 1, mark);
    let committed = [change("insert", 1), change("update", 2), change("delete", 2)];
    catch_unwind(AssertUnwindSafe(|| witness::judge(&committed, requests))).is_ok()
}

#[test]
fn the_witness_sees_what_is_lost_made_up_overtaken_or_changed() {
    let good = [
        request("a", "insert", 1, 1, false),
        request("a", "insert", 1, 1, true),
        request("b", "update", 1, 2, true),
        request("a", "insert", 1, 1, true),
        request("c", "delete", 1, 2, true),
    ];
    assert!(judged(&good));
    let without = |index: usize| {
        let mut requests = good.to_vec();
        requests.remove(index);
        requests
    };
    assert!(judged(&without(0)) && judged(&without(3)));
    assert!(!judged(&without(1)), "overtaken: the insert was not accepted when the update came");
    assert!(!judged(&without(2)), "lost: the update");
    assert!(!judged(&without(4)), "lost: the delete");
    let with = |request: Request| [&good[..], &[request]].concat();
    assert!(!judged(&with(request("d", "insert", 1, 9, true))), "never committed");
    assert!(!judged(&with(request("d", "insert", 1, 1, true))), "a second id for a change");
    let mut changed = request("a", "insert", 1, 1, true);
    changed.body = Bytes::from([&changed.body[..], b" "].concat());
    assert!(!judged(&with(changed)), "other bytes under the same id");
}

#[tokio::test]
async fn the_journal_holds_what_was_committed_and_nothing_else() {
    let _turn = beside_others().await;
    let database = Database::new().await;
    witness::create_tables(&database, &["apples"]).await;
    database.execute("insert into apples (id) values (1)").await;
    database.execute("begin; insert into apples (id) values (2); rollback").await;
    database.execute("begin; savepoint s; delete from apples; rollback to s; commit").await;
    database.execute("delete from apples where id = 1").await;
    let committed = witness::committed(&database).await;
    let what: Vec<_> = committed.iter().map(|(_, operation, id, _)| (operation.as_str(), *id)).collect();
    assert_eq!(what, [("insert", 1), ("delete", 1)]);
    assert_eq!(committed[0].3, committed[1].3, "a delete is known by the mark of what it removed");
    let mut dice = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        database.execute(&witness::transaction(&mut dice, &["apples"], 8)).await;
    }
    assert!(witness::committed(&database).await.len() > 100);
}
