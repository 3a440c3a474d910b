//! Bodies as they are sent, byte for byte.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::domain::{
    Cell, Change, Column, CommitLsn, EventId, Int8, Lsn, Mask, OldRow, Operation, Origin, Place, Relation,
    ReplicaIdentity, TableRule, TableRules, Transaction, Tuple, ValueKind,
};

const MAX: usize = 64 * 1024;

/// Numbers and JSON as they are, the rest as strings: enough of the real writer to see values pass.
pub(super) fn write(kind: &ValueKind, text: &[u8], out: &mut Vec<u8>) {
    match kind {
        ValueKind::Integer | ValueKind::Json => out.extend_from_slice(text),
        _ => out.extend_from_slice(serde_json::to_string(&String::from_utf8_lossy(text)).unwrap().as_bytes()),
    }
}

fn column(name: &str, kind: ValueKind) -> Column {
    Column {
        name: name.into(),
        type_oid: 25,
        type_name: None,
        type_modifier: -1,
        in_identity: name == "id",
        kind,
    }
}

fn relation() -> Arc<Relation> {
    Arc::new(Relation {
        id: 1,
        schema: "public".into(),
        name: "orders".into(),
        identity: ReplicaIdentity::Default,
        columns: [
            column("id", ValueKind::Integer),
            column("status", ValueKind::Text),
            column("note", ValueKind::Text),
            column("extra", ValueKind::Json),
        ]
        .into(),
    })
}

pub(super) fn text(value: &str) -> Cell {
    Cell::Text(bytes::Bytes::copy_from_slice(value.as_bytes()))
}

pub(super) fn row(status: &str, note: Cell) -> Tuple {
    Tuple(vec![text("7"), text(status), note, text(r#"{"tags":["a","b"],"n":1.0}"#)])
}

pub(super) fn change(operation: Operation, new: Option<Tuple>, old: Option<OldRow>) -> Change {
    Change { relation: relation(), operation, new, old, sequence: 3 }
}

fn update() -> Change {
    let old = OldRow::Full(row("paid", text("hi")));
    change(Operation::Update, Some(row("shipped", Cell::Unchanged)), Some(old))
}

fn data(change: &Change, rules: &TableRules) -> String {
    let mut out = Vec::new();
    write_data(change, rules, write, &mut out);
    String::from_utf8(out).unwrap()
}

pub(super) fn event() -> Event {
    let origin = Origin { system: 1, generation: 1 };
    let commit = CommitLsn(Lsn(0x01A2_B3C8));
    let place = Place { origin, commit, sequence: 3 };
    let committed_at: Timestamp = "2026-11-21T20:21:29.12Z".parse().unwrap();
    Event {
        id: EventId::from_ledger("evt_1"),
        event_type: "orders.updated".into(),
        place,
        transaction: Transaction { commit, committed_at, xid: 735 },
        database: "my app".into(),
    }
}

fn body(shape: &BodyShape, templates: &Templates, change: &Change) -> Result<String, RenderError> {
    let data = data(change, &TableRules::default());
    let renderer = templates.renderer(shape).unwrap();
    let body = renderer.render(&event(), data.as_bytes(), "crm", MAX)?.body;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

fn format(format: Format, change: &Change, expect: &str) {
    let got = body(&BodyShape::Format(format), &Templates::default(), change).unwrap();
    assert_eq!(got, expect);
    serde_json::from_str::<serde_json::Value>(&got).unwrap();
}

const RECORD: &str = r#"{"id":7,"status":"shipped","note":"hi","extra":{"tags":["a","b"],"n":1.0}}"#;
const OLD: &str = r#"{"id":7,"status":"paid","note":"hi","extra":{"tags":["a","b"],"n":1.0}}"#;

#[test]
fn data_has_exactly_the_documented_keys_in_order() {
    let check = |change: Change, expect: String| assert_eq!(data(&change, &TableRules::default()), expect);
    check(
        update(),
        format!(
            r#"{{"operation":"update","schema":"public","table":"orders","record":{RECORD},"old":{OLD},"changed":["status"],"unavailable":[]}}"#
        ),
    );
    check(
        change(Operation::Update, Some(Tuple(vec![text("7"), Cell::Null, Cell::Unchanged, text("1")])), None),
        r#"{"operation":"update","schema":"public","table":"orders","record":{"id":7,"status":null,"extra":1},"old":null,"changed":null,"unavailable":["note"]}"#.to_owned(),
    );
    check(
        change(Operation::Delete, None, Some(OldRow::Key(Tuple(vec![text("7"), Cell::Null])))),
        r#"{"operation":"delete","schema":"public","table":"orders","record":null,"old":{"id":7},"changed":null,"unavailable":[]}"#.to_owned(),
    );
    check(
        change(Operation::Truncate, None, None),
        r#"{"operation":"truncate","schema":"public","table":"orders","record":null,"old":null,"changed":null,"unavailable":[]}"#.to_owned(),
    );
}

#[test]
fn excluded_columns_are_nowhere_and_masked_ones_masked() {
    let rule = TableRule {
        exclude: vec!["status".to_owned(), "extra".to_owned()],
        mask: vec![("note".to_owned(), Mask::Redact)],
        ..TableRule::default()
    };
    let change = update();
    let expect = r#"{"operation":"update","schema":"public","table":"orders","record":{"id":7,"note":"[redacted]"},"old":{"id":7,"note":"[redacted]"},"changed":[],"unavailable":[]}"#;
    assert_eq!(data(&change, &TableRules::resolve(Some(&rule), Int8::Number, &change.relation)), expect);
}

#[test]
fn a_long_integer_is_a_string_where_that_is_asked_for_of_all_tables_or_of_one() {
    let of = |of_table, of_all| {
        let long = ValueKind::LongInteger;
        let relation = Relation {
            columns: vec![
                column("id", ValueKind::Integer),
                column("big", long.clone()),
                column("many", ValueKind::Array(Box::new(long), b',')),
            ]
            .into(),
            ..(*update().relation).clone()
        };
        let new = Some(Tuple(vec![text("1"), text("2"), text("{3}")]));
        let change = Change { relation: Arc::new(relation), new, old: None, ..update() };
        let rule = TableRule { int8: of_table, ..TableRule::default() };
        let rules = TableRules::resolve(Some(&rule), of_all, &change.relation);
        assert_eq!(rules.kind(0, &ValueKind::Integer), &ValueKind::Integer);
        [rules.kind(1, &change.relation.columns[1].kind), rules.kind(2, &change.relation.columns[2].kind)]
            .map(Clone::clone)
    };
    let list = |of| ValueKind::Array(Box::new(of), b',');
    let numbers = [ValueKind::LongInteger, list(ValueKind::LongInteger)];
    let strings = [ValueKind::Text, list(ValueKind::Text)];
    assert_eq!(of(None, Int8::Number), numbers);
    assert_eq!(of(None, Int8::String), strings);
    assert_eq!(of(Some(Int8::String), Int8::Number), strings);
    assert_eq!(of(Some(Int8::Number), Int8::String), numbers);
}

#[test]
fn the_standard_body_is_as_documented() {
    let data = data(&update(), &TableRules::default());
    format(
        Format::Standard,
        &update(),
        &format!(
            r#"{{"id":"evt_1","type":"orders.updated","timestamp":"2026-11-21T20:21:29.120000Z","data":{data},"metadata":{{"database":"my app","lsn":"0/1A2B3C8","xid":735,"sequence":3,"webhook":"crm"}}}}"#
        ),
    );
    format(Format::Raw, &update(), &data);
}

#[test]
fn the_cloudevents_body_has_the_required_attributes() {
    let data = data(&update(), &TableRules::default());
    format(
        Format::Cloudevents,
        &update(),
        &format!(
            r#"{{"specversion":"1.0","id":"evt_1","source":"/walhook/my%20app","type":"orders.updated","time":"2026-11-21T20:21:29.120000Z","datacontenttype":"application/json","subject":"public.orders","data":{data}}}"#
        ),
    );
    let renderer = Templates::default().renderer(&BodyShape::Format(Format::Cloudevents)).unwrap();
    assert_eq!(renderer.content_type(), "application/cloudevents+json");
}

#[test]
fn the_supabase_body_has_supabases_names() {
    format(
        Format::Supabase,
        &update(),
        &format!(
            r#"{{"type":"UPDATE","table":"orders","schema":"public","record":{RECORD},"old_record":{OLD}}}"#
        ),
    );
    let delete = change(Operation::Delete, None, Some(OldRow::Full(row("paid", text("hi")))));
    format(
        Format::Supabase,
        &delete,
        &format!(
            r#"{{"type":"DELETE","table":"orders","schema":"public","record":null,"old_record":{OLD}}}"#
        ),
    );
}

#[test]
fn the_sequin_body_has_sequins_names() {
    let metadata = r#"{"table_schema":"public","table_name":"orders","idempotency_key":"evt_1","commit_timestamp":"2026-11-21T20:21:29.120000Z","commit_lsn":27440072,"commit_idx":3,"database_name":"my app","transaction_annotations":null,"consumer":{"id":"crm","name":"crm","annotations":{}},"database":{"name":"my app","annotations":{},"database":"my app"}}"#;
    format(
        Format::Sequin,
        &update(),
        &format!(
            r#"{{"record":{RECORD},"changes":{{"status":"paid"}},"action":"update","metadata":{metadata}}}"#
        ),
    );
    let delete = change(Operation::Delete, None, Some(OldRow::Full(row("paid", text("hi")))));
    format(
        Format::Sequin,
        &delete,
        &format!(r#"{{"record":{OLD},"changes":null,"action":"delete","metadata":{metadata}}}"#),
    );
    let snapshot = change(Operation::Snapshot, Some(row("shipped", text("hi"))), None);
    format(
        Format::Sequin,
        &snapshot,
        &format!(r#"{{"record":{RECORD},"changes":null,"action":"read","metadata":{metadata}}}"#),
    );
    let moved = change(
        Operation::Update,
        Some(row("shipped", text("hi"))),
        Some(OldRow::Key(Tuple(vec![text("6")]))),
    );
    format(
        Format::Sequin,
        &moved,
        &format!(r#"{{"record":{RECORD},"changes":{{"id":6}},"action":"update","metadata":{metadata}}}"#),
    );
}

pub(super) fn templated(content_type: &str, source: &str, change: &Change) -> Result<String, RenderError> {
    let source =
        TemplateSource { name: "t".into(), content_type: content_type.into(), body: source.to_owned() };
    let templates = Templates::compile_all(&[source]).unwrap_or_else(|errors| panic!("{errors:?}"));
    body(&BodyShape::Template("t".into()), &templates, change)
}

#[test]
fn templates_print_escape_and_compute() {
    let awkward = change(Operation::Update, Some(row("shipped", text("a \"q\"\n<b> & é"))), None);
    let check = |content_type: &str, source: &str, expect: &str| {
        assert_eq!(templated(content_type, source, &awkward).unwrap(), expect, "{source}");
    };
    let json = |source: &str, expect: &str| check("application/json", source, expect);
    json(
        r#"{"text":"Order {{data.record.id}} is now {{data.record.status}}"}"#,
        r#"{"text":"Order 7 is now shipped"}"#,
    );
    json(r#"{"n":"{{data.record.note}}"}"#, r#"{"n":"a \"q\"\n<b> & é"}"#);
    json(
        r#"{"t":{{data.record.extra.tags}},"e":{{data.record.extra}}}"#,
        r#"{"t":["a","b"],"e":{"tags":["a","b"],"n":1.0}}"#,
    );
    json("{{json data.record.note}}", r#""a \"q\"\n<b> & é""#);
    json("[{{json data.old}},\"{{data.old}}\",{{metadata.xid}}]", r#"[null,"",735]"#);
    json(
        r#"["{{upper (concat type "-" metadata.webhook)}}","{{default data.record.nope "none"}}"]"#,
        r#"["ORDERS.UPDATED-CRM","none"]"#,
    );
    json(
        r#"[{{#each data.record.extra.tags}}"{{this}}{{@index}}"{{#unless @last}},{{/unless}}{{/each}}]"#,
        r#"["a0","b1"]"#,
    );
    json(r#"{{#if (eq data.record.status "shipped")}}1{{else}}2{{/if}}"#, "1");
    json(r#""{{replace data.record.status "ship" "\""}}""#, r#""\"ped""#);
    check(
        "text/plain",
        "{{date timestamp \"%Y-%m-%d\"}} {{date timestamp \"%H:%M\" tz=\"Europe/Berlin\"}}",
        "2026-11-21 21:21",
    );
    check(
        "text/plain",
        "{{truncate data.record.status 4}} {{truncate data.record.status 7}} {{lower \" A\"}} {{trim \" A \"}}",
        "shi… shipped  a A",
    );
    check(
        "text/plain",
        "{{urlencode data.record.note}} {{base64 \"hi\"}}",
        "a%20%22q%22%0A%3Cb%3E%20%26%20%C3%A9 aGk=",
    );
    json(
        r#"["{{slack data.record.note}}","{{html data.record.note}}"]"#,
        r#"["a \"q\"\n&lt;b&gt; &amp; é","a &quot;q&quot;\n&lt;b&gt; &amp; é"]"#,
    );
    check("text/plain", "{{data.record.note}} {{data.record.extra.tags}}", "a \"q\"\n<b> & é [\"a\",\"b\"]");
    check(
        "application/xml",
        "<n>{{data.record.note}}</n>{{{data.record.note}}}",
        "<n>a &quot;q&quot;\n&lt;b&gt; &amp; é</n>a \"q\"\n<b> & é",
    );
    check(
        "application/x-www-form-urlencoded",
        "note={{data.record.note}}",
        "note=a+%22q%22%0A%3Cb%3E+%26+%C3%A9",
    );
}

#[test]
fn a_template_that_fails_on_a_row_says_where_and_tells_no_value() {
    let check = |content_type: &str, source: &str, expect: &str| {
        let error = templated(content_type, source, &update()).unwrap_err();
        assert!(matches!(error.reason(), FailReason::NotRendered(_)));
        assert!(error.to_string().contains(expect), "{source}: {error}");
        assert!(!error.to_string().contains("shipped"), "{error}");
    };
    check(
        "text/plain",
        "a\n {{data.record.nope}}",
        "template t: line 2, column 2: there is no field data.record.nope",
    );
    check("text/plain", "{{upper data.record.nope}}", "there is no field data.record.nope");
    check(
        "text/plain",
        "{{#if type}}\n  {{#each data.record.extra.tags}}\n    {{this.nope}}\n  {{/each}}\n{{/if}}",
        "template t: line 3, column 5: there is no field this.nope",
    );
    check(
        "application/json",
        "{\n\"a\": \"{{upper (concat data.record.nope type)}}\"}",
        "template t: line 2, column 7: there is no field data.record.nope",
    );
    check(
        "text/plain",
        "{{type}}\n{{date data.record.status \"%Y\"}}",
        "template t: line 2, column 1: the first argument of date is no timestamp",
    );
    check("text/plain", "{{#each data.record.nope}}x{{/each}}", "there is no field data.record.nope");
    check("text/plain", "{{eq data.record.nope 1}}", "argument 1 of eq is missing");
    check("text/plain", "{{date data.record.status \"%Y\"}}", "the first argument of date is no timestamp");
    check("application/json", "{\"a\":{{data.record.status}}}", "makes no valid JSON");
}

#[test]
fn loops_and_output_are_bounded() {
    let big = format!("[{}0]", "0,".repeat(2000));
    let wide =
        change(Operation::Insert, Some(Tuple(vec![text("7"), text("x"), text("y"), text(&big)])), None);
    let nested = "{{#each data.record.extra}}{{#each @root.data.record.extra}}{{/each}}{{/each}}";
    let error = templated("text/plain", nested, &wide).unwrap_err().to_string();
    assert!(error.contains("turns"), "{error}");
    let much = "{{data.record.extra}}".repeat(20);
    assert!(matches!(templated("text/plain", &much, &wide), Err(RenderError::TooLarge { max_bytes: MAX })));
    let format = BodyShape::Format(Format::Standard);
    let renderer = Templates::default().renderer(&format).unwrap();
    let small = data(&update(), &TableRules::default());
    let result = renderer.render(&event(), small.as_bytes(), "crm", 100).unwrap_err();
    assert!(matches!(result.reason(), FailReason::TooLarge(_)));
}

#[test]
fn a_bad_template_is_refused_with_its_place() {
    let check = |source: &str, expect: &str| {
        let error = check_template(source).unwrap_err().to_string();
        assert!(error.contains(expect), "{}: {error}", source.chars().take(60).collect::<String>());
    };
    check("{{uper x}}", "line 1, column 1: there is no helper \"uper\"; did you mean upper?");
    check("a\n{{#if x}}", "");
    check("{{> other}}", "partials and decorators are not available");
    check("{{#> other}}{{/other}}", "partials and decorators are not available");
    check("{{#*inline \"x\"}}{{/inline}}", "partials and decorators are not available");
    check("{{* x}}", "partials and decorators are not available");
    check("{{log data}}", "there is no helper \"log\"");
    check("{{#data.record}}x{{/data.record}}", "");
    check(&("{{#if a}}".repeat(17) + &"{{/if}}".repeat(17)), "more than 16 deep");
    check(&format!("{{{{upper {}a{}}}}}", "(upper ".repeat(17), ")".repeat(17)), "more than 16 deep");
    check(&format!("{{{{upper {}", "(".repeat(15_000)), "more than 16 deep");
    check(&"{{#if a}}{{!{{/if}}".repeat(400), "blocks");
    check(&format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else if a}}".repeat(65)), "chains more than 64");
    check(&"x".repeat(16 * 1024 + 1), "16384 are allowed");
}

#[test]
fn the_deepest_template_allowed_renders_on_an_ordinary_stack() {
    let chain =
        "{{#if data.old.nope}}1".to_owned() + &"{{else if data.old.nope}}1".repeat(63) + "{{else}}2{{/if}}";
    let deep = "{{#if type}}".repeat(15) + &chain + &"{{/if}}".repeat(15);
    let render = move || templated("text/plain", &deep, &update()).unwrap();
    let rendered = std::thread::Builder::new().stack_size(1024 * 1024).spawn(render);
    assert_eq!(rendered.unwrap().join().unwrap(), "2");
}

#[test]
fn json_that_is_no_value_here_reaches_a_template_as_its_text() {
    let odd = change(
        Operation::Insert,
        Some(Tuple(vec![text("7"), text("x"), text("y"), text(r#"["\ud800",1e999]"#)])),
        None,
    );
    assert_eq!(templated("text/plain", "{{data.record.extra}}", &odd).unwrap(), r#"["\ud800",1e999]"#);
    for shape in [Format::Standard, Format::Cloudevents, Format::Supabase, Format::Sequin, Format::Raw] {
        let body = body(&BodyShape::Format(shape), &Templates::default(), &odd).unwrap();
        assert!(body.contains(r#""extra":["\ud800",1e999]"#), "{body}");
    }
}

proptest! {
    #[test]
    fn any_row_makes_valid_json_in_which_it_is_found_again(
        status in ".*", note in proptest::option::of(".*"), webhook in ".*", shape in 0_usize..5,
    ) {
        let note_cell = note.as_deref().map_or(Cell::Null, text);
        let change = change(Operation::Insert, Some(row(&status, note_cell)), None);
        let shape = [Format::Standard, Format::Cloudevents, Format::Supabase, Format::Sequin, Format::Raw][shape];
        let renderer = Templates::default().renderer(&BodyShape::Format(shape)).unwrap();
        let data = data(&change, &TableRules::default());
        let body = renderer.render(&event(), data.as_bytes(), &webhook, MAX).unwrap().body;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let record = body.get("record").or_else(|| body.get("data")?.get("record")).unwrap();
        prop_assert_eq!(&record["status"], &serde_json::json!(status));
        prop_assert_eq!(&record["note"], &serde_json::json!(note));
        prop_assert_eq!(&record["extra"]["n"], &serde_json::json!(1.0));
    }

    #[test]
    fn no_text_as_a_template_panics(source in "(\\{\\{|\\}\\}|#if |/if|else|\\(|\\)|a|\\.|\"|\\^|~|!|--|\\{){0,40}") {
        if let Err(error) = check_template(&source) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
