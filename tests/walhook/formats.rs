//! Bodies of other shapes than the standard one, as receivers get them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use walhook::domain::Format;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually,
};

/// What must be the same at each attempt.
fn rendered(request: &Request) -> (Vec<(String, String)>, Vec<u8>) {
    let of_format = |name: &str| name.starts_with("ce-") || name == "content-type";
    let headers = request.headers.iter().filter(|(name, _)| of_format(name.as_str()));
    let text = |value: &http::HeaderValue| value.to_str().expect("visible ASCII").to_owned();
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    headers.sort();
    (headers, request.body.to_vec())
}

#[tokio::test]
async fn i4_the_headers_of_a_format_are_the_same_bytes_at_each_attempt_after_a_kill_and_for_another_format() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(500));
    let run = |format: &str| {
        let schedule = vec!["\"200ms\""; 60].join(", ");
        let keys = format!(
            "events = [\"orders.*\"]\nformat = \"{format}\"\nretry = {{ schedule = [{schedule}], jitter = 0 }}"
        );
        Run::default().webhook("crm", &receiver.url("/crm"), &keys)
    };
    let mut sidecar = Sidecar::start(&database, run("cloudevents-binary")).await;
    database.execute("insert into orders values (1, 'paid', 1.50, 'größer \"als\"')").await;
    receiver.expect("/crm", 3).await;
    sidecar.kill9().await;
    let before = receiver.requests("/crm").len();

    receiver.script("/crm", |_| Answer::Status(200));
    sidecar.next_run(|_| run("standard"));
    sidecar.write_own_file(&database);
    sidecar.spawn();
    sidecar.ready().await;
    let came =
        receiver.wait("/crm", "an accepted one", PATIENCE, |came| came.iter().any(|r| r.accepted)).await;
    assert!(came.len() > before);
    let (headers, body) = rendered(&came[0]);
    for request in &came {
        assert_eq!(rendered(request), (headers.clone(), body.clone()));
    }
    let of = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!((of("content-type"), of("ce-specversion")), (Some("application/json"), Some("1.0")));
    assert_eq!((of("ce-type"), of("ce-subject")), (Some("orders.created"), Some("public.orders")));
    assert_eq!(of("ce-source"), Some(format!("/walhook/{}", database.name).as_str()));
    assert!(of("ce-id").expect("an id").starts_with("evt_"));
    assert!(of("ce-time").expect("a time").ends_with('Z'));
    let data: Value = serde_json::from_slice(&body).expect("data alone");
    assert_eq!(
        data["record"],
        json!({ "id": 1, "status": "paid", "total": "1.50", "note": "größer \"als\"" })
    );
    let kept = "select count(*) from walhook.deliveries where status = 'delivered' and headers like 'ce-specversion: 1.0%'";
    eventually("a delivered row with its headers", PATIENCE, async || database.number(kept).await == 1).await;
    // What is rendered from now on is of the format that the file has by now, and has no such headers.
    database.execute("insert into orders values (2, 'paid', 1, null)").await;
    let is_new = |request: &Request| request.header("ce-id").is_empty() && request.json()["data"].is_object();
    receiver.wait("/crm", "a standard body", PATIENCE, |came| came.iter().any(is_new)).await;
}

#[tokio::test]
async fn every_format_arrives_with_its_content_type_and_a_signature_that_verifies() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let formats = [
        ("standard", "application/json", "{\"id\":\"evt_"),
        ("cloudevents", "application/cloudevents+json", "{\"specversion\":\"1.0\""),
        ("cloudevents-binary", "application/json", "{\"operation\":\"insert\""),
        ("supabase", "application/json", "{\"type\":\"INSERT\""),
        ("sequin", "application/json", "{\"record\":{\"id\":1"),
        ("raw", "application/json", "{\"operation\":\"insert\""),
        ("xml", "application/xml", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<event "),
        ("form", "application/x-www-form-urlencoded", "id=evt_"),
    ];
    assert_eq!(
        formats.map(|(name, ..)| (name, 1)),
        Format::VERSIONS.map(|(name, version, _)| (name, version))
    );
    let mut run = Run::default();
    for (name, ..) in formats {
        let keys = format!("events = [\"orders.*\"]\nformat = \"{name}\"\nformat_version = 1");
        run = run.webhook(name, &receiver.url(&format!("/{name}")), &keys);
    }
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1.50, '<a & \"b\">')").await;
    for (name, content_type, starts) in formats {
        let request = receiver.expect(&format!("/{name}"), 1).await.remove(0);
        assert_eq!(request.header("content-type"), content_type);
        let body = std::str::from_utf8(&request.body).expect("UTF-8");
        assert!(body.starts_with(starts), "{body}");
        let standard = standardwebhooks::Webhook::new(crate::support::SECRET).expect("a secret");
        standard.verify(&request.body, &request.headers).expect("a signature that verifies");
    }
}

/// What a parser of Python's own library reads: the columns of `record` as it sees them.
const XML: &str = "import sys, json, xml.etree.ElementTree as E
record = E.fromstring(sys.stdin.buffer.read()).find('data/record')
print(json.dumps([[c.get('name'), c.get('{http://www.w3.org/2001/XMLSchema-instance}nil') or c.text] for c in record]))";
const FORM: &str = "import sys, json, urllib.parse as U
fields = U.parse_qsl(sys.stdin.read(), keep_blank_values=True)
print(json.dumps([[k[13:-1], v] for k, v in fields if k.startswith('data[record][')]))";

fn read_by_python(program: &str, body: &[u8]) -> Value {
    let mut command = Command::new("python3");
    let piped = command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().expect("python3");
    child.stdin.take().expect("a pipe").write_all(body).expect("a reader");
    let output = child.wait_with_output().expect("an end");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn other_peoples_parsers_read_xml_and_forms_as_the_values_that_were_committed() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = |format: &str| format!("events = [\"orders.*\"]\nformat = \"{format}\"");
    let run = Run::default().webhook("xml", &receiver.url("/xml"), &keys("xml")).webhook(
        "form",
        &receiver.url("/form"),
        &keys("form"),
    );
    let _sidecar = Sidecar::start(&database, run).await;
    let note = "a<b> & \"c\" 'd'\r\n\ttab ]]> %20+ größer \u{1F980}";
    let insert = format!("insert into orders values (1, '', 1.50, '{}')", note.replace('\'', "''"));
    database.execute(&insert).await;
    // Rows go side by side: the second waits for the first here.
    receiver.expect("/xml", 1).await;
    receiver.expect("/form", 1).await;
    database.execute("insert into orders values (2, 'x', null, null)").await;
    let xml = receiver.expect("/xml", 2).await;
    let expect = json!([["id", "1"], ["status", null], ["total", "1.50"], ["note", note]]);
    assert_eq!(read_by_python(XML, &xml[0].body), expect);
    let expect = json!([["id", "2"], ["status", "x"], ["total", "true"], ["note", "true"]]);
    assert_eq!(read_by_python(XML, &xml[1].body), expect);
    let form = receiver.expect("/form", 2).await;
    let expect = json!([["id", "1"], ["status", ""], ["total", "1.50"], ["note", note]]);
    assert_eq!(read_by_python(FORM, &form[0].body), expect);
}

#[tokio::test]
async fn a_webhook_that_is_pinned_to_a_templates_version_keeps_it_when_the_template_changes() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (latest, pinned) = (receiver.url("/latest"), receiver.url("/pinned"));
    let run = |text: &str, versions: &str| {
        let toml =
            format!("[templates.line]\ncontent_type = \"text/plain\"\nbody = \"{text}\"\n{versions}\n");
        let keys = |template: &str| format!("events = [\"orders.*\"]\ntemplate = \"{template}\"");
        Run::with(toml).webhook("latest", &latest, &keys("line")).webhook("pinned", &pinned, &keys("line@v1"))
    };
    let before = run("one {{data.record.id}}", "version = \"v1\"");
    let mut sidecar = Sidecar::start(&database, before).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    for path in ["/latest", "/pinned"] {
        assert_eq!(receiver.expect(path, 1).await[0].body, "one 1");
    }
    let after = "[templates.line.versions.v1]\nbody = \"one {{data.record.id}}\"";
    sidecar.next_run(|_| run("two {{data.record.id}}", after));
    sidecar.write_own_file(&database);
    sidecar.signal("HUP").await;
    // It takes effect within a moment; what was committed before keeps the old text.
    let mut id = 1;
    eventually("a new text", PATIENCE, async || {
        id += 1;
        database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
        receiver.requests("/latest").iter().any(|request| request.body.starts_with(b"two "))
    })
    .await;
    let latest = receiver.expect("/latest", id).await;
    assert!(
        latest.iter().all(|request| request.body.starts_with(b"one ") || request.body.starts_with(b"two "))
    );
    let pinned = receiver.expect("/pinned", id).await;
    assert!(pinned.iter().all(|request| request.body.starts_with(b"one ")));
}
