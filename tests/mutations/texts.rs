//! Texts that people and receivers write, bent: conditions, configurations, signatures.

use super::bend::{Run, bend, bend_text, pick};
use super::told;

const CONDITIONS: [&str; 20] = [
    "record.total > 100",
    "record.status == 'paid' && old.status != 'paid'",
    "changed.contains('status') || 'total' in changed",
    "has(record.note) ? record.note.startsWith(\"é\") : false",
    "record.at > timestamp('2026-01-01T00:00:00Z')",
    "timestamp(record.at) - duration('1h30m') < record.at",
    "record.meta.a[0] == 1 && record.meta.a[1].b == 'x'",
    "record.id in [1, 7, 9] && !(record.id % 2 == 0)",
    "size(record.status) == 4 || record.status.matches('^p.*d$')",
    "operation == 'update' && schema == 'public' && table == 'orders' && type.endsWith('.updated')",
    "record['total'] - 0.5 >= 120.0 / 1.0",
    "int(record.total) == 120 || string(record.id) == '7' || double(record.id) == 7.0",
    "record.at.getMonth() == 10 && record.at.getDayOfWeek() == 6",
    "// a comment\nrecord.paid == true",
    "record == old",
    "{'a': 1, 'b': [true, null]}.a == 1",
    "-record.id < 0u || b'x' == bytes('x')",
    "record.meta.big > 9223372036854775807u",
    "'a\\u00e9\\n' + \"b\" == r'c' || '''d''' == \"\"\"d\"\"\"",
    "record.id * 9223372036854775807 > 1 || 1 / 0 == 1",
];

const SECRETS: [&str; 4] = ["Zp3vXq81LmTk", "Hw7rYd25NbGc", "Jf9sKe64VtPa", "Rc4uMo58BxQi"];

/// Every section, with a secret wherever there is room for one.
const CONFIG: &str = r#"
[database]
url = "postgres://app:Zp3vXq81LmTk@db.example.com/app?sslmode=require"
slot = "walhook"
on_slot_lost = "recreate"

[ledger]
url = "postgres://ledger:Zp3vXq81LmTk@db.example.com/ledger"
retention = "7d"
capture_response = "4KiB"

[server]
listen = "127.0.0.1:8787"
admin_token = "Hw7rYd25NbGc"

[security]
allow_networks = ["10.0.0.0/8", "fd00::/8"]

[delivery]
timeout = "15s"
ordering = "row"
retry = { schedule = ["5s", "1m"], jitter = 0.1, give_up_on = [400] }

[tables."shop.orders"]
event = "order"
exclude = ["internal_note"]
mask = { email = "hash" }

[[events]]
type = "phase.completed"
table = "phases"
on = ["update"]
when = "record.status == 'completed'"

[[webhooks]]
name = "crm"
url = "https://crm.example.com/hooks"
secret = ["Jf9sKe64VtPa", "Jf9sKe64VtPa-2"]
events = ["order.*", "order.schema_changed"]
filter = "record.total > 100"
headers = { Authorization = "Bearer Rc4uMo58BxQi", "X-Api-Version" = "3" }
format = "standard"

[[webhooks]]
name = "chat"
url = "https://chat.example.com/"
secret = "Jf9sKe64VtPa"
events = ["order.created"]
template = "slack"

[templates.slack]
body = '''{"text": "Order {{data.record.id}}"}'''
"#;

#[test]
fn bent_conditions_are_refused_with_a_place_or_have_one_answer() {
    for condition in CONDITIONS {
        told::condition(condition);
        assert!(walhook::matcher::Condition::compile(condition).is_ok(), "{condition}");
    }
    let mut run = Run::of(4);
    while run.goes_on() {
        let (text, other) = (*pick(&mut run.dice, &CONDITIONS), *pick(&mut run.dice, &CONDITIONS));
        let bent = bend_text(&mut run.dice, text, other, "()[]{}.,:?!&|=<>+-*/%'\"\\ \n0195eux_ar\0");
        run.check(&bent, || told::condition(&bent));
    }
    run.end();
}

/// Lines change places, keys and marks are bent; what stands between quotes after a `=` stays, so that a secret is one
/// wherever it comes to stand.
fn bent_config(dice: &mut fastrand::Rng) -> String {
    let mut lines: Vec<String> = CONFIG.lines().map(str::to_owned).collect();
    for _ in 0..dice.u8(1..=4) {
        let at = dice.usize(..lines.len());
        let holds_a_secret = SECRETS.iter().any(|secret| lines[at].contains(secret));
        match dice.u8(0..6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 if !holds_a_secret => {
                let other = dice.usize(..lines.len());
                let moves_a_secret = SECRETS.iter().any(|secret| lines[other].contains(secret));
                if !moves_a_secret {
                    lines.swap(at, other);
                }
            }
            _ if holds_a_secret => {
                let (key, value) = lines[at].split_once('=').expect("a key with a value");
                lines[at] = format!("{}={value}", bend_text(dice, key, "secret", "\"'.[]# a_"));
            }
            _ => {
                let other = pick(dice, &lines).clone();
                let other =
                    if SECRETS.iter().any(|secret| other.contains(secret)) { String::new() } else { other };
                lines[at] = bend_text(dice, &lines[at], &other, "\"'.[]{}=,# \n0195_-a\\\0é");
            }
        }
    }
    lines.join("\n")
}

#[test]
fn bent_configurations_load_or_tell_places_and_never_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("walhook.toml");
    told::config(&file, CONFIG, &SECRETS);
    let mut run = Run::of(4);
    while run.goes_on() {
        let bent = bent_config(&mut run.dice);
        run.check(&bent, || told::config(&file, &bent, &SECRETS));
    }
    run.end();
}

#[test]
fn a_bent_request_is_believed_only_where_it_still_is_the_signed_one() {
    let signed = told::signed();
    let mut run = Run::of(1);
    while run.goes_on() {
        let mut parts = [signed.as_slice(), &[told::BODY.to_vec()]].concat();
        for _ in 0..run.dice.u8(0..3) {
            let at = run.dice.usize(0..parts.len());
            let other = pick(&mut run.dice, &signed).clone();
            bend(&mut run.dice, &mut parts[at], &other);
        }
        let repeated = [parts[2].as_slice(), &signed[2]].join(&b" "[..]);
        for signature in [&parts[2], &repeated] {
            run.check(&parts, || told::signature([&parts[0], &parts[1], signature], &parts[3]));
        }
    }
    run.end();
}
