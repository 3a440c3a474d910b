//! What a template may hold and work through, whatever it says and whatever the row holds.

use super::budget;
use super::tests::{change, templated, text};
use crate::domain::{Operation, Tuple, limits};

const VALUE: usize = limits::TEMPLATE_VALUE_BYTES;

/// Renders with a row that has this note and this JSON; the body, or the reason, and how many bytes were worked through.
fn rendered(template: &str, note: &str, extra: &str) -> (Result<String, String>, usize) {
    let row = Tuple(vec![text("7"), text("x"), text(note), text(extra)]);
    let made = templated("text/plain", template, &change(Operation::Insert, Some(row), None));
    (made.map_err(|error| error.to_string()), budget::spent())
}

fn check_refused(template: &str, (note, extra): (&str, &str), words: &str) {
    let (made, spent) = rendered(template, note, extra);
    let reason = made.expect_err(template);
    assert!(reason.starts_with("template t: line 1, column "), "{template}: {reason}");
    assert!(reason.contains(words), "{template}: {reason}");
    let row = note.len() + extra.len() + 1024;
    // JSON takes a character of the note for up to two bytes.
    let budget = limits::TEMPLATE_WORK_BYTES + limits::TEMPLATE_WORK_TIMES_ROW * 2 * row;
    assert!(spent <= budget, "{template}: {spent} bytes of {budget}");
}

#[test]
fn no_helper_makes_more_than_its_bound_of_whatever_it_is_given() {
    let long = "&".repeat(VALUE + 1);
    let list = format!("[\"{}\"]", "y".repeat(VALUE));
    for call in [
        "upper data.record.note",
        "lower data.record.note",
        "trim data.record.note",
        "base64 data.record.note",
        "urlencode data.record.note",
        "html data.record.note",
        "slack data.record.note",
        "json data.record.note",
        "concat data.record.note",
        "replace data.record.note \"z\" \"\"",
        "truncate data.record.note 2000000",
        "truncate \"ab\" 1 end=data.record.note",
        "default data.record.note",
        "lookup data.record \"note\"",
        "lookup data \"record\"",
        "upper data.record.extra",
        "date timestamp data.record.note",
    ] {
        // As a value, so that the bound of the body has no part in it.
        let template = format!("{{{{len ({call})}}}}");
        if call.contains("end=") {
            // No more than it is to keep.
            assert_eq!(rendered(&template, &long, &list).0, Ok("1".to_owned()));
            continue;
        }
        let helper = call.split(' ').next().unwrap_or_default();
        check_refused(&template, (&long, &list), helper);
        check_refused(&template, (&long, &list), " bytes");
    }
    // What makes more of it than is there, of what is still short enough.
    let short = "&".repeat(VALUE / 2);
    for call in [
        "base64 (concat data.record.note data.record.note)",
        "html data.record.note",
        "urlencode data.record.note",
    ] {
        check_refused(&format!("{{{{len ({call})}}}}"), (&short, "[]"), "makes is over 1048576 bytes");
    }
    let long =
        rendered("{{truncate data.record.note 3}} {{len (trim (truncate data.record.note 9))}}", &long, "[]")
            .0;
    assert_eq!(long, Ok("&&… 11".to_owned()), "the row's own text may be of any length");
}

#[test]
fn helpers_within_helpers_are_held_to_the_bound_at_each_step() {
    let quotes = "\"".repeat(16 * 1024);
    let nested = |helper: &str| {
        format!("{{{{upper {}data.record.note{}}}}}", format!("({helper} ").repeat(15), ")".repeat(15))
    };
    check_refused(&nested("json"), (&quotes, "[]"), "what json makes is over 1048576 bytes");
    check_refused(&nested("html"), (&quotes, "[]"), " bytes");
    check_refused(&nested("base64"), (&quotes, "[]"), "what base64 makes is over 1048576 bytes");
    let twice = |inner: String| format!("(concat {inner} {inner})");
    let doubled = (0..8).fold("data.record.note".to_owned(), |inner, _| twice(inner));
    check_refused(
        &format!("{{{{{}}}}}", doubled.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap()),
        (&quotes, "[]"),
        " bytes",
    );
}

#[test]
fn turns_times_what_each_works_through_are_bounded_by_bytes() {
    let note = "n".repeat(512 * 1024);
    let turns = format!("[{}0]", "0,".repeat(50_000));
    let keyed = format!("{{\"{}\":[1,2]}}", "k".repeat(512 * 1024));
    let work = "work through more than";
    for inner in [
        "{{len (upper @root.data.record.note)}}",
        "{{len (lookup @root.data.record \"note\")}}",
        "{{truncate @root.data.record.note 1}}",
        "{{#if (eq @root.data.record.note @root.data.record.note)}}{{/if}}",
        "{{#if (gt @root.data.record.note @root.data.record.note)}}{{/if}}",
        "{{date @root.timestamp @root.data.record.note}}",
        "{{#if (default @root.data.record.note)}}{{/if}}",
        "{{#with (concat @root.data.record.note) as |x|}}{{#if x}}{{/if}}{{/with}}",
    ] {
        let template = format!("{{{{#each data.record.extra}}}}{inner}{{{{/each}}}}");
        let words = if inner.contains("date") { "format given to date is over" } else { work };
        check_refused(&template, (&note, &turns), words);
    }
    // What the engine copies to name it: inside what a helper made, and a loop's key.
    let copied = format!(
        "{{{{#with (lookup data.record \"note\")}}}}{}{{{{/with}}}}",
        "{{#if this}}{{/if}}".repeat(200)
    );
    check_refused(&copied, (&note, "[]"), work);
    let at_once = format!(
        "{{{{#with (lookup data.record \"note\")}}}}{{{{len (concat {})}}}}{{{{/with}}}}",
        "this ".repeat(2000)
    );
    check_refused(&at_once, (&note, "[]"), work);
    let keys = format!(
        "{{{{#each data.record.extra}}}}{{{{#if (and {})}}}}{{{{/if}}}}{{{{/each}}}}",
        "@key ".repeat(2000)
    );
    check_refused(&keys, ("x", &keyed), work);
    // Bodies of many elements that do nothing.
    let much = format!("{{{{#each data.record.extra}}}}{}{{{{/each}}}}", "{{#if @first}}{{/if}}".repeat(200));
    check_refused(&much, ("x", &turns), work);
}

#[test]
fn ordinary_templates_are_far_from_the_budget() {
    let items: Vec<String> = (0..1000).map(|n| format!("{{\"sku\":\"A-{n}\",\"n\":{n}}}")).collect();
    let template = "{{#each data.record.extra as |item|}}{{upper item.sku}} {{json item}}{{#if (gt item.n 5)}}+{{/if}}\n{{/each}}{{#with (lookup data.record \"note\")}}{{this}}{{/with}}";
    let (made, spent) = rendered(template, "a note", &format!("[{}]", items.join(",")));
    assert!(made.is_ok_and(|text| text.ends_with("A-999 {\"sku\":\"A-999\",\"n\":999}+\na note")));
    assert!(spent < limits::TEMPLATE_WORK_BYTES / 20, "{spent}");
}
