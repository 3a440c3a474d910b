//! # walhook, seen from the top
//!
//! A sidecar for an existing Postgres application: it reads the write-ahead log by logical replication, turns committed
//! row changes into events, and delivers them to webhooks as signed HTTP requests. The application does not change.
//!
//! ## The flow
//!
//! ```text
//!            Postgres WAL
//!                 │ pgoutput
//! source ─────────▼────────  transactions, in chunks bounded by bytes        ◀── confirm(end_lsn)
//!                 │                                                               ▲
//! intake ─────────▼────────  Change → Event → the deliveries it owes              │ settled
//!                 │                                                               │
//! dispatcher ─────▼────────  lane(webhook, row) → sign → transport → Outcome ─────┤
//!                 │  young deliveries: only in memory, the slot is their queue    │
//!                 │                                                               │
//! ledger ─────────▼────────  rows in batches: delivered · retrying · failed · handed over
//!                 └─ due ──▶ claim (SKIP LOCKED + lease) ──▶ dispatcher
//! ```
//!
//! **The slot is the queue for what is young; the ledger is the queue for what is old.** No database write stands
//! between a commit and its receiver: a delivery is tried from memory, and its row is written once, in a batch, with
//! the outcome of that try. It goes to the ledger unfinished when the try failed, when it has waited for a second,
//! when its lane is blocked, when its webhook is suspended, when memory runs short, or at the stop. The position
//! confirmed to Postgres is the end of the last transaction whose deliveries all have a committed row.
//!
//! ## The life of an event
//!
//! 1. The walsender's bytes become frames and transactions: [`source::stream`], [`pgoutput::Decoder::decode`].
//! 2. A change meets the webhooks that want it: [`matcher::Interest::owed`], in [`intake::Intake::run`].
//! 3. What of the row may leave is written once, [`render::write_data`], and made into each body,
//!    [`render::Renderer::render`]. Its ids come from where it stands: [`domain::DeliveryId::of`].
//! 4. The delivery waits for its lane and is sent: [`dispatcher::Dispatcher::run`], [`sign::Signer::sign`],
//!    [`transport::Transport::send`].
//! 5. How it went is judged: [`domain::judge`].
//! 6. Its row is written, [`ledger::writer::Writer::run`], and that settles what it owed:
//!    [`settlement::Settlement::settle`]. The source confirms the position.
//! 7. If it is not over, it is claimed again when due: [`ledger::claim::Claimer::claim`].
//!
//! ## Floors
//!
//! A module uses lower floors only; a test over the tree says so.
//!
//! ```text
//! 10 cli                                              what you type
//! 9  app                                              builds everything once, owns every task, stops them
//! 8  api                                              the verbs over HTTP
//! 7  control                                          every verb an operator has, once
//! 6  intake                                           change → event → deliveries
//! 5  dispatcher   chores   backfill                   the workers behind it
//! 4  catalog                                          the webhooks of file and database, compiled
//! 3  source   ledger   transport                      the outside world, one door each
//! 2  postgres   cluster                               how any part reaches (or makes) a Postgres server
//! 1  pgoutput  matcher  render  sign  seal  config  settlement  live  clock  tasks  telemetry   engines: no I/O
//! 0  domain                                           the nouns
//! ```
//!
//! Existing rows come by the same way: [`backfill`] reads them between two marks in the log, and intake makes events of
//! them at the second one's place. An event needs no table either: a logical message is one. And a table's new shape is one,
//! where a webhook asks for it ([`intake::Shapes`]). What goes wrong with the machinery itself is told as well, by the ledger alone: [`chores::notices`].
//!
//! What an operator does is in `control`; bounds of every kind are in [`domain::limits`]; SQL on our own tables is in `ledger` and `migrations/`, nowhere else.
//!
//! ## Glossary
//!
//! *Source* the replication link · *publication*, *slot*, *LSN* as in Postgres · *change* of a row · *event* a change
//! under an event type · *webhook* where events go · *delivery* one event owed to one webhook · *attempt* one try of it ·
//! *batch* several deliveries in one request · *lane* the queue of a webhook's deliveries for one row · *lease* the right
//! to finish a claimed delivery · *ledger* the tables that remember · *settle* a delivery has its row · *confirm* tell
//! Postgres · *dead letter* a failed delivery · *notice* an event about the machinery itself · *tenant* a customer whose webhooks get events of its own rows alone.
//!
//! ## Invariants
//!
//! - **I1** The confirmed position never passes the end of a transaction that has a delivery without a committed row.
//! - **I2** Event and delivery ids are pure functions of (database system, slot generation, commit LSN, ordinal in the
//!   transaction, webhook, named type). Reading the log again makes the same ids. (An existing row that a [`backfill`]
//!   sends stands at the place of a mark; it has one id for each backfill.)
//! - **I3** What the ledger already holds beyond the confirmed position is not sent again after a restart.
//! - **I4** A delivery's body is rendered once and its bytes never change; attempt number and time are headers.
//! - **I5** An attempt and the state it leads to are committed together.
//! - **I6** Only the holder of a lease finishes a claimed delivery; a lost lease writes nothing.
//! - **I7** In a lane, nothing overtakes: a later delivery of a row waits, in memory or in the ledger, for the earlier
//!   one's end.
//! - **I8** Nothing a template, condition, webhook or receiver does stops the source or another webhook.
//! - **I9** Reading the stream never waits longer than the keepalive allows; feedback goes on under back-pressure.
//! - **I10** Our own schema is never an event source.
//! - **I11** Every queue, body, buffer, loop and retry has a bound, in one file.
//! - **I12** Secrets never reach a log, an error, a `Debug` or a response.
//! - **I13** The command line and the API do what they do by one and the same verb of [`control`], and what a command
//!   changes the API can change too, but for the commands that a test lists as not there yet.
//!
//! Deliberately absent: a `trait` over the ledger (it is Postgres), a queue beside it, exactly-once delivery (receivers
//! deduplicate by `webhook-id`), threads of our own.

pub mod api;
pub mod app;
pub mod backfill;
pub mod catalog;
pub mod chores;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod dispatcher;
pub mod domain;
pub mod intake;
pub mod ledger;
pub mod live;
pub mod matcher;
pub mod pgoutput;
pub mod postgres;
pub mod render;
pub mod seal;
pub mod settlement;
pub mod sign;
pub mod source;
pub mod tasks;
pub mod telemetry;
pub mod transport;
