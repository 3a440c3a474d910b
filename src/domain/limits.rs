//! Every bound of walhook, in one place (invariant I11).
//!
//! What an operator may turn is in the configuration and only has its default or ceiling here.

use std::time::Duration;

/// Row bytes that one chunk of a transaction holds before it is handed to intake.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Row changes that one chunk of a transaction holds.
pub const CHUNK_CHANGES: usize = 4096;
/// Chunks that wait between source and intake.
pub const CHUNKS_WAITING: usize = 8;
/// The largest frame of the replication link that is kept whole; of a larger one only the head is.
pub const FRAME_BYTES: usize = 16 * 1024 * 1024;
/// How much of an over-large frame is kept.
pub const FRAME_HEAD_BYTES: usize = 64 * 1024;
/// Postgres itself makes no larger message.
pub const FRAME_BYTES_POSSIBLE: usize = 0x3FFF_FFFF;
/// Columns of a table (Postgres allows 1,600).
pub const COLUMNS: usize = 1664;
/// Tables described on one connection.
pub const RELATIONS: usize = 100_000;
/// How deep arrays and JSON nest before they go out as text.
pub const VALUE_DEPTH: usize = 64;

/// The largest body that is sent; a larger one makes its delivery `failed`.
pub const BODY_BYTES: usize = 1024 * 1024;
/// The largest event, as a standard body, that is kept where it could not be rendered.
pub const UNRENDERED_BYTES: usize = 4 * 1024 * 1024;
/// The longest template.
pub const TEMPLATE_BYTES: usize = 16 * 1024;
/// Versions of templates that the database keeps: what is beyond is not used.
pub const TEMPLATES: i64 = 1000;
/// How deep a template's blocks nest.
pub const TEMPLATE_DEPTH: usize = 16;
/// How many `{{else …}}` one block may chain: each is a level deeper when it runs.
pub const TEMPLATE_ELSE_CHAIN: usize = 64;
/// Turns that all loops of one rendering make together.
pub const TEMPLATE_TURNS: usize = 100_000;
/// The largest value that a template helper makes.
pub const TEMPLATE_VALUE_BYTES: usize = 1024 * 1024;
/// Bytes that the helpers and loops of one rendering read and make together, beside [`TEMPLATE_WORK_TIMES_ROW`].
pub const TEMPLATE_WORK_BYTES: usize = 16 * 1024 * 1024;
/// How many times the bytes of its row a rendering may work through, besides.
pub const TEMPLATE_WORK_TIMES_ROW: usize = 8;
/// The longest format of a date in a template.
pub const TEMPLATE_DATE_BYTES: usize = 1024;
/// The longest condition.
pub const CONDITION_BYTES: usize = 2 * 1024;
/// How deep a condition nests; a chain of `+` is a level each, one of `&&` is not. The interpreter takes up to 40 KiB of
/// stack a level where it is not optimised.
pub const CONDITION_DEPTH: usize = 20;
/// Secrets of one webhook, those that have ended included.
pub const SECRETS: usize = 10;
/// Webhooks whose secrets are encrypted in one transaction.
pub const ENCRYPTED_AT_ONCE: usize = 100;
/// Signatures looked at in one `webhook-signature` header.
pub const SIGNATURES: usize = 16;

/// Types of logical messages whose webhooks are remembered at once.
pub const MESSAGE_TYPES: usize = 1000;

/// Shapes of tables that the ledger remembers, over all slots; dropped tables leave theirs behind.
pub const SHAPES: i64 = 100_000;

/// Notices that are made at once; with more, the others follow in the next round.
pub const NOTICES_AT_ONCE: usize = 100;
/// Notices that wait for one webhook, beyond which it is told no more until it has taken some.
pub const NOTICES_WAITING: i64 = 1000;
/// The longest text of a notice, in bytes: a reason, an error.
pub const NOTICE_TEXT_BYTES: usize = 500;
/// Ends of the log that are remembered, a look apart, to know how old is what waits.
pub const LAG_MARKS: usize = 1024;

/// Rows of a page of a backfill.
pub const BACKFILL_PAGE_ROWS: usize = 500;
/// Bytes of a page of a backfill, after which it ends early.
pub const BACKFILL_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// A larger row comes without its values, and is a failed delivery.
pub const BACKFILL_ROW_BYTES: usize = FRAME_BYTES;
/// Open deliveries of a webhook beyond which its backfills wait.
pub const BACKFILL_BACKLOG: i64 = 2000;
/// Keys that may change while a page is read; with more, the page is read anew.
pub const BACKFILL_TOUCHED: usize = 50_000;
/// Transactions that are remembered, to know those that were in the log before they could be seen.
pub const BACKFILL_RECENT: usize = 16_384;

/// Bytes of rendered deliveries that are in memory and not yet in the ledger.
pub const YOUNG_BYTES: usize = 16 * 1024 * 1024;
/// What a delivery costs beside its body, for the sum above: in the queues, in the batches of the ledger, and in what the
/// allocator does not give back.
pub const DELIVERY_OVERHEAD_BYTES: usize = 4096;
/// Deliveries in one request, where a webhook wants them in batches; fewer than [`YOUNG_PER_WEBHOOK`], so that a batch can fill.
pub const BATCH_EVENTS: usize = 1000;
/// Bytes of one batch, before compression.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of all batches in flight, which are copies of their deliveries' bodies; beyond, a batch waits.
pub const BATCHED_BYTES: usize = 16 * 1024 * 1024;
/// Deliveries that wait in memory for one webhook before they go to the ledger instead.
pub const YOUNG_PER_WEBHOOK: usize = 1024;
/// Lanes of one webhook that are remembered as blocked; with more, all its deliveries go by the ledger.
pub const BLOCKED_LANES_PER_WEBHOOK: usize = 4096;
/// Requests in flight over all webhooks whose receivers are quick.
pub const IN_FLIGHT: usize = 1024;
/// Requests in flight, besides, over all webhooks whose receivers are slow.
pub const IN_FLIGHT_SLOW: usize = IN_FLIGHT / 2;
/// A receiver is slow when its attempts take longer than this, on a moving average.
pub const SLOW: Duration = Duration::from_secs(1);
/// The most requests in flight to a webhook whose concurrency follows the receiver.
pub const CONCURRENCY_AUTO: u32 = 128;
/// Deliveries written to the ledger in one transaction.
pub const LEDGER_BATCH: usize = 500;
/// Outcomes of claimed deliveries that wait for the ledger's writer, beyond which nothing more is claimed.
pub const UNWRITTEN: usize = 8 * LEDGER_BATCH;
/// How long the oldest of them may wait: well below what a lease lasts beyond its attempt.
pub const UNWRITTEN_FOR: Duration = Duration::from_secs(LEASE_MARGIN.as_secs() / 3);
/// Deliveries claimed from the ledger at once.
pub const CLAIM_BATCH: usize = 256;
/// How many times its concurrency a webhook has claimed at once, so that one claim keeps it busy for a while.
pub const CLAIM_WAVES: usize = 8;
/// A claimed delivery's lease lasts as many timeouts: those of the waves before it, in the worst case, and its own.
pub const LEASE_TIMEOUTS: u32 = 10;
/// How long a full queue may make intake wait before its deliveries go to the ledger.
pub const QUEUE_PATIENCE: Duration = Duration::from_millis(250);
/// How far behind the database's clock intake may fall for a busy receiver's sake.
pub const LAG_PATIENCE: Duration = Duration::from_secs(3);
/// How long after its attempt's timeout a claimed delivery may be claimed again.
pub const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// How long a statement of a worker may go unanswered before its connection counts as dead. A network that swallows
/// everything tells nobody.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The same for a batch of the ledger that had to be tried again and again: each time twice as long, up to this.
pub const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(8 * 60);
/// The same for a takeover of the ledger, which has locks to wait for.
pub const TAKEOVER_WITHIN: Duration = Duration::from_secs(120);
/// Seconds between two tries to reach Postgres, at most.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// The longest gap between two status messages to Postgres.
pub const FEEDBACK_EVERY: Duration = Duration::from_secs(10);
/// How long a server may be silent on the replication link before its connection counts as dead, at most.
pub const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// The longest captured response.
pub const CAPTURE_BYTES: usize = 64 * 1024;
/// How much of a response is read, captured or not, so that its connection can be used again.
pub const RESPONSE_BYTES: usize = 256 * 1024;
/// How long a name may take to resolve.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(5);
/// Lookups of names that run at once, over all webhooks: fewer than the runtime's threads for work that blocks.
pub const DNS_LOOKUPS: usize = 128;
/// The same for names whose last lookup took longer than [`DNS_TIMEOUT`].
pub const DNS_LOOKUPS_SILENT: usize = 32;
/// How long a name counts as one of those.
pub const DNS_SILENT_FOR: Duration = Duration::from_secs(60);
/// How many of those are remembered; the oldest makes room.
pub const DNS_SILENT_KNOWN: usize = 4096;
/// How long a connection may take to be made, TLS included, whoever waits for it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer of a token endpoint that is read.
pub const TOKEN_ANSWER_BYTES: usize = 64 * 1024;
/// How long a token endpoint may take, within its attempt's timeout.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an access token is used, whatever its endpoint says.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The longest head of a proxy's answer that is read.
pub const PROXY_HEAD_BYTES: usize = 8 * 1024;
/// Addresses of a receiver that are tried through a proxy.
pub const PROXY_TRIES: usize = 3;
/// How long settings that no webhook uses any more keep their connections and tokens.
pub const ROUTE_UNUSED: Duration = Duration::from_secs(300);
/// Minutes of webhooks whose sums the ledger's writer remembers; of others it reads them anew.
pub const ROLLUPS_IN_MEMORY: usize = 8192;
/// How long sums are kept by the minute; then by the hour.
pub const ROLLUP_MINUTES: Duration = Duration::from_secs(48 * 3600);
/// How long they are kept by the hour; so a webhook has at most 2,880 rows of minutes and 792 of hours (twice as many around a restart).
pub const ROLLUP_HOURS: Duration = Duration::from_secs(35 * 24 * 3600);
/// Webhooks that metrics tell apart; further ones are told together.
pub const METRIC_WEBHOOKS: usize = 500;
/// Webhooks, over file and database.
pub const WEBHOOKS: usize = 100_000;

/// The longest name of a webhook.
pub const WEBHOOK_NAME: usize = 100;
/// Webhooks that one tenant's keys make at most.
pub const TENANT_WEBHOOKS: i64 = 100;
/// The longest body of a request to the API.
pub const API_BODY_BYTES: usize = 256 * 1024;
/// How long the API takes for an answer, but where it waits for an attempt.
pub const API_ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the API waits for the outcome of a test.
pub const API_TEST_WITHIN: Duration = Duration::from_secs(25);
/// The longest answer of an instance that a command reads.
pub const CALL_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long an instance may take to answer a command: longer than the API takes itself.
pub const CALL_WITHIN: Duration = Duration::from_secs(45);
/// The longest file that a command reads a webhook from.
pub const DECLARATION_BYTES: u64 = 1024 * 1024;
/// Requests that the API works on at once; others wait within their time.
pub const API_AT_ONCE: usize = 64;
/// Sessions with the database that the API and its command line use at once.
pub const API_SESSIONS: usize = 4;
/// How long a statement of theirs may take.
pub const API_STATEMENT: Duration = Duration::from_secs(10);
/// A session that was in use for longer than this is not used again: whoever had it gave up waiting for an answer.
pub const API_KEPT: Duration = Duration::from_secs(20);
/// How long one of theirs waits for a lock.
pub const API_LOCK: Duration = Duration::from_secs(5);
/// Entries of a page of the API.
pub const API_PAGE: u32 = 200;
/// Deliveries that are looked through for one page of a search.
pub const API_LOOKED_THROUGH: i64 = 1_000;
/// Webhooks that are named as subscribers of an event type.
pub const SUBSCRIBERS_TOLD: usize = 100;
/// News that wait for one who listens; of more the oldest are lost to it.
pub const LIVE_WAITING: usize = 1024;
/// Who may listen at once.
pub const LIVE_LISTENERS: usize = 32;
/// How often one who listens is told that the stream is still there.
pub const LIVE_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Connections to the HTTP server; further ones wait to be accepted.
pub const CONNECTIONS: usize = 1024;
/// How long a connection may take for a request's head, and how long it may be idle.
pub const HEAD_WITHIN: Duration = Duration::from_secs(20);
/// Keys whose requests are counted; the one that was used longest ago makes room.
pub const API_RATED: usize = 10_000;
/// How long the address of a new webhook may take to be reached, where that is tried.
pub const API_PROBE_WITHIN: Duration = Duration::from_secs(5);
/// How long a browser remembers what it may ask.
pub const CORS_FOR: Duration = Duration::from_secs(600);
/// How long after it was made a test is still sent: who made it waits no longer, and the clocks may differ.
pub const TEST_FOR: Duration = Duration::from_secs(300);
/// How long nobody sends again what somebody has sent again, unless they say that they know of it.
pub const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Reasons that are told why deliveries cannot be sent again; the commonest.
pub const REASONS_TOLD: i64 = 10;
/// Retries of one webhook that are not over.
pub const RETRIES_OPEN: i64 = 100;
/// Keys that are not revoked.
pub const API_KEYS: i64 = 10_000;
/// The longest name of a key, in characters.
pub const API_KEY_NAME: usize = 100;
/// Answers kept for who asks again under the same `Idempotency-Key`.
pub const API_ANSWERS: i64 = 20_000;
/// How long they are kept.
pub const API_ANSWERS_FOR: Duration = Duration::from_secs(24 * 3600);
/// The longest `Idempotency-Key`.
pub const API_IDEMPOTENCY_BYTES: usize = 255;
/// The longest `x-request-id` that is taken over.
pub const API_REQUEST_ID_BYTES: usize = 100;
/// Wrong keys from one address within [`API_GUESSES_WITHIN`] that lock it out for as long.
pub const API_GUESSES: u32 = 10;
/// See [`API_GUESSES`].
pub const API_GUESSES_WITHIN: Duration = Duration::from_secs(60);
/// Addresses whose wrong keys are counted; the oldest makes room.
pub const API_GUESSERS: usize = 4096;
/// How long a refusal of one kind, of the same caller or for the same webhook and address, is not written into the audit again.
pub const REFUSALS_WITHIN: Duration = Duration::from_secs(3600);
/// Refusals that are told apart to know that; the oldest makes room.
pub const REFUSALS_KNOWN: usize = 4096;
/// Refusals of one action that a process writes into the audit within [`REFUSALS_WITHIN`]; further ones are only counted.
pub const REFUSALS_WRITTEN: u32 = 1000;
/// Refused addresses that wait to be written; further ones are dropped.
pub const REFUSALS_WAITING: usize = 256;
/// The longest description of a webhook, in characters.
pub const DESCRIPTION_CHARS: usize = 1000;
/// What may be noted beside a webhook, as JSON.
pub const METADATA_BYTES: usize = 16 * 1024;
