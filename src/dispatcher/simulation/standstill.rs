//! A ledger that answers claims and for a quarter of an hour commits nothing: leases must not run out on deliveries that
//! have long arrived, and what became of them must not pile up.

use super::*;

/// What is owed at three o'clock has found half of the receivers failing; they are well again as this begins.
const BEGINS: Duration = Duration::from_secs(3 * 3600 + 600);
const LASTS: Duration = Duration::from_secs(900);

#[tokio::test(start_paused = true)]
async fn while_the_ledger_commits_nothing_little_is_claimed_and_nothing_twice() {
    let mut world = World::new(published());
    world.standstill = Some(BEGINS..BEGINS + LASTS);
    let flapping = (0..WEBHOOKS).filter(|webhook| kind(*webhook) == Kind::Flapping);
    let owed: Vec<usize> = flapping.flat_map(|webhook| [webhook; 40]).collect();
    for (change, webhook) in (1..).zip(&owed) {
        world.at(world.start + Duration::from_secs(3 * 3600), Happening::Owed(*webhook, change));
    }
    let seen = world.run().await;
    println!("{} attempts; {} outcomes unwritten at most", seen.attempts, seen.unwritten);
    let failed: usize = seen.failed.values().sum();
    assert_eq!((seen.owed, seen.delivered + failed), (owed.len(), owed.len()));
    assert!(seen.unwritten > 1000, "that the ledger stood still was not felt");
    assert!(seen.unwritten <= limits::UNWRITTEN + limits::IN_FLIGHT);
}
