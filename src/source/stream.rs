//! The life of one replication connection.
//!
//! ```text
//!   open ─▶ identify ─▶ look at the slot ─▶ START_REPLICATION ─▶ ┌─▶ frames ─▶ chunk ─┐ ─▶ goodbye
//!                                                               └── one select! ◀───┘
//! ```
//!
//! The loop waits, in this order, for: the stop; the moment a status message is due; a moved position; while nothing is
//! read, the server's end; room in the channel; bytes. Bytes are not asked for while a full chunk waits for room.
//! `START_REPLICATION` gives 0/0: the server then starts at the slot's own confirmed position.

use std::time::Duration;

use bytes::{Buf, Bytes};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::assemble::Assembler;
use super::closing::{Closing, Unread};
use super::feedback::{Answer, Feedback};
use super::frame::Frame;
use super::gate::Gate;
use super::identity::Identity;
use super::link::{Link, fault, unexpected};
use super::open::{Begun, open};
use super::patience::Patience;
use super::recode::{LEAVE_AFTER, Recoder};
use super::{Item, SourceError};
use crate::clock::Clock;
use crate::domain::{EndLsn, Lsn};
use crate::postgres::Server;

/// The head of `XLogData`: `w`, start, end, clock.
const WAL_HEAD: usize = 1 + 3 * 8;
/// The least time between two [`Item::Idle`].
const IDLE_RATE: Duration = Duration::from_millis(100);
/// How long a part of a transaction is held back for the rest, which the server is sending already.
const HOLD: Duration = Duration::from_millis(1);
/// How long a status message may take to be written.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the server may take to end the stream when asked to.
const GOODBYE: Duration = Duration::from_secs(2);
/// What to stream from, and how.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The server and database.
    pub server: Server,
    /// The slot.
    pub slot: String,
    /// The publications, all of which exist.
    pub publications: Vec<String>,
    /// The longest gap between two status messages; shortened to a third of the server's `wal_sender_timeout`.
    pub feedback_every: Duration,
    /// The schema of our own tables, whose changes are dropped.
    pub own_schema: String,
    /// The cluster the state belongs to; any other is refused.
    pub system: Option<u64>,
    /// The timeline the state belongs to; any other ends the source.
    pub timeline: Option<u32>,
    /// Whether the slot is copied to standbys; set where it is otherwise. `None` where the server cannot (before 17).
    pub failover: Option<bool>,
    /// The clock of status messages.
    pub clock: Clock,
}

/// A stream that ended because it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The token was cancelled; the newest confirmed position was sent.
    Asked,
    /// Nobody takes the items any more, or nobody confirms them.
    Abandoned,
}

/// What one connection leaves to the next.
#[derive(Debug, Default)]
pub struct Carried {
    /// Makes UTF-8, where the server could not.
    pub(super) recoder: Option<Recoder>,
    /// The last connection ended over a character that the server could not make UTF-8 of.
    pub(super) to_recode: bool,
    pub(super) patience: Patience,
    /// How far the log was read.
    pub(super) read: Lsn,
    /// What was confirmed when a connection last ended over the number of its tables.
    pub(super) crowded_at: Option<EndLsn>,
}

/// Streams over one connection until it ends. `started` is called once the server has begun.
pub async fn stream(
    options: &SourceOptions,
    items: &mpsc::Sender<Item>,
    confirmed: &mut watch::Receiver<EndLsn>,
    stop: &CancellationToken,
    carried: &mut Carried,
    started: impl FnOnce(&Identity),
) -> Result<Stopped, SourceError> {
    let opened = tokio::select! {
        () = stop.cancelled() => return Ok(Stopped::Asked),
        opened = open(options, carried) => opened?,
    };
    let Begun { link, identity, floor, every } = opened;
    started(&identity);
    let now = Instant::now();
    let reader = Reader {
        unread: Unread::new(link.server.clone()),
        link,
        assembler: Assembler::new(&options.own_schema),
        feedback: Feedback::new(floor, every, now),
        gate: Gate::new(now),
        closing: Closing::default(),
        every,
        patience: carried.patience.of_now(),
        recoder: carried.recoder.clone(),
        leave_at: carried.recoder.as_ref().filter(|it| !it.is_exact()).map(|_| now + LEAVE_AFTER),
        read_after: now,
        heard: now,
        restarted: Some(Item::Restarted),
        idle: None,
        idle_after: now,
        idle_sent: floor,
        clock: options.clock.clone(),
        publications: options.publications.clone(),
        furthest: &mut carried.read,
    };
    let ended = reader.run(items, confirmed, stop).await.map_err(|error| error.about(&options.publications));
    match &ended {
        &Err(SourceError::ManyTables { most }) => {
            let place = floor.max(*confirmed.borrow());
            if carried.crowded_at.replace(place) == Some(place) {
                return Err(SourceError::TooManyTables { most });
            }
        }
        Err(SourceError::Silent { .. }) => carried.patience.was_in_vain(),
        Err(error) if error.is_of_a_character() => carried.to_recode = carried.recoder.is_none(),
        Err(SourceError::Recoded) => carried.recoder = None,
        _ => {}
    }
    ended
}

struct Reader<'a> {
    link: Link,
    assembler: Assembler,
    feedback: Feedback,
    gate: Gate,
    closing: Closing,
    unread: Unread,
    every: Duration,
    /// How long nothing may come.
    patience: Duration,
    recoder: Option<Recoder>,
    /// When the server is to make UTF-8 again.
    leave_at: Option<Instant>,
    /// Not to be read before, so that bytes can gather.
    read_after: Instant,
    /// When the last bytes came.
    heard: Instant,
    restarted: Option<Item>,
    idle: Option<EndLsn>,
    idle_after: Instant,
    idle_sent: EndLsn,
    clock: Clock,
    publications: Vec<String>,
    furthest: &'a mut Lsn,
}

impl Reader<'_> {
    async fn run(
        mut self,
        items: &mpsc::Sender<Item>,
        confirmed: &mut watch::Receiver<EndLsn>,
        stop: &CancellationToken,
    ) -> Result<Stopped, SourceError> {
        loop {
            if let Err(error) = self.take_frames() {
                if error.is_of_a_character() {
                    self.hand_over(items, stop).await;
                }
                return Err(error);
            }
            let newest = *confirmed.borrow_and_update();
            let reading = !self.assembler.is_full();
            if reading {
                self.unread.is_read();
            }
            let (item_ready, item_at) = self.next_item_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let last = *confirmed.borrow();
                    return self.goodbye(last).await;
                }
                () = sleep_until(self.feedback.due(newest)) => self.report(newest, reading).await?,
                moved = confirmed.changed() => if moved.is_err() {
                    return Ok(Stopped::Abandoned);
                },
                () = self.unread.server_closes(), if !reading => return Err(SourceError::Closing),
                permit = ready(item_at, items), if item_ready => match permit {
                    Ok(permit) => if let Some(item) = self.next_item() {
                        permit.send(item);
                    },
                    Err(_) => return Ok(Stopped::Abandoned),
                },
                bytes = read(&mut self.link, self.read_after), if reading => self.took(bytes?)?,
            }
        }
    }

    /// Hands over what came before the end: what follows is read otherwise, and this need not be.
    async fn hand_over(&mut self, items: &mpsc::Sender<Item>, stop: &CancellationToken) {
        while let Some(item) = self.next_item() {
            tokio::select! {
                () = stop.cancelled() => return,
                sent = items.send(item) => if sent.is_err() { return },
            }
        }
    }

    /// Notes a read.
    fn took(&mut self, bytes: usize) -> Result<(), SourceError> {
        if bytes == 0 {
            return Err(SourceError::HungUp);
        }
        let now = Instant::now();
        self.heard = now;
        self.read_after = now;
        if let Some(wait) = self.gate.after_read(bytes, now) {
            self.read_after += wait;
            self.link.socket.leave_alone()?;
        }
        Ok(())
    }

    /// Takes frames as long as there are whole ones and room for what they bring.
    fn take_frames(&mut self) -> Result<(), SourceError> {
        while !self.assembler.is_full() {
            let Some(frame) = self.link.splitter.next()? else { break };
            self.take_frame(frame)?;
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), SourceError> {
        match frame.tag {
            b'd' => self.take_copy_data(frame.body, frame.cut),
            b'E' => Err(SourceError::Ended { source: Box::new(fault(&frame.body)) }),
            b'c' | b'C' => Err(SourceError::HungUp),
            b'N' => match SourceError::noticed(fault(&frame.body), &self.publications) {
                Some(gone) => Err(gone),
                None => Ok(()),
            },
            b'S' => Ok(()),
            tag => Err(unexpected(tag, "streaming")),
        }
    }

    /// `XLogData (B)` or `Primary keepalive message (B)`.
    fn take_copy_data(&mut self, mut body: Bytes, cut: Option<usize>) -> Result<(), SourceError> {
        match body.first() {
            Some(b'w') if body.len() > WAL_HEAD => {
                body.advance(1);
                self.reaches(Lsn(body.get_u64()));
                body.advance(WAL_HEAD - 1 - 8);
                self.closing.is_told();
                if let Some(recoder) = self.recoder.as_ref().filter(|_| cut.is_none()) {
                    body = recoder.message(body);
                }
                self.assembler.take(body, cut.map(|full| full.saturating_sub(WAL_HEAD)))?;
                if self.assembler.in_transaction() {
                    self.idle = None;
                }
                Ok(())
            }
            Some(b'k') if body.len() > 8 + 8 + 1 => {
                body.advance(1);
                let end = EndLsn(Lsn(body.get_u64()));
                self.reaches(end.0);
                body.advance(8);
                if body.get_u8() == 1 {
                    self.feedback.ask();
                    if self.closing.is_asked(Instant::now()) {
                        return Err(SourceError::Closing);
                    }
                }
                if !self.assembler.in_transaction() && end > self.idle_sent {
                    self.idle = Some(end);
                }
                Ok(())
            }
            Some(kind @ (b'w' | b'k')) => {
                let problem = format!("CopyData '{}' that ends too early", kind.escape_ascii());
                Err(SourceError::Protocol { problem })
            }
            Some(kind) => {
                Err(SourceError::Protocol { problem: format!("CopyData '{}'", kind.escape_ascii()) })
            }
            None => Err(SourceError::out_of_order("CopyData without content")),
        }
    }

    fn reaches(&mut self, place: Lsn) {
        *self.furthest = place.max(*self.furthest);
    }

    /// Whether an item waits for room, and from when on it may go.
    fn next_item_at(&self) -> (bool, Instant) {
        if self.restarted.is_some() {
            (true, self.heard)
        } else if self.assembler.has_chunk() {
            let rest_is_near = self.assembler.in_transaction() && !self.assembler.is_full();
            (true, if rest_is_near { self.heard + HOLD } else { self.heard })
        } else {
            (self.idle.is_some(), self.idle_after)
        }
    }

    fn next_item(&mut self) -> Option<Item> {
        if let Some(item) = self.restarted.take() {
            return Some(item);
        }
        if let Some(chunk) = self.assembler.take_chunk() {
            return Some(Item::Chunk(chunk));
        }
        let end = self.idle.take()?;
        self.idle_sent = end;
        self.idle_after = Instant::now() + IDLE_RATE;
        Some(Item::Idle(end))
    }

    /// Sends a status message, and ends a connection on which nothing has come for too long.
    async fn report(&mut self, confirmed: EndLsn, reading: bool) -> Result<(), SourceError> {
        let now = Instant::now();
        if !reading {
            // What we do not ask for cannot come.
            self.heard = now;
        }
        let silence = now.duration_since(self.heard);
        if silence > self.patience {
            return Err(SourceError::Silent { seconds: silence.as_secs() });
        }
        let between = !self.assembler.in_transaction() && !self.assembler.has_chunk();
        if self.leave_at.is_some_and(|at| between && at <= now) {
            return Err(SourceError::Recoded);
        }
        let answer = if silence >= self.every { Answer::Wanted } else { Answer::NotWanted };
        self.write_status(confirmed, answer).await
    }

    async fn write_status(&mut self, confirmed: EndLsn, answer: Answer) -> Result<(), SourceError> {
        let micros = self.clock.now().as_microsecond();
        self.feedback.write(confirmed, answer, Instant::now(), micros, &mut self.link.out);
        let silent = SourceError::Silent { seconds: WRITE_PATIENCE.as_secs() };
        timeout(WRITE_PATIENCE, self.link.flush()).await.map_err(|_| silent)?
    }

    /// Tells the newest position and ends the stream in order. What the server still sends is read and thrown away:
    /// closing with bytes unread could cost the server our last message.
    async fn goodbye(mut self, confirmed: EndLsn) -> Result<Stopped, SourceError> {
        let farewell = async {
            self.write_status(confirmed, Answer::NotWanted).await?;
            frontend::copy_done(&mut self.link.out);
            self.link.flush().await?;
            while self.link.frame().await?.tag != b'Z' {}
            frontend::terminate(&mut self.link.out);
            self.link.flush().await?;
            self.link.socket.shutdown().await?;
            Ok::<(), SourceError>(())
        };
        match timeout(GOODBYE, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the stream did not end in order"),
            Err(_) => tracing::debug!("the server did not end the stream in time"),
        }
        Ok(Stopped::Asked)
    }
}

/// Room in the channel, not before a moment.
async fn ready(
    at: Instant,
    items: &mpsc::Sender<Item>,
) -> Result<mpsc::Permit<'_, Item>, mpsc::error::SendError<()>> {
    if at > Instant::now() {
        sleep_until(at).await;
    }
    items.reserve().await
}

/// Bytes into the splitter, not before a moment.
async fn read(link: &mut Link, after: Instant) -> Result<usize, SourceError> {
    if after > Instant::now() {
        sleep_until(after).await;
    }
    Ok(link.socket.read_buf(link.splitter.room()).await?)
}
