//! The ledger by its own doors, on a real Postgres: what is written together, who may write, what is due.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use walhook::clock::Clock;
use walhook::domain::{
    Attempt, CommitLsn, Delivery, DeliveryId, EndLsn, EventId, Lane, Lsn, Operation, Outcome, Place,
    StoreBodies,
};
use walhook::ledger::claim::{Claimed, Claimer, Room};
use walhook::ledger::own::{Fork, Identity, Ownership};
use walhook::ledger::record::{Finish, Lease, NewRow, State};
use walhook::ledger::writer::{Ack, Command, Health, Writer};
use walhook::ledger::{Ledger, LedgerError, recorded, states};
use walhook::postgres::{Server, Session};
use walhook::settlement::Settlement;

use crate::support::{Database, PATIENCE, background, beside_others, connect, eventually};

/// A ledger, its owner, and the owner's writer.
pub struct Desk {
    pub database: Database,
    pub ledger: Ledger,
    pub own: Ownership,
    pub commands: mpsc::UnboundedSender<Command>,
    acks: mpsc::UnboundedReceiver<Vec<Ack>>,
    writer: JoinHandle<Result<(), LedgerError>>,
    health: watch::Receiver<Health>,
    settlement: Settlement,
    pub claims: (Session, Claimer),
    pub tokens: i64,
}

const SCHEMA: &str = "set search_path to walhook";
/// What is promised of every webhook.
pub const SLA: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(600);

pub fn attempt(status: u16) -> Attempt {
    let outcome = Outcome::Responded { status, retry_after: None, body: Bytes::from_static(b"said") };
    let took = Duration::from_millis(3);
    Attempt { number: 1, started_at: Clock::system().now(), took, outcome }
}

pub fn soon() -> State {
    State::Retrying { due: Clock::system().now() }
}

async fn take_over(ledger: &Ledger) -> Ownership {
    let identity = Identity { system: 7, timeline: 1, confirmed: Lsn(0), fork: None };
    ledger.take_over("slot", &identity, "a test").await.expect("the ledger")
}

pub async fn claims_of(ledger: &Ledger) -> (Session, Claimer) {
    let session = ledger.session("walhook claims").await.expect("a session");
    let claimer = Claimer::prepare(&session.client).await.expect("statements");
    (session, claimer)
}

/// A claimed delivery's attempt has led to a state.
pub fn finish_of(claimed: Claimed, state: State, attempt: Option<Attempt>, off_schedule: bool) -> Command {
    let Claimed { delivery: Delivery { id, webhook, lane, .. }, lease, attempts, .. } = claimed;
    let attempt = attempt.map(|attempt| Attempt { number: attempts + 1, ..attempt });
    Command::Finish(Box::new(Finish { lease, id, webhook, lane, state, attempt, off_schedule }))
}

impl Desk {
    pub async fn new() -> Self {
        Self::with_options("").await
    }

    pub async fn with_options(options: &str) -> Self {
        let database = Database::new().await;
        let server = Server::parse(&format!("{}{options}", database.url)).expect("a connection string");
        let ledger = Ledger::new(server, "walhook");
        ledger.migrate().await.expect("a schema");
        database.execute(SCHEMA).await;
        let own = take_over(&ledger).await;
        let (settlement, claims) = (Settlement::new(), claims_of(&ledger).await);
        let (commands, acks, writer, health) = Self::writer(&ledger, &own, &settlement);
        Self { database, ledger, own, commands, acks, writer, health, settlement, claims, tokens: 0 }
    }

    #[expect(clippy::type_complexity, reason = "the four ends of a writer")]
    pub fn writer(
        ledger: &Ledger,
        own: &Ownership,
        settlement: &Settlement,
    ) -> (
        mpsc::UnboundedSender<Command>,
        mpsc::UnboundedReceiver<Vec<Ack>>,
        JoinHandle<Result<(), LedgerError>>,
        watch::Receiver<Health>,
    ) {
        let (commands, written) = mpsc::unbounded_channel();
        let (acks_in, acks) = mpsc::unbounded_channel();
        let (health_in, health) = watch::channel(Health::Starting);
        let writer = Writer {
            live: walhook::live::Live::default(),
            ledger: ledger.clone(),
            own: own.clone(),
            store: StoreBodies::All,
            sla: Arc::new(|_| SLA),
            settlement: settlement.clone(),
            clock: Clock::system(),
            health: health_in,
            news: watch::channel(0).0,
        };
        (commands, acks, background(writer.run(written, acks_in)), health)
    }

    /// The process ends in the middle of whatever it does, and the next takes over.
    pub async fn crash(&mut self) {
        self.writer.abort();
        self.own = take_over(&self.ledger).await;
        self.settlement = Settlement::new();
        let (commands, acks, writer, health) = Self::writer(&self.ledger, &self.own, &self.settlement);
        (self.commands, self.acks, self.writer, self.health) = (commands, acks, writer, health);
    }

    /// Another process takes over while this one goes on; gives what this one goes on with.
    async fn be_succeeded(
        &mut self,
    ) -> (mpsc::UnboundedSender<Command>, JoinHandle<Result<(), LedgerError>>) {
        self.own = take_over(&self.ledger).await;
        self.settlement = Settlement::new();
        let (commands, acks, writer, health) = Self::writer(&self.ledger, &self.own, &self.settlement);
        (self.acks, self.health) = (acks, health);
        (std::mem::replace(&mut self.commands, commands), std::mem::replace(&mut self.writer, writer))
    }

    /// Another process takes over; whatever the one before still has to say comes too late.
    pub async fn lose_to_a_rival(&mut self, number: u64, claimed: Option<Claimed>) {
        let (commands, writer) = self.be_succeeded().await;
        let before = self.all().await;
        let (delivery, tried) = (self.delivery(number, 0), Some(attempt(200)));
        let row = NewRow { delivery, state: State::Delivered, attempt: tried, owed: None };
        let mut too_late = vec![Command::Insert(Box::new(row), None)];
        too_late
            .extend(claimed.map(|claimed| finish_of(claimed, State::Delivered, Some(attempt(200)), false)));
        for command in too_late {
            // What it had before it was succeeded may have ended it already.
            drop(commands.send(command));
        }
        let ended = writer.await.expect("no panic");
        assert!(matches!(ended, Err(LedgerError::FencedOff)), "{ended:?}");
        assert_eq!(self.all().await, before, "a process that was succeeded has written");
    }

    pub fn delivery(&self, number: u64, lane: i64) -> Delivery {
        let commit = CommitLsn(Lsn(number));
        let place = Place { origin: self.own.lineage.of(commit), commit, sequence: 1 };
        Delivery {
            id: DeliveryId::of(&place, "", "crm"),
            event_id: EventId::of(&place, ""),
            event_type: "t.created".into(),
            webhook: "crm".into(),
            lane: Lane(lane),
            schema: "public".into(),
            table: "t".into(),
            key: "1".into(),
            operation: Operation::Insert,
            committed_at: Clock::system().now(),
            content_type: "application/json".into(),
            headers: None,
            body: Bytes::from(format!("{{\"n\":{number}}}")),
        }
    }

    pub fn insert(&self, number: u64, lane: i64, state: State, attempt: Option<Attempt>) {
        let owed = Some(self.settlement.owe());
        self.settlement.end(EndLsn(Lsn(number)));
        let row = NewRow { delivery: self.delivery(number, lane), state, attempt, owed };
        self.commands.send(Command::Insert(Box::new(row), None)).expect("a writer");
    }

    pub fn finish(&self, claimed: Claimed, state: State, attempt: Option<Attempt>) {
        self.commands.send(finish_of(claimed, state, attempt, false)).expect("a writer");
    }

    pub async fn hear(&mut self, count: usize) -> Vec<Ack> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let more = tokio::time::timeout(PATIENCE, self.acks.recv()).await.expect("an answer in time");
            heard.extend(more.expect("a writer"));
        }
        heard
    }

    pub async fn claim(&mut self, count: usize) -> Vec<Claimed> {
        self.tokens += 1;
        let token = (self.own.epoch << 32) + self.tokens;
        let rooms = [Room { webhook: "crm".into(), count, lease: LEASE }];
        let (session, claimer) = &mut self.claims;
        claimer.claim(&session.client, &rooms, token, 1 << 20).await.expect("a claim").claimed
    }

    pub async fn survey(&mut self) -> usize {
        let (session, claimer) = &mut self.claims;
        claimer.survey(&session.client).await.expect("a survey").len()
    }

    /// Every delivery as `number status attempts due`, in order.
    pub async fn all(&self) -> Vec<String> {
        let query = "select status || ' ' || attempts || case when due_at is null then '' else ' due' end \
                     from deliveries order by id";
        self.database.rows(query, &[]).await.iter().map(|row| row.get(0)).collect()
    }

    /// What must hold at any time, between any two transactions.
    pub async fn check(&self) {
        let query = "select count(*) from deliveries d where attempts <> \
                     (select count(distinct number) from attempts a where a.delivery = d.id and number <= d.attempts) \
                     or attempts <> (select count(*) from attempts a where a.delivery = d.id)";
        assert_eq!(self.database.number(query).await, 0, "attempts and states do not agree");
        let query = "select count(*) from (select id from deliveries group by id having count(*) > 1) twice";
        assert_eq!(self.database.number(query).await, 0, "a delivery has two rows");
        // What is under way may have been overtaken by somebody who sends an earlier one again.
        let query = "select lane || ': ' || string_agg(concat_ws(' ', id, status, 'due ' || due_at, 'lease ' || lease), ', ' order by id) \
                     from deliveries_open where lane in (\
                     select lane from deliveries_open o where status <> 'held' and (due_at is not null) \
                     <> (lease is not null or not exists (select from deliveries_open e where e.webhook = o.webhook \
                     and e.lane = o.lane and e.id < o.id))) group by lane";
        let wrong: Vec<String> = self.database.rows(query, &[]).await.iter().map(|row| row.get(0)).collect();
        assert!(wrong.is_empty(), "not exactly the first of each lane is due: {wrong:?}");
    }

    /// The writer stands in the middle of a transaction, having written its rows.
    pub async fn wait_for_lock(&self, who: &str) {
        let query = format!(
            "select count(*) from pg_stat_activity where datname = current_database() \
             and application_name = '{who}' and wait_event_type = 'Lock'"
        );
        let what = format!("{who} to wait for a lock");
        eventually(&what, PATIENCE, async || self.database.number(&query).await == 1).await;
    }
}

/// Ends the writer's session in the middle of a transaction that waits for a lock.
pub const CUT_OFF: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
    where datname = current_database() and application_name = 'walhook ledger' and wait_event_type = 'Lock'";

/// Keeps every writer from ending its transaction, until a commit. The desk's own has begun by then: preparing its
/// statements would wait for the lock too.
pub async fn block(desk: &Desk) -> tokio_postgres::Client {
    desk.health.clone().wait_for(|health| *health == Health::Writing).await.expect("a writer");
    let client = connect(&desk.database.url).await.expect("a connection");
    client.batch_execute("begin; lock table walhook.past_attempts").await.expect("a lock");
    client
}

#[tokio::test]
async fn i6_only_the_holder_of_a_lease_finishes_a_claimed_delivery() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, State::Pending, None);
    desk.hear(1).await;
    let first = desk.claim(9).await.remove(0);
    assert!(desk.claim(9).await.is_empty(), "claimed twice");
    desk.database.execute("update deliveries_open set due_at = now()").await;
    let second = desk.claim(9).await.remove(0);
    desk.finish(first, State::Delivered, Some(attempt(200)));
    let heard = desk.hear(1).await;
    assert!(matches!(heard[0], Ack::Finished { lease_lost: true, .. }), "{heard:?}");
    assert_eq!(desk.all().await, ["pending 0 due"]);
    desk.finish(second, State::Delivered, Some(attempt(200)));
    let heard = desk.hear(1).await;
    assert!(matches!(heard[0], Ack::Finished { lease_lost: false, .. }), "{heard:?}");
    assert_eq!(desk.all().await, ["delivered 1"]);
}

#[tokio::test]
async fn what_becomes_due_behind_what_was_claimed_is_found_after_the_next_survey() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    for number in 1..=4 {
        desk.insert(number, i64::try_from(number).expect("a lane"), State::Pending, None);
    }
    desk.hear(4).await;
    let first = desk.claim(1).await.remove(0);
    let behind = "update deliveries_open set due_at = now() - interval '1 hour' \
                  where id = (select max(id) from deliveries_open)";
    desk.database.execute(behind).await;
    assert_eq!(desk.claim(9).await.len(), 2, "of three, one is due further back than is looked");
    assert_eq!(desk.survey().await, 1);
    let last = desk.claim(9).await.remove(0);
    assert!(last.delivery.id > first.delivery.id);
    assert!(desk.claim(9).await.is_empty());
}

#[tokio::test]
async fn i6_a_lost_lease_writes_nothing_beside_the_one_that_holds_in_the_same_batch() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, soon(), Some(attempt(500)));
    desk.hear(1).await;
    let first = desk.claim(9).await.remove(0);
    desk.database.execute("update deliveries_open set due_at = now()").await;
    let second = desk.claim(9).await.remove(0);
    desk.finish(first, State::Failed("no".to_owned()), Some(attempt(400)));
    desk.finish(second, State::Delivered, Some(attempt(200)));
    desk.hear(2).await;
    assert_eq!(desk.all().await, ["delivered 2"]);
    desk.check().await;
}

#[tokio::test]
async fn i2_a_fork_is_noted_once_whoever_found_it_and_begins_a_generation_that_nobody_has_used() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    let found = async |from, found_in, used| {
        let fork = Some(Fork { from: Lsn(from), found_in, used });
        let identity = Identity { system: 7, timeline: 1, confirmed: Lsn(0), fork };
        let own = desk.ledger.take_over("slot", &identity, "a test").await.expect("the ledger");
        [49, 50, 99, 100].map(|lsn| own.lineage.of(CommitLsn(Lsn(lsn))).generation)
    };
    assert_eq!(found(100, 1, 0).await, [1, 1, 1, 2]);
    // Another instance has found it too, and takes over later.
    assert_eq!(found(90, 1, 1).await, [1, 1, 1, 2]);
    // The ledger is older than what this process has seen of it.
    assert_eq!(found(50, 2, 4).await, [1, 5, 5, 5]);
    assert_eq!(found(100, 5, 4).await, [1, 5, 5, 6]);
}

#[tokio::test]
async fn i3_who_has_lost_the_slot_writes_nothing() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, State::Pending, None);
    desk.hear(1).await;
    let claimed = desk.claim(1).await.remove(0);
    take_over(&desk.ledger).await;
    desk.insert(2, 2, State::Delivered, Some(attempt(200)));
    let ended = (&mut desk.writer).await.expect("no panic");
    assert!(matches!(ended, Err(LedgerError::FencedOff)), "{ended:?}");
    let (commands, _acks, writer, _health) = Desk::writer(&desk.ledger, &desk.own, &desk.settlement);
    desk.commands = commands;
    desk.finish(claimed, State::Delivered, Some(attempt(200)));
    let ended = writer.await.expect("no panic");
    assert!(matches!(ended, Err(LedgerError::FencedOff)), "{ended:?}");
    assert_eq!(desk.all().await, ["pending 0 due"]);
}

#[tokio::test]
async fn i3_taking_over_waits_for_the_transaction_that_is_under_way() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, soon(), Some(attempt(500)));
    desk.hear(1).await;
    let claimed = desk.claim(1).await.remove(0);
    let blocker = block(&desk).await;
    desk.insert(2, 2, State::Delivered, Some(attempt(200)));
    desk.finish(claimed, State::Delivered, Some(attempt(200)));
    desk.wait_for_lock("walhook ledger").await;
    let ledger = desk.ledger.clone();
    let successor = background(async move { take_over(&ledger).await });
    desk.wait_for_lock("walhook takeover").await;
    blocker.batch_execute("commit").await.expect("an end");
    let own = successor.await.expect("an owner");
    let furthest = recorded::furthest(&desk.claims.0.client, &own, CommitLsn::default()).await;
    assert_eq!(furthest.expect("an answer"), Some(desk.delivery(2, 2).id));
    assert_eq!(desk.all().await, ["delivered 2", "delivered 1"]);
}

#[tokio::test]
async fn i5_a_transaction_that_is_cut_off_is_written_once() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, soon(), Some(attempt(500)));
    desk.hear(1).await;
    let claimed = desk.claim(1).await.remove(0);
    // As if the transaction below had been committed, and the answer lost.
    let (commands, mut acks, other, _) = Desk::writer(&desk.ledger, &desk.own, &Settlement::new());
    let owed = Some(Settlement::new().owe());
    let (delivery, tried) = (desk.delivery(2, 2), Some(attempt(200)));
    let row = NewRow { delivery, state: State::Delivered, attempt: tried, owed };
    commands.send(Command::Insert(Box::new(row), None)).expect("a writer");
    acks.recv().await.expect("an answer");
    drop(commands);
    other.await.expect("no panic").expect("all written");
    let blocker = block(&desk).await;
    desk.insert(2, 2, State::Delivered, Some(attempt(200)));
    desk.insert(3, 3, State::Pending, None);
    desk.finish(claimed, soon(), Some(attempt(500)));
    desk.wait_for_lock("walhook ledger").await;
    assert_eq!(desk.database.number(CUT_OFF).await, 1);
    blocker.batch_execute("commit").await.expect("an end");
    desk.hear(3).await;
    assert_eq!(desk.all().await, ["retrying 2 due", "delivered 1", "pending 0 due"]);
    desk.check().await;
    assert!(desk.settlement.is_settled());
    assert_eq!(*desk.health.borrow(), Health::Writing);
}

#[tokio::test]
async fn i7_a_lane_moves_on_when_its_first_ends_also_within_one_batch() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    desk.insert(1, 1, State::Pending, None);
    desk.hear(1).await;
    let first = desk.claim(9).await.remove(0);
    desk.finish(first, State::Delivered, Some(attempt(200)));
    desk.insert(2, 1, State::Pending, None);
    desk.insert(3, 1, State::Pending, None);
    desk.hear(3).await;
    assert_eq!(desk.all().await, ["delivered 1", "pending 0 due", "pending 0"]);
    // Handed over in flight, and ended before the hand-over was written.
    let token = (desk.own.epoch << 32) - 1;
    desk.insert(4, 2, State::Leased { token, until: Timestamp::MAX }, None);
    desk.insert(5, 2, State::Pending, None);
    let Delivery { id, webhook, lane, .. } = desk.delivery(4, 2);
    let (lease, tried) = (Lease::with_token(token), Some(attempt(400)));
    let state = State::Failed("no".to_owned());
    let finish = Finish { lease, id, webhook, lane, state, attempt: tried, off_schedule: false };
    desk.commands.send(Command::Finish(Box::new(finish))).expect("a writer");
    desk.hear(3).await;
    assert_eq!(desk.all().await[3..], ["failed 1", "pending 0 due"]);
    desk.check().await;
}

#[tokio::test]
async fn i7_a_lane_is_not_left_behind_when_its_rest_is_released_while_its_first_ends() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let mut session = desk.ledger.session("walhook holds").await.expect("a session");
    for round in 0..8 {
        let first = 1 + round * 400;
        (0..200).for_each(|lane| desk.insert(first + lane, lane.cast_signed(), State::Pending, None));
        desk.hear(200).await;
        let claimed = desk.claim(200).await;
        (0..200).for_each(|lane| desk.insert(first + 200 + lane, lane.cast_signed(), State::Held, None));
        desk.hear(200).await;
        for claimed in claimed {
            desk.finish(claimed, State::Delivered, Some(attempt(200)));
        }
        let (released, heard) = tokio::join!(states::release(&mut session.client, "crm"), desk.hear(200));
        assert_eq!((released.expect("a release"), heard.len()), (200, 200));
        desk.check().await;
        for claimed in desk.claim(200).await {
            desk.finish(claimed, State::Delivered, Some(attempt(200)));
        }
        desk.hear(200).await;
        assert_eq!(desk.database.number("select count(*) from deliveries_open").await, 0);
    }
}

#[tokio::test]
async fn a_fork_that_several_standbys_found_is_recorded_once_and_never_for_a_new_slot() {
    let _turn = beside_others().await;
    let desk = Desk::new().await;
    let found_in = |found_in| Identity {
        system: 7,
        timeline: 2,
        confirmed: Lsn(600),
        fork: Some(Fork { from: Lsn(500), found_in, used: found_in }),
    };
    let generation = "select generation::int8 from walhook.sources";
    let forks = "select count(*) from walhook.forks";
    // Both prepared when the ledger was in its first generation; the second takes over after the first.
    for turn in 1..=2 {
        let own = desk.ledger.take_over("slot", &found_in(1), "a standby").await.expect("the ledger");
        assert_eq!(own.epoch, desk.own.epoch + turn);
        let of = |lsn| own.lineage.of(CommitLsn(Lsn(lsn))).generation;
        assert_eq!((of(499), of(501)), (1, 2));
        assert_eq!((desk.database.number(generation).await, desk.database.number(forks).await), (2, 1));
    }
    // Somebody made a new slot meanwhile: its log has no fork.
    desk.ledger.begin_gap("slot", Some(Lsn(600)), Lsn(700), "the slot is gone").await.expect("a gap");
    desk.ledger.end_gap("slot", Lsn(800)).await.expect("the gap's end");
    let own = desk.ledger.take_over("slot", &found_in(2), "a standby").await.expect("the ledger");
    assert_eq!(own.lineage.of(CommitLsn(Lsn(1))).generation, 3);
    assert_eq!((desk.database.number(generation).await, desk.database.number(forks).await), (3, 0));
}
