//! The keys of the flow, in the file and in a row.

use std::time::Duration;

use serde_json::json;

use super::tests::{ACCEPT_ALL, Folder};
use super::*;
use crate::domain::RateLimit;

#[test]
fn a_webhooks_flow_stands_on_that_of_all_and_a_row_says_it_in_text() {
    let text = "[database]\nurl = 'postgres://db/app'\n[delivery]\nrate_limit = '100/s'\nbreaker = { window = '2m' }\n\
             [[webhooks]]\nname = 'a'\nurl = 'https://a'\nevents = ['*']\nconcurrency = 'auto'\n\
             breaker = { probe_after = '1s' }\nretry = { schedule = 'standard-webhooks', max_attempts = 3 }\n\
             [[webhooks]]\nname = 'b'\nurl = 'https://b'\nevents = ['*']\nbreaker = false\ndisable_after = false\n\
             retry = { initial = '1s', factor = 3, max = '8s', max_attempts = 5, wait_on = { 429 = '1m' } }\n";
    let folder = Folder::with(text);
    let config = load(&folder.sources(&[]), &ACCEPT_ALL).unwrap_or_else(|problems| panic!("{problems}"));
    let (a, b) = (&config.webhooks[0], &config.webhooks[1]);
    let per_second = Some(RateLimit { count: 100, per: Duration::from_secs(1) });
    assert_eq!((a.flow.adaptive, a.concurrency, a.flow.rate_limit), (true, 128, per_second));
    let breaker = a.flow.breaker.unwrap();
    assert_eq!((breaker.window, breaker.probe_after), (Duration::from_secs(120), Duration::from_secs(1)));
    assert_eq!(a.retry.schedule, [5, 300].map(Duration::from_secs));
    assert_eq!((b.flow.breaker, b.flow.disable_after, b.flow.adaptive), (None, None, false));
    assert_eq!(b.retry.schedule, [1, 3, 8, 8].map(Duration::from_secs));
    let backoff = "[database]\nurl = 'postgres://db/app'\n[delivery]\nretry = { initial = '5s', factor = 2.0, max = '2h', \
                   max_attempts = 12 }\n\
                   [[webhooks]]\nname = 'a'\nurl = 'https://a'\nevents = ['*']\n\
                   [[webhooks]]\nname = 'b'\nurl = 'https://b'\nevents = ['*']\nretry = { max_attempts = 13 }\n\
                   [[webhooks]]\nname = 'c'\nurl = 'https://c'\nevents = ['*']\nretry = { max = '1m' }\n";
    let folder = Folder::with(backoff);
    let config = load(&folder.sources(&[]), &ACCEPT_ALL).unwrap_or_else(|problems| panic!("{problems}"));
    let waits = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 7200].map(Duration::from_secs);
    assert_eq!(
        config.webhooks[0].retry.schedule,
        waits[..11],
        "it does not stop growing before its longest wait"
    );
    assert_eq!(config.webhooks[1].retry.schedule, waits);
    let short: Vec<_> = waits[..11].iter().map(|wait| (*wait).min(Duration::from_secs(60))).collect();
    assert_eq!(config.webhooks[2].retry.schedule, short, "what is not written stays");
    assert_eq!(b.retry.wait_on, [(429, Duration::from_secs(60))]);

    let row = json!({
        "name": "t1", "url": "https://t1.example.com", "events": ["*"], "concurrency": "7", "rate_limit": "60/m",
        "breaker": false, "disable_after": "false", "held_for": "1h",
    });
    let webhook =
        webhook_from_row(row.as_object().unwrap().clone(), &config, &ACCEPT_ALL, Strangers::Left).unwrap();
    assert_eq!((webhook.concurrency, webhook.flow.breaker, webhook.flow.disable_after), (7, None, None));
    assert_eq!(webhook.flow.held_for, Duration::from_secs(3600));
    assert_eq!(webhook.flow.rate_limit.map(|limit| limit.per), Some(Duration::from_secs(60)));
}
