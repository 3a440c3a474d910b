//! The ledger beside a model of it, at random: crashes, lost leases, two processes, holds, releases, replays.
//!
//! What the ledger has acknowledged is what the model says, row by row. What was under way at a crash is written or not,
//! and nothing between. `WALHOOK_SEED` repeats a run's dice.

use std::collections::BTreeMap;
use std::time::Duration;

use walhook::clock::Clock;
use walhook::domain::StoreBodies;
use walhook::ledger::claim::{Claimed, Claimer, Room};
use walhook::ledger::record::State;
use walhook::ledger::replay::{Ended, Reached, Which, count, replay};
use walhook::ledger::states;
use walhook::ledger::writer::{Ack, Command};
use walhook::postgres::Session;

use crate::ledger::{Desk, attempt, claims_of, finish_of, soon};
use crate::numbers::agree;
use crate::support::{beside_others, knob};

const ROUNDS: usize = 100;
/// In so many of them the sums are held against a recount of the rows.
const RECOUNTED: usize = 40;
const LANES: i64 = 4;

/// A row, as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    status: &'static str,
    lane: i64,
    attempts: u32,
    /// How many of them are not on the retry schedule.
    off_schedule: u32,
    lease: Option<i64>,
}

type Rows = BTreeMap<String, Row>;

impl Row {
    fn is_open(&self) -> bool {
        matches!(self.status, "pending" | "retrying" | "held")
    }

    fn waiting(attempts: u32) -> &'static str {
        if attempts > 0 { "retrying" } else { "pending" }
    }
}

struct World {
    desk: Desk,
    holds: Session,
    /// Who claims beside the desk.
    other: (Session, Claimer),
    dice: fastrand::Rng,
    rows: Rows,
    leased: Vec<Claimed>,
    /// Whether the leases that are there have run out.
    expired: bool,
    number: u64,
    /// How often each kind of thing has happened.
    seen: BTreeMap<&'static str, u32>,
}

fn status_of(word: &str) -> &'static str {
    let known = ["pending", "retrying", "held", "delivered", "failed", "cancelled"];
    known.into_iter().find(|status| *status == word).expect("a status")
}

impl World {
    async fn new(seed: u64) -> Self {
        let desk = Desk::new().await;
        let holds = desk.ledger.session("walhook holds").await.expect("a session");
        let other = claims_of(&desk.ledger).await;
        Self {
            desk,
            holds,
            other,
            dice: fastrand::Rng::with_seed(seed),
            rows: Rows::new(),
            leased: Vec::new(),
            expired: false,
            number: 0,
            seen: BTreeMap::new(),
        }
    }

    fn saw(&mut self, what: &'static str, times: usize) {
        *self.seen.entry(what).or_default() += u32::try_from(times).expect("a small number");
    }

    fn is_blocked(&self, lane: i64) -> bool {
        self.rows.values().any(|row| row.lane == lane && row.is_open())
    }

    /// New deliveries; what the ledger has if they are written.
    fn insert(&mut self, after: &mut Rows) -> usize {
        let count = self.dice.usize(0..6);
        for _ in 0..count {
            self.number += 1;
            // A first attempt is made, and can fail, only where nothing earlier is open.
            let mut lane = self.dice.i64(0..LANES);
            let own = 100 + self.number.cast_signed();
            let token = (self.desk.own.epoch << 32) - self.number.cast_signed();
            let (state, status, attempts, lease) = match self.dice.u32(0..8) {
                0 if !self.is_blocked(lane) => (State::Delivered, "delivered", 1, None),
                1 => {
                    lane = own;
                    (soon(), "retrying", 1, None)
                }
                2 => (State::Failed("no".to_owned()), "failed", 1, None),
                3 => {
                    lane = own;
                    // Handed over while its first attempt is under way.
                    let until = Clock::system().now() + Duration::from_secs(600);
                    (State::Leased { token, until }, "pending", 0, Some(token))
                }
                4 => (State::Held, "held", 0, None),
                _ => (State::Pending, "pending", 0, None),
            };
            let tried = match status {
                "delivered" => Some(attempt(200)),
                "retrying" | "failed" => Some(attempt(500)),
                _ => None,
            };
            let delivery = self.desk.delivery(self.number, lane);
            after.insert(
                delivery.id.as_str().to_owned(),
                Row { status, lane, attempts, off_schedule: 0, lease },
            );
            if let Some(token) = lease {
                let lease = walhook::ledger::record::Lease::with_token(token);
                self.leased.push(Claimed {
                    delivery,
                    attempts: 0,
                    on_schedule: 0,
                    sent_again_at: None,
                    lease,
                });
            }
            self.desk.insert(self.number, lane, state, tried);
        }
        count
    }

    /// Ends some attempts; what the ledger has if that is written.
    fn finish(&mut self, after: &mut Rows) -> usize {
        let count = self.dice.usize(0..=self.leased.len());
        for _ in 0..count {
            let claimed = self.leased.swap_remove(self.dice.usize(0..self.leased.len()));
            let (state, status, tried) = match self.dice.u32(0..6) {
                0 | 1 => (State::Delivered, "delivered", Some(200)),
                2 => (soon(), "retrying", Some(500)),
                3 => (State::Failed("no".to_owned()), "failed", Some(500)),
                4 => (State::Held, "held", Some(500)),
                _ => (State::Pending, "", None),
            };
            let off_schedule = tried.is_some() && self.dice.bool();
            let row = after.get_mut(claimed.delivery.id.as_str()).expect("it was written");
            if row.lease == Some(claimed.lease.token()) {
                row.attempts += u32::from(tried.is_some());
                row.off_schedule += u32::from(off_schedule);
                row.status = if status.is_empty() { Row::waiting(row.attempts) } else { status };
                row.lease = None;
            }
            let command = finish_of(claimed, state, tried.map(attempt), off_schedule);
            self.desk.commands.send(command).expect("a writer");
        }
        count
    }

    /// The rows as they are.
    async fn read(&self) -> Rows {
        let query = "select id, status, lane, attempts, retried_from, lease from deliveries order by id";
        let rows = self.desk.database.rows(query, &[]).await;
        let count = |n: i32| u32::try_from(n).expect("a small number");
        let row = |row: &tokio_postgres::Row| {
            let (attempts, off_schedule) = (count(row.get(3)), count(row.get(4)));
            let (status, lane, lease) = (status_of(row.get(1)), row.get(2), row.get(5));
            (row.get(0), Row { status, lane, attempts, off_schedule, lease })
        };
        rows.iter().map(row).collect()
    }

    /// What was under way is written or not: of each row the ledger has what was before, or what was to be.
    async fn adopt(&mut self, before: &Rows, after: &Rows) {
        let there = self.read().await;
        let voided = |row: &Row| Row { lease: None, ..row.clone() };
        for (id, row) in &there {
            let may_be = [before.get(id), after.get(id)].into_iter().flatten().map(voided);
            assert!(may_be.into_iter().any(|known| known == *row), "{id} is {row:?}");
        }
        assert!(before.keys().all(|id| there.contains_key(id)), "a row is gone");
        // Whoever takes over voids all leases.
        assert!(there.values().all(|row| row.lease.is_none()));
        (self.rows, self.expired) = (there, false);
        let rows = &self.rows;
        self.leased.retain(|claimed| rows.contains_key(claimed.delivery.id.as_str()));
    }

    async fn hear(&mut self, count: usize) {
        let heard = self.desk.hear(count).await;
        let lost = heard.iter().filter(|ack| matches!(ack, Ack::Finished { lease_lost: true, .. })).count();
        self.saw("a lost lease", lost);
    }

    /// Claims, by two sessions at once; nothing is claimed twice or out of its lane's order.
    async fn claim(&mut self) {
        let (session, claimer) = &mut self.other;
        claimer.survey(&session.client).await.expect("a survey");
        let (mine, theirs) = (self.dice.usize(0..4), self.dice.usize(0..3));
        self.desk.tokens += 1;
        let token = (self.desk.own.epoch << 32) + self.desk.tokens;
        let room = |count| [Room { webhook: "crm".into(), count, lease: Duration::from_secs(600) }];
        let theirs = room(theirs);
        let (ours, theirs) =
            tokio::join!(self.desk.claim(mine), claimer.claim(&session.client, &theirs, token, 1 << 20));
        for claimed in ours.into_iter().chain(theirs.expect("a claim").claimed) {
            let id = claimed.delivery.id.as_str().to_owned();
            let expired = self.expired;
            let row = self.rows.get_mut(&id).expect("nothing is claimed that is not there");
            assert!(row.is_open() && row.status != "held", "{row:?} was claimed");
            assert!(row.lease.is_none() || expired, "{row:?} was claimed twice");
            assert_eq!(
                (claimed.attempts, claimed.on_schedule),
                (row.attempts, row.attempts - row.off_schedule)
            );
            row.lease = Some(claimed.lease.token());
            let lane = row.lane;
            let earlier = self.rows.iter().find(|(_, row)| row.lane == lane && row.is_open());
            assert_eq!(earlier.map(|(first, _)| first), Some(&id), "claimed before another of its lane");
            self.leased.push(claimed);
        }
        // Who has been succeeded claims nothing.
        let (session, claimer) = &mut self.other;
        let stale = claimer.claim(&session.client, &room(9), (self.desk.own.epoch - 1) << 32, 1 << 20).await;
        assert!(stale.expect("an answer").claimed.is_empty(), "claimed by a process of before");
    }

    /// One of the things that others do to the ledger.
    async fn meddle(&mut self, round: usize) {
        // What is sent again or cancelled is in no recount any more.
        let most = if round < RECOUNTED { 5 } else { 7 };
        match self.dice.u32(0..most) {
            0 => {
                let expected: Vec<&mut Row> = self
                    .rows
                    .values_mut()
                    .filter(|row| row.is_open() && row.status != "held" && row.lease.is_none())
                    .collect();
                let held = states::hold(&self.holds.client, "crm").await.expect("a hold");
                assert_eq!(usize::try_from(held).expect("a small number"), expected.len());
                let count = expected.len();
                for row in expected {
                    row.status = "held";
                }
                self.saw("a hold", usize::from(count > 0));
            }
            1 | 2 => {
                states::release(&mut self.holds.client, "crm").await.expect("a release");
                let held: Vec<&mut Row> = self.rows.values_mut().filter(|row| row.status == "held").collect();
                let count = held.len();
                for row in held {
                    row.status = Row::waiting(row.attempts);
                }
                self.saw("a release", usize::from(count > 0));
            }
            5 => {
                let held: Vec<&mut Row> = self.rows.values_mut().filter(|row| row.status == "held").collect();
                let transaction = self.holds.client.transaction().await.expect("a transaction");
                let ended = states::cancel_held(&transaction, "crm", StoreBodies::All).await.expect("an end");
                transaction.commit().await.expect("an end");
                assert_eq!(usize::try_from(ended).expect("a small number"), held.len());
                let count = held.len();
                for row in held {
                    row.status = "cancelled";
                }
                self.saw("a cancellation", usize::from(count > 0));
            }
            6 => {
                let which = Which { ended: vec![Ended::Failed, Ended::Cancelled], ..Which::default() };
                let census = count(&self.holds.client, &which).await.expect("a count");
                let mut reached = Reached::default();
                let again = replay(&mut self.holds.client, &which, &census, &mut reached, 1000).await;
                let again = usize::try_from(again.expect("a replay")).expect("a small number");
                let ended: Vec<&mut Row> = self
                    .rows
                    .values_mut()
                    .filter(|row| matches!(row.status, "failed" | "cancelled"))
                    .collect();
                assert_eq!(again, ended.len());
                for row in ended {
                    (row.status, row.off_schedule) = (Row::waiting(row.attempts), row.attempts);
                }
                self.saw("a replay", usize::from(again > 0));
            }
            _ => {
                let expire = "update deliveries_open set due_at = now() where lease is not null";
                self.desk.database.execute(expire).await;
                self.expired = true;
            }
        }
    }

    async fn round(&mut self, round: usize) {
        let before = self.rows.clone();
        let mut after = before.clone();
        let sent = self.insert(&mut after) + self.finish(&mut after);
        match self.dice.u32(0..10) {
            0 => {
                tokio::time::sleep(Duration::from_micros(self.dice.u64(0..6000))).await;
                self.desk.crash().await;
                self.adopt(&before, &after).await;
                self.saw("a crash", 1);
            }
            1 => {
                self.number += 1;
                let claimed = self.leased.pop();
                self.desk.lose_to_a_rival(self.number, claimed).await;
                self.adopt(&before, &after).await;
                self.saw("a rival", 1);
            }
            _ => {
                self.hear(sent).await;
                self.rows = after;
            }
        }
        assert_eq!(self.read().await, self.rows);
        self.desk.check().await;
        self.meddle(round).await;
        assert_eq!(self.read().await, self.rows);
        self.claim().await;
        assert_eq!(self.read().await, self.rows);
        self.desk.check().await;
    }
}

#[tokio::test]
async fn i5_i6_i7_whatever_happens_the_ledger_holds_what_it_has_acknowledged() {
    let _turn = beside_others().await;
    let seed = knob("WALHOOK_SEED", 7);
    println!("WALHOOK_SEED={seed} repeats these dice");
    let mut world = World::new(seed).await;
    for round in 0..ROUNDS {
        world.round(round).await;
        if round < RECOUNTED && round % 10 == 9 {
            agree(&world.desk.ledger).await;
        }
    }
    println!("{} deliveries; {:?}", world.rows.len(), world.seen);
    for what in ["a crash", "a rival", "a lost lease", "a hold", "a release", "a cancellation", "a replay"] {
        assert!(world.seen.get(what).is_some_and(|times| *times > 0), "{what} never happened");
    }
    assert!(world.rows.len() > 120, "{} deliveries are too few to say anything", world.rows.len());
    // Whatever it went through, all of it can be brought to its end.
    states::release(&mut world.holds.client, "crm").await.expect("a release");
    world.desk.crash().await;
    let open = "select count(*) from deliveries_open";
    while world.desk.database.number(open).await > 0 {
        world.desk.survey().await;
        let claimed = world.desk.claim(200).await;
        assert!(!claimed.is_empty(), "something is open, and is never due");
        let count = claimed.len();
        for claimed in claimed {
            let command: Command = finish_of(claimed, State::Delivered, Some(attempt(200)), false);
            world.desk.commands.send(command).expect("a writer");
        }
        world.desk.hear(count).await;
    }
}
