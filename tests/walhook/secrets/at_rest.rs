//! Secrets are encrypted where the database holds them, and shown by one command alone.

use std::collections::HashMap;

use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, json};
use walhook::catalog::secrets_in;
use walhook::domain::EncryptionKey;

use super::{CANARY, OPEN, rows_until, stored, verifies, walhook};
use crate::support::{Database, Receiver, Request, Run, SECRET, Sidecar, beside_others, connect, run_once};

/// `[security]` with these keys, of 32 equal bytes each, by that byte in hexadecimal; the first encrypts.
fn keyed(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|byte| format!("\"{}\"", byte.repeat(32))).collect();
    format!("{OPEN}encryption_key = [{}]\n", keys.join(", "))
}

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::new(Zeroizing::new([byte; 32]))
}

#[tokio::test]
async fn secrets_in_the_database_are_encrypted_in_place_and_go_on_working() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let mut sidecar = Sidecar::start(&database, Run::with(keyed(&["11"])).expecting("cannot be used")).await;
    let text = |column: &'static str| {
        format!("select concat_ws(' ', {column}) from walhook.webhooks where name = 'crm'")
    };
    let insert = "insert into walhook.webhooks (name, url, secret, events, auth, headers) values
        ('crm', $1, $2, '{orders.*}', $3, $4)";
    let auth = json!({ "kind": "bearer", "token": format!("{CANARY}-token") });
    let headers = json!({ "x-tenant": format!("{CANARY}-tenant") });
    database.rows(insert, &[&receiver.url("/crm"), &SECRET, &auth, &headers]).await;
    stored(&database, "other", &receiver.url("/other"), SECRET).await;

    let (_, out, _) = walhook(&sidecar, &["secrets", "status"]).await;
    assert!(out.contains("of 2 webhooks with secrets 0 are encrypted"), "{out}");
    let (_, out, _) = walhook(&sidecar, &["check"]).await;
    assert!(out.contains("as plain text in the database, or under an older key: crm, other"), "{out}");
    let (code, out, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "2 webhooks' secrets are encrypted\n"), "{err}");
    let all = database.text(&text("secret, auth, headers")).await;
    assert!(!all.contains(CANARY) && !all.contains("whsec_"), "{all}");
    assert_eq!(all.matches(&format!("whenc_v1.{}.", key(0x11).id())).count(), 3, "{all}");
    let acted = database
        .text("select action || ' ' || detail::text from walhook.audit where actor_kind <> 'sql'")
        .await;
    assert!(acted.starts_with("secrets.encrypt {") && acted.contains("[\"crm\", \"other\"]"), "{acted}");

    // The same receivers get the same signatures and headers.
    let is_whole = |request: &Request| {
        verifies(request, SECRET)
            && request.header("authorization") == format!("Bearer {CANARY}-token")
            && request.header("x-tenant") == format!("{CANARY}-tenant")
    };
    let came = rows_until((&database, &receiver, "/crm"), 1, "a delivery", is_whole).await;
    assert!(came.iter().all(is_whole));
    let (code, out, _) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "nothing was to be encrypted\n"));
    assert_eq!(database.text(&text("secret, auth, headers")).await, all, "it was left alone");

    // Another key comes before it: the running instance takes it by a hangup.
    sidecar.write_file(&database, &keyed(&["22", "11"]));
    sidecar.signal("HUP").await;
    sidecar.logged("the configuration was read again").await;
    let (_, out, _) = walhook(&sidecar, &["secrets", "status", "--json"]).await;
    let status: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(status["keys"], json!([key(0x22).id().to_string(), key(0x11).id().to_string()]));
    let older = json!({ "name": "crm", "columns": { "auth": "older_key", "headers": "older_key", "secret": "older_key" } });
    assert_eq!(status["webhooks"][0], older);
    let (code, out, err) = walhook(&sidecar, &["webhooks", "rotate", "crm"]).await;
    assert_eq!(code, Some(0), "{err}");
    let new = out.trim().to_owned();
    assert!(!err.contains("plain text"), "{err}");
    let came = rows_until((&database, &receiver, "/crm"), 1000, "one by the new secret", |request| {
        verifies(request, &new)
    })
    .await;
    assert!(came.iter().all(|request| verifies(request, SECRET) && is_whole(request)));
    let (code, out, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "2 webhooks' secrets are encrypted\n"), "{err}");
    let (_, out, _) = walhook(&sidecar, &["secrets", "status"]).await;
    assert!(out.contains("of 2 webhooks with secrets 2 are encrypted"), "{out}");
    let (_, out, _) = walhook(&sidecar, &["check"]).await;
    assert!(!out.contains("or under an older key"), "{out}");
    let column = database.text(&text("secret")).await;
    let signing = secrets_in("crm", &column, &[key(0x22)]).expect("it opens").expect("secrets");
    let signing: Vec<&str> = signing.iter().map(|secret| secret.text.expose_secret()).collect();
    assert_eq!(signing, [new.as_str(), SECRET]);

    // The old key is not needed any more.
    sidecar.next_run(|run| Run { toml: keyed(&["22"]), ..run });
    sidecar.write_own_file(&database);
    sidecar.restart().await;
    let came = rows_until((&database, &receiver, "/crm"), 2000, "one without the old key", is_whole).await;
    assert!(came.iter().all(|request| verifies(request, &new)));
    assert!(!sidecar.log_text().contains("cannot be used"), "{}", sidecar.log_text());
}

#[tokio::test]
async fn what_does_not_open_sets_its_webhook_aside_and_no_other() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(keyed(&["11"])).expecting("a webhook of the database cannot be used");
    let sidecar = Sidecar::start(&database, run).await;
    for name in ["fine", "moved", "bent", "foreign"] {
        stored(&database, name, &receiver.url(&format!("/{name}")), SECRET).await;
    }
    let (code, _, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!(code, Some(0), "{err}");
    let foreign = walhook::seal::Home { webhook: "foreign", column: "secret" };
    let foreign = walhook::seal::seal(&key(0x33), foreign, SECRET).expect("sealed");
    database
        .execute(&format!(
            "update walhook.webhooks set secret = (select secret from walhook.webhooks where name = 'fine') where name = 'moved';
             update walhook.webhooks set secret = overlay(secret placing 'AAAA' from 30) where name = 'bent';
             update walhook.webhooks set secret = '{foreign}' where name = 'foreign'"
        ))
        .await;
    let mut seen = HashMap::new();
    for name in ["moved", "bent", "foreign"] {
        let line = sidecar.logged(&format!("row \\\"{name}\\\" of walhook.webhooks: secret: ")).await;
        assert_eq!(line["fields"]["webhook"], json!(name));
        seen.insert(name, line["fields"]["reason"].as_str().expect("a reason").to_owned());
    }
    for name in ["moved", "bent"] {
        assert!(
            seen[name].contains("it was encrypted for another webhook or column, or was changed since"),
            "{seen:?}"
        );
    }
    let unknown = format!("it is encrypted with key {}, which is not among those of", key(0x33).id());
    assert!(seen["foreign"].contains(&unknown), "{seen:?}");
    rows_until((&database, &receiver, "/fine"), 1, "the other webhook goes on", |request| {
        verifies(request, SECRET)
    })
    .await;

    let (_, out, _) = walhook(&sidecar, &["secrets", "status"]).await;
    assert!(
        out.contains("of 4 webhooks with secrets 1 are encrypted") && out.contains("unreadable"),
        "{out}"
    );
    let (code, _, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("foreign is as it was: secret: it is encrypted with key"), "{err}");
    for verb in ["rotate", "reveal"] {
        let (code, out, err) = walhook(&sidecar, &["webhooks", verb, "moved"]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains("webhook \"moved\" cannot be used") && err.contains("plain text"), "{err}");
    }
    // Plain text heals it.
    database.execute(&format!("update walhook.webhooks set secret = '{SECRET}' where name = 'moved'")).await;
    rows_until((&database, &receiver, "/moved"), 1000, "it is back", |request| verifies(request, SECRET))
        .await;
}

#[tokio::test]
async fn encrypting_undoes_nothing_that_others_write_meanwhile() {
    const ROWS: usize = 250;
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let sidecar = Sidecar::start(&database, Run::with(keyed(&["11"])).expecting("cannot be used")).await;
    let insert = format!(
        "insert into walhook.webhooks (name, url, secret, events)
         select 'w' || lpad(n::text, 4, '0'), 'https://192.0.2.1/', 'a plain secret of many bytes, ' || n, '{{orders.*}}'
         from generate_series(1, {ROWS}) n"
    );
    database.execute(&insert).await;
    let writer = connect(&database.url).await.expect("a connection");
    let writing = async {
        let mut last = HashMap::new();
        for turn in 0..400_usize {
            let name = format!("w{:04}", (turn * 37) % ROWS + 1);
            let secret = format!("a later secret of many bytes, {turn}");
            let update = "update walhook.webhooks set secret = $2 where name = $1";
            writer.execute(update, &[&name, &secret]).await.expect("an update that nobody stops");
            last.insert(name, secret);
        }
        last
    };
    let encrypting = async {
        let mut codes = Vec::new();
        for _ in 0..3 {
            codes.push(walhook(&sidecar, &["secrets", "encrypt"]).await.0);
        }
        codes
    };
    let (last, codes) = tokio::join!(writing, encrypting);
    assert!(codes.iter().all(Option::is_some), "{codes:?}");
    let (code, _, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!(code, Some(0), "{err}");
    let rows = database.rows("select name, secret from walhook.webhooks order by name", &[]).await;
    assert_eq!(rows.len(), ROWS);
    for (index, row) in rows.iter().enumerate() {
        let (name, column): (&str, &str) = (row.get(0), row.get(1));
        assert!(column.starts_with("whenc_v1."), "{name} is plain");
        let first = format!("a plain secret of many bytes, {}", index + 1);
        let expect = last.get(name).unwrap_or(&first);
        let held = secrets_in(name, column, &[key(0x11)]).expect("it opens").expect("a secret");
        assert_eq!(held[0].text.expose_secret(), expect, "{name}");
    }
}

#[tokio::test]
async fn a_stored_secret_is_shown_by_reveal_alone_and_on_the_record() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let sidecar = Sidecar::start(&database, Run::with(keyed(&["11"]))).await;
    let until = "2999-01-01T00:00:00Z";
    let secrets =
        format!("[\"{SECRET}\", {{\"secret\": \"{CANARY} of many more bytes\", \"until\": \"{until}\"}}]");
    stored(&database, "crm", &receiver.url("/crm"), &secrets).await;
    for encrypted in [false, true] {
        if encrypted {
            let (code, _, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
            assert_eq!(code, Some(0), "{err}");
        }
        for arguments in [
            &["status"][..],
            &["status", "--json"],
            &["check"],
            &["check", "--json"],
            &["secrets", "status", "--json"],
            &["secrets", "encrypt"],
        ] {
            let (_, out, err) = walhook(&sidecar, arguments).await;
            assert!(!out.contains(SECRET) && !out.contains(CANARY), "{arguments:?}: {out}");
            assert!(!err.contains(SECRET) && !err.contains(CANARY), "{arguments:?}: {err}");
        }
        let before =
            database.number("select count(*) from walhook.audit where action = 'webhook.reveal'").await;
        let (code, out, _) = walhook(&sidecar, &["webhooks", "reveal", "crm"]).await;
        assert_eq!(code, Some(0));
        assert_eq!(out, format!("{SECRET}\n{CANARY} of many more bytes  until {until}\n"));
        let (_, out, _) = walhook(&sidecar, &["webhooks", "reveal", "crm", "--json"]).await;
        let shown: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(shown["secrets"][0], json!({ "secret": SECRET, "until": null }));
        let after =
            database.number("select count(*) from walhook.audit where action = 'webhook.reveal'").await;
        assert_eq!(after, before + 2);
    }
    let acts = database.text("select string_agg(a::text, ' ') from walhook.audit a").await;
    assert!(!acts.contains("whsec_") && !acts.contains(CANARY), "{acts}");

    // Where it cannot be recorded, nothing is shown and nothing is changed.
    let column = database.text("select secret from walhook.webhooks").await;
    database.execute("alter table walhook.audit add constraint closed check (action = '') not valid").await;
    for verb in ["reveal", "rotate"] {
        let (code, out, err) = walhook(&sidecar, &["webhooks", verb, "crm"]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("the database cannot store"), "{err}");
    }
    assert_eq!(database.text("select secret from walhook.webhooks").await, column);
}

#[tokio::test]
async fn i12_neither_the_most_verbose_log_nor_the_servers_refusal_tells_a_secret() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = keyed(&["11"]);
    let mut run = Run::with(&keys).expecting("cannot be used");
    run.environment.push(("WALHOOK_LOG".to_owned(), "trace,tokio_postgres::query=trace".to_owned()));
    let mut sidecar = Sidecar::start(&database, run).await;
    let secret = format!("{CANARY}, and more of it");
    stored(&database, "crm", &receiver.url("/crm"), &secret).await;
    stored(&database, "short", &receiver.url("/short"), CANARY).await;
    stored(
        &database,
        "bent",
        &receiver.url("/bent"),
        &format!("[\"{secret}\", {{\"secret\": \"{CANARY}\", \"until\": \"soon\"}}]"),
    )
    .await;
    let is_ours = |request: &Request| verifies(request, &secret);
    rows_until((&database, &receiver, "/crm"), 1, "a plain one", is_ours).await;
    let (code, _, err) = walhook(&sidecar, &["secrets", "encrypt"]).await;
    assert_eq!(code, Some(0), "{err}");
    rows_until((&database, &receiver, "/crm"), 1000, "an encrypted one", is_ours).await;
    sidecar.logged("secret 0 makes a key of").await;

    // A server tells the whole row where it refuses one.
    let strict = "alter table walhook.webhooks add constraint strict check (secret not like '[%') not valid";
    database.execute(strict).await;
    sidecar.write_file(&database, OPEN);
    database.execute(&format!("update walhook.webhooks set secret = '{secret}' where name = 'crm'")).await;
    let verbose = [("WALHOOK_LOG", "trace,tokio_postgres::query=trace")];
    let file = sidecar.file().display().to_string();
    let output = run_once(&["webhooks", "rotate", "crm", "--config", &file], &verbose).await;
    let err = String::from_utf8(output.stderr).expect("plain text");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    assert!(err.contains("the database cannot store"), "{err}");
    assert!(!err.contains(CANARY) && !err.contains("whsec_"), "{err}");

    sidecar.stop().await;
    let log = sidecar.log_text();
    assert!(log.contains("TRACE"), "it was verbose");
    for told in [CANARY, &hex::encode(CANARY), &"11".repeat(32), &"17, ".repeat(8)] {
        assert!(!log.contains(told), "`{told}` in the log");
    }
}
