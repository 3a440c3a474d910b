//! Random walks over a [`world::World`] must lose nothing, let nothing overtake, and end with every counter at zero.

mod world;

use proptest::prelude::*;

use super::*;
use crate::domain::BatchPolicy;
use world::{Ends, Step, World};

/// A walk of ordinary steps, with so many others in a hundred.
fn walk() -> impl Strategy<Value = Vec<Step>> {
    let often = |others: u32| prop_oneof![100 - others => ordinary(), others => others_do()];
    let share = prop_oneof![Just(1_u32), Just(5), Just(15)];
    share.prop_flat_map(move |others| proptest::collection::vec(often(others), 1..120))
}

fn ordinary() -> impl Strategy<Value = Step> {
    use Ends::{Badly, Retry, Well};
    let ends = prop_oneof![5 => Just(Well), 5 => Just(Retry), 1 => Just(Badly)];
    let time = prop_oneof![5 => 100_u64..3000, 1 => 3000..10_000_u64];
    prop_oneof![
        20 => (0_i64..3).prop_map(Step::Offer),
        12 => Just(Step::Start),
        12 => (0_usize..4, ends).prop_map(|(index, ends)| Step::End(index, ends)),
        8 => (1_usize..6).prop_map(Step::Write),
        8 => (1_usize..6).prop_map(Step::Hear),
        6 => Just(Step::Claim),
        6 => Just(Step::TakeClaimed),
        5 => Just(Step::Count),
        5 => time.prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
    ]
}

fn others_do() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Spill),
        2 => Just(Step::Pause),
        4 => Just(Step::Resume),
        4 => Just(Step::Chores),
        2 => Just(Step::Replay),
        3 => Just(Step::Fail),
        3 => Just(Step::Mend),
        2 => (0_usize..4).prop_map(Step::Redeclare),
        2 => Just(Step::Crash),
        2 => Just(Step::Stop),
        1 => (0_usize..4).prop_map(|index| Step::End(index, Ends::Gone)),
        1 => Just(Step::Pass(Duration::from_secs(60))),
    ]
}

fn batching() -> impl Strategy<Value = Option<Batching>> {
    let wait = prop_oneof![Just(0_u64), 1..2000_u64];
    // Bodies have ten bytes.
    let bytes = prop_oneof![Just(5_usize), Just(40), Just(1000)];
    let batching = (1_usize..7, wait, bytes, 1_u32..5).prop_map(|(max_events, wait, max_bytes, attempts)| {
        let policy = BatchPolicy { max_events, max_wait: Duration::from_millis(wait), max_bytes };
        Batching { policy, attempts }
    });
    proptest::option::of(batching)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn i7_whatever_happens_nothing_is_lost_and_in_a_lane_nothing_overtakes(
        ordering in prop_oneof![4 => Just(Ordering::Row), 1 => Just(Ordering::Strict), 1 => Just(Ordering::None)],
        mode in prop_oneof![Just(Mode::Memory), Just(Mode::Ledger)],
        batch in batching(),
        walk in walk(),
    ) {
        let mut world = World::new(ordering, mode, batch);
        for step in walk {
            world.step(step);
        }
        world.finish_all();
    }
}

#[test]
fn a_count_of_lanes_that_was_asked_for_before_the_ledger_changed_is_not_believed() {
    let mut world = World::new(Ordering::Row, Mode::Ledger, None);
    world.with(Queue::count);
    world.with(Queue::count);
    assert_eq!(world.commands.len(), 1, "one count at a time");
    world.with(Queue::by_ledger);
    world.queue.counted(Some(Vec::new()));
    assert_eq!(world.queue.mode(), Mode::Ledger);
    world.with(Queue::count);
    world.queue.counted(Some(Vec::new()));
    assert_eq!(world.queue.mode(), Mode::Memory);
}

/// A thousand and more rows whose receiver fails: what memory keeps of their lanes is bounded, and the order is kept.
#[test]
fn i7_beyond_so_many_blocked_lanes_the_ledger_keeps_the_order() {
    let mut world = World::new(Ordering::Row, Mode::Memory, None);
    let fails = |world: &mut World, lane| {
        for step in [Step::Offer(lane), Step::Start, Step::End(0, Ends::Retry), Step::Write(9), Step::Hear(9)]
        {
            world.step(step);
        }
    };
    let most = i64::try_from(limits::BLOCKED_LANES_PER_WEBHOOK).unwrap();
    for lane in 0..most {
        fails(&mut world, lane);
    }
    assert_eq!(
        (world.queue.mode(), world.queue.blocked.len()),
        (Mode::Memory, limits::BLOCKED_LANES_PER_WEBHOOK)
    );
    fails(&mut world, most);
    assert_eq!((world.queue.mode(), world.queue.blocked.len()), (Mode::Ledger, 0));
    // So many are not taken back into memory when they are counted.
    for step in [Step::Count, Step::Write(9), Step::Hear(9)] {
        world.step(step);
    }
    assert_eq!((world.queue.mode(), world.queue.blocked.len()), (Mode::Ledger, 0));
    for lane in [0, most / 2, most] {
        world.step(Step::Offer(lane));
    }
    world.step(Step::Start);
    assert_eq!(world.queue.in_flight(), 0, "a later change of a blocked row went out");
}

/// An earlier change of a row is sent again by hand while a later one waits for its retry, and nobody is told of that.
#[test]
fn i7_what_was_sent_again_unheard_frees_no_lane_in_which_another_waits() {
    let mut world = World::new(Ordering::Row, Mode::Memory, None);
    for ends in [Ends::Badly, Ends::Retry] {
        for step in [Step::Offer(0), Step::Start, Step::End(0, ends), Step::Write(9), Step::Hear(9)] {
            world.step(step);
        }
    }
    world.step(Step::Replay);
    world.lose_hints();
    for step in [Step::Claim, Step::TakeClaimed, Step::Start, Step::End(0, Ends::Well)] {
        world.step(step);
    }
    for step in [Step::Write(9), Step::Hear(9), Step::Offer(0), Step::Start] {
        world.step(step);
    }
    assert_eq!(world.queue.in_flight(), 0, "a third change went before the second");
    world.finish_all();
}

#[test]
fn a_body_that_is_no_json_goes_as_it_is_and_a_test_send_alone() {
    let policy = BatchPolicy { max_wait: Duration::ZERO, ..BatchPolicy::default() };
    let batching = Batching { policy, attempts: 6 };
    let mut world = World::new(Ordering::None, Mode::Memory, Some(batching));
    let changes: [fn(&mut Delivery); 5] = [
        |_| {},
        |delivery| delivery.content_type = "application/xml".into(),
        |delivery| delivery.operation = crate::domain::Operation::Test,
        |_| {},
        |_| {},
    ];
    for (number, change) in changes.into_iter().enumerate() {
        world.offer_changed(number, change);
    }
    let mut shapes = Vec::new();
    world.queue.rules.concurrency = 10;
    while let Some(sending) = world.queue.start_batch(batching, Instant::now()) {
        shapes.push(match sending {
            Sending::One(start) => start.delivery().content_type.to_string(),
            Sending::Batch(members) => members.len().to_string(),
        });
    }
    assert_eq!(shapes, ["1", "application/xml", "1", "2"]);
}
