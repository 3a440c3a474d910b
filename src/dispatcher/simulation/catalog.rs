//! What the catalog says while things are under way: a webhook is enabled again, declared anew, or is there no more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::queue::Mode;
use super::super::run::State;
use super::{World, config, name, published};
use crate::catalog::{Published, compile_with};
use crate::domain::{Attempt, Outcome};
use crate::ledger::writer::{Ack, Command};

fn is_suspended(state: &mut State) -> bool {
    state.slots.get_mut(&name(0)).expect("it is declared").queue.is_suspended()
}

fn refused(state: &State) -> Attempt {
    let outcome = Outcome::Responded { status: 503, retry_after: None, body: Bytes::new() };
    Attempt { number: 1, started_at: state.with.clock.now(), took: Duration::from_millis(5), outcome }
}

fn fail(state: &mut State) {
    let (attempt, at) = (refused(state), Instant::now());
    let slot = state.slots.get_mut(&name(0)).expect("it is declared");
    for _ in 0..30 {
        slot.pace.end(&attempt, (false, false), 1, at, || 0.5);
    }
    assert!(slot.pace.is_open());
    state.count_open(state.open + 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_disabled_here_and_enabled_before_the_catalog_is_read_is_sent_to_again() {
    for catalog_first in [false, true] {
        let mut state = World::new(published()).state;
        state.with_queue(&name(0), |queue, turn| queue.disable("410".to_owned(), turn));
        assert!(is_suspended(&mut state));
        let written = Ack::Disabled { webhook: name(0), version: 7 };
        let read = |state: &mut State, version| {
            state.catalog.version = version;
            state.take_catalog();
        };
        read(&mut state, 6);
        assert!(is_suspended(&mut state), "what was read is older than that it is disabled");
        if catalog_first {
            read(&mut state, 8);
            assert!(is_suspended(&mut state), "that it is disabled may not be written yet");
            state.acknowledge(vec![written]);
        } else {
            state.acknowledge(vec![written]);
            assert!(is_suspended(&mut state), "nobody has read the catalog since");
            read(&mut state, 8);
        }
        assert!(!is_suspended(&mut state), "enabled again, and nothing is sent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_is_there_no_more_is_forgotten_and_counted_anew_when_it_comes_back() {
    let published = published();
    let mut state = World::new(published.clone()).state;
    fail(&mut state);
    let none = compile_with(&config(), &crate::catalog::Rows::default()).expect("no webhooks");
    state.catalog = Published { snapshot: Arc::new(none), ..Published::default() };
    state.take_catalog();
    assert!(state.slots.names().is_empty());
    assert_eq!((state.open, state.slots.next_due()), (0, None));
    let forgets = |command: &Command| matches!(command, Command::Health { webhook, health: None } if *webhook == name(0));
    assert!(state.commands.iter().any(forgets), "the ledger remembers that it fails");
    state.catalog = published;
    state.take_catalog();
    let slot = state.slots.get_mut(&name(0)).expect("it is declared again");
    assert_eq!(slot.queue.mode(), Mode::Ledger, "the ledger may hold something of it");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_declared_anew_is_probed_at_once_and_the_others_as_before() {
    let mut state = World::new(published()).state;
    fail(&mut state);
    let waits = |state: &mut State| {
        state.slots.get_mut(&name(0)).and_then(|slot| slot.pace.probe_at()).expect("no probe is under way")
    };
    state.take_catalog();
    assert!(waits(&mut state) > Instant::now(), "its declaration is the same");
    state.catalog = published();
    state.take_catalog();
    assert!(waits(&mut state) <= Instant::now(), "somebody may have mended its url");
}
