//! The day as it is: what the healthy ones notice of the others.

use super::{WEBHOOKS, World, published};
use crate::domain::limits;

fn p99(mut ages: Vec<u128>) -> u128 {
    ages.sort_unstable();
    ages[ages.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn i8_over_a_day_the_broken_of_ten_thousand_webhooks_keep_none_of_the_healthy_from_their_deliveries() {
    let published = published();
    let mut alone = World::new(published.clone());
    alone.plan(false);
    let alone = alone.run().await;
    let mut beside = World::new(published);
    beside.plan(true);
    let beside = beside.run().await;
    for seen in [&alone, &beside] {
        let failed: usize = seen.failed.values().sum();
        println!(
            "{} owed, {} attempts, {} delivered, failed {:?}; {} bytes young, {} breakers open at most",
            seen.owed, seen.attempts, seen.delivered, seen.failed, seen.young, seen.opened
        );
        assert_eq!(seen.delivered + failed, seen.owed);
        assert!(
            seen.unwritten <= limits::UNWRITTEN + limits::IN_FLIGHT,
            "{} outcomes in memory",
            seen.unwritten
        );
        // Whoever stands in a list stands in it once, but for one who is paced by one clock and then by another.
        assert!(seen.listed <= 2 * WEBHOOKS, "{} stand in one list", seen.listed);
        assert!(!seen.failed.contains_key("healthy") && !seen.failed.contains_key("slow"));
        // What the breaker kept has used up no attempts, and has arrived when everybody was well again.
        for (kind, webhooks) in [("dead", 100), ("hanging", 100), ("flapping", 500)] {
            let failed = seen.failed.get(kind).copied().unwrap_or_default();
            assert!(failed <= 2 * webhooks, "{failed} of the {kind} were given up");
        }
    }
    assert_eq!((alone.ages.len(), alone.first.len()), (beside.ages.len(), beside.first.len()));
    assert!(beside.opened >= 2 * WEBHOOKS / 100, "the dead and the hanging ones were never left alone");
    assert_eq!(alone.own.len(), beside.own.len());
    let (own, own_beside) = (p99(alone.own), p99(beside.own));
    println!("of changes that are theirs alone: {own} ms alone, {own_beside} ms beside the others");
    assert!(own_beside <= own + 1, "{own} ms became {own_beside} ms");
    let (first, first_beside) = (p99(alone.first), p99(beside.first));
    let (alone, beside) = (p99(alone.ages), p99(beside.ages));
    println!("p99 of the healthy: {alone} ms alone, {beside} ms beside the others");
    println!("in the first hour: {first} ms alone, {first_beside} ms beside the others");
    // These are the ages in bursts to all at once, of which the others have their share: one in eight.
    assert!(beside * 100 <= alone * (100 + 100 / 8 + 3), "{alone} ms became {beside} ms");
    // The first burst meets six hundred receivers that nobody knows to be slow yet: they have half of what is in flight,
    // until their first attempts have told.
    assert!(first_beside <= first * 2, "{first} ms became {first_beside} ms");
}
