//! `batch`: several deliveries in one request.

use std::time::Duration;

use super::node::Table;
use super::problem::Fault;
use super::units::show_duration;
use super::webhooks::Surroundings;
use crate::domain::{BatchPolicy, BodyShape, Format, array_type, limits};

const BYTES_MIN: usize = 1024;
/// Half as long as `handover_after` may be; the one that is set bounds it further.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A table, or `false` for none; what is not written stays as in `base`.
pub(super) fn read(table: &mut Table<'_>, base: Option<BatchPolicy>) -> Option<BatchPolicy> {
    if table.take_false("batch") {
        return None;
    }
    let is_written = table.has("batch");
    let read = table.section("batch", |section| policy(section, &base.unwrap_or_default()));
    if is_written { read.or(base) } else { base }
}

fn policy(mut table: Table<'_>, base: &BatchPolicy) -> BatchPolicy {
    let most = u32::try_from(limits::BATCH_EVENTS).unwrap_or(u32::MAX);
    let max_events = table.get("max_events", |node| node.integer(1..=most));
    let policy = BatchPolicy {
        max_events: max_events.and_then(|count| usize::try_from(count).ok()).unwrap_or(base.max_events),
        max_wait: table
            .get("max_wait", |node| node.duration(Duration::ZERO..=WAIT_MAX))
            .unwrap_or(base.max_wait),
        max_bytes: table
            .get("max_bytes", |node| node.size(BYTES_MIN..=limits::BATCH_BYTES))
            .unwrap_or(base.max_bytes),
    };
    table.finish();
    policy
}

/// Refuses to wait until deliveries leave memory.
pub(super) fn check_wait(table: &Table<'_>, batch: Option<BatchPolicy>, handover_after: Duration) {
    if let Some(batch) = batch
        && batch.max_wait > handover_after / 2
    {
        let (wait, handover) = (show_duration(batch.max_wait), show_duration(handover_after));
        let fault = Fault::new(format!(
            "a delivery would wait {wait} for others, longer than half of delivery.handover_after ({handover})"
        ));
        let fault = fault.detail("What is in memory for that long goes to the ledger, waiting or not.");
        table.doc.report(&table.path.key("batch").key("max_wait"), fault.hint("Set max_wait to less."));
    }
}

/// Refuses batches of bodies that are no JSON.
pub(super) fn check_shape(
    table: &Table<'_>,
    batch: Option<BatchPolicy>,
    body: &BodyShape,
    around: &Surroundings<'_>,
) {
    if batch.is_none() {
        return;
    }
    let found = match body {
        BodyShape::Format(Format::Xml) => "the format \"xml\" makes none".to_owned(),
        BodyShape::Format(Format::Form) => "the format \"form\" makes none".to_owned(),
        BodyShape::Format(Format::CloudeventsBinary) => {
            "the format \"cloudevents-binary\" has headers of each event beside it, which only \"cloudevents\" has in it"
                .to_owned()
        }
        BodyShape::Format(_) => return,
        BodyShape::Template(name) => {
            let Some(template) = around.template(name, table.doc.checks.stored) else { return };
            if array_type(&template.content_type).is_some() {
                return;
            }
            format!("the template {name} makes {}", template.content_type)
        }
    };
    let fault = Fault::new(format!("a batch is a JSON array of JSON bodies, and {found}"));
    let hint = "Set batch = false for this webhook, or give it a format or a template of JSON.";
    table.doc.report(&table.path.key("batch"), fault.hint(hint));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{ACCEPT_ALL, Folder};
    use super::super::{Strangers, load, webhook_from_row};
    use super::*;

    const HEAD: &str = "[database]\nurl = 'postgres://db/app'\n";

    #[test]
    fn a_webhooks_batch_stands_on_that_of_all_and_false_switches_it_off() {
        let text = format!(
            "{HEAD}[delivery]\nbatch = {{ max_events = 50 }}\n\
             [[webhooks]]\nname = 'a'\nurl = 'https://a'\nevents = ['*']\nbatch = {{ max_wait = '500ms', max_bytes = '2KiB' }}\n\
             [[webhooks]]\nname = 'b'\nurl = 'https://b'\nevents = ['*']\nformat = 'xml'\nbatch = false\n\
             [[webhooks]]\nname = 'c'\nurl = 'https://c'\nevents = ['*']\nformat = 'cloudevents'\n"
        );
        let folder = Folder::with(&text);
        let config = load(&folder.sources(&[]), &ACCEPT_ALL).unwrap_or_else(|problems| panic!("{problems}"));
        let batches: Vec<_> = config.webhooks.iter().map(|webhook| webhook.batch).collect();
        let (max_wait, max_bytes) = (Duration::from_millis(200), 1024 * 1024);
        let all = BatchPolicy { max_events: 50, max_wait, max_bytes };
        let own = BatchPolicy { max_events: 50, max_wait: Duration::from_millis(500), max_bytes: 2048 };
        assert_eq!(batches, [Some(own), None, Some(all)]);

        let row = |batch| {
            let row = json!({ "name": "t", "url": "https://t.example.com", "events": ["*"], "batch": batch });
            webhook_from_row(row.as_object().unwrap().clone(), &config, &ACCEPT_ALL, Strangers::Left)
                .unwrap()
                .batch
        };
        assert_eq!(row(json!({ "max_events": 7 })), Some(BatchPolicy { max_events: 7, ..all }));
        assert_eq!(row(json!(false)), None);
        assert_eq!(row(json!(null)), Some(all));
    }

    #[test]
    fn what_makes_no_json_is_refused_and_so_is_a_wait_beyond_the_time_in_memory() {
        let text = format!(
            "{HEAD}[delivery]\nhandover_after = '500ms'\nbatch = {{ max_wait = '600ms', max_event = 3 }}\n\
             [templates.plain]\ncontent_type = 'text/plain'\nbody = 'x'\n\
             [templates.chat]\nbody = '{{}}'\n\
             [[webhooks]]\nname = 'a'\nurl = 'https://a'\nevents = ['*']\nformat = 'xml'\n\
             [[webhooks]]\nname = 'b'\nurl = 'https://b'\nevents = ['*']\nformat = 'form'\nbatch = {{ max_wait = '900ms' }}\n\
             [[webhooks]]\nname = 'c'\nurl = 'https://c'\nevents = ['*']\nformat = 'cloudevents-binary'\n\
             [[webhooks]]\nname = 'd'\nurl = 'https://d'\nevents = ['*']\ntemplate = 'plain'\n\
             [[webhooks]]\nname = 'e'\nurl = 'https://e'\nevents = ['*']\ntemplate = 'chat'\nbatch = {{ max_events = 1001 }}\n"
        );
        let folder = Folder::with(&text);
        let told = load(&folder.sources(&[]), &ACCEPT_ALL).unwrap_err().to_string();
        for expect in [
            "delivery.batch.max_wait",
            "a delivery would wait 600ms for others, longer than half of delivery.handover_after (500ms)",
            "delivery.batch.max_event",
            "webhooks[0].batch",
            "a batch is a JSON array of JSON bodies, and the format \"xml\" makes none",
            "the format \"form\" makes none",
            "webhooks[1].batch.max_wait",
            "and the format \"cloudevents-binary\" has headers of each event beside it",
            "and the template plain makes text/plain",
            "expected a whole number from 1 to 1000, found 1001",
        ] {
            assert!(told.contains(expect), "{expect} is not in:\n{told}");
        }
        assert!(!told.contains("template chat"), "{told}");
    }
}
