//! A walsender that does as a test says, full-duplex on loopback.
//!
//! It speaks the server's side by `pgwire`'s message types, so that both ends of the link are not written by the same
//! hand.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::copy::{CopyBothResponse, CopyData};
use pgwire::messages::data::DataRow;
use pgwire::messages::response::{
    CommandComplete, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::Authentication;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::SourceOptions;
use crate::clock::Clock;
use crate::postgres::Server;

/// The cluster that the fake claims to be.
pub(super) const SYSTEM: u64 = 7_000_000_000_000_000_001;
/// What its slot has confirmed.
pub(super) const FLOOR: u64 = 0x100;

/// The server's end of one connection.
pub(super) struct Walsender {
    stream: TcpStream,
    received: BytesMut,
}

/// A status message as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) flushed: u64,
    pub(super) wants_answer: bool,
}

/// A listener, and options that lead to it. `wal_sender_timeout` is what the fake will claim.
pub(super) async fn listen() -> (TcpListener, SourceOptions) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=disable");
    let options = SourceOptions {
        server: Server::parse(&url).unwrap(),
        slot: "s".to_owned(),
        publications: vec!["p".to_owned(), "p_inserts".to_owned()],
        feedback_every: Duration::from_secs(10),
        own_schema: "walhook".to_owned(),
        system: Some(SYSTEM),
        timeline: None,
        failover: None,
        clock: Clock::system(),
    };
    (listener, options)
}

impl Walsender {
    /// Takes a connection and leads it into streaming.
    pub(super) async fn accept(listener: &TcpListener, wal_sender_timeout: Duration) -> Self {
        let mut fake = Self::asked(listener, wal_sender_timeout).await;
        fake.send(&[Backend::CopyBothResponse(CopyBothResponse::new(0, 0, vec![]))]).await;
        fake
    }

    /// Takes a connection that asks for the stream, and has not answered that.
    pub(super) async fn asked(listener: &TcpListener, wal_sender_timeout: Duration) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut fake = Self { stream, received: BytesMut::new() };
        let length = fake.stream.read_u32().await.unwrap();
        let mut startup = vec![0; length as usize - 4];
        fake.stream.read_exact(&mut startup).await.unwrap();
        let startup = String::from_utf8_lossy(&startup).into_owned();
        assert!(startup.contains("replication\0database\0"), "{startup:?}");
        assert!(startup.contains("datestyle\0ISO\0"), "{startup:?}");
        let ready = || Backend::ReadyForQuery(ReadyForQuery::new(TransactionStatus::Idle));
        fake.send(&[Backend::Authentication(Authentication::Ok), ready()]).await;
        loop {
            let (tag, body) = fake.receive().await;
            assert_eq!(tag, b'Q');
            let sql = String::from_utf8_lossy(&body).into_owned();
            let row = if sql.contains("IDENTIFY_SYSTEM") {
                row(&[Some(&SYSTEM.to_string()), Some("1"), Some("0/500"), Some("d")])
            } else if sql.contains("pg_replication_slots") {
                let none = None;
                row(&[
                    Some("pgoutput"),
                    Some("d"),
                    none,
                    Some("0/100"),
                    Some("0/80"),
                    Some("reserved"),
                    none,
                    None,
                ])
            } else if sql.contains("wal_sender_timeout") {
                row(&[Some(&wal_sender_timeout.as_millis().to_string())])
            } else {
                let expect = "START_REPLICATION SLOT \"s\" LOGICAL 0/0 (proto_version '1', messages 'true', publication_names \
                              '\"p\",\"p_inserts\"')\0";
                assert_eq!(sql, expect);
                return fake;
            };
            let done = Backend::CommandComplete(CommandComplete::new("SELECT 1".to_owned()));
            fake.send(&[row, done, ready()]).await;
        }
    }

    pub(super) async fn send(&mut self, messages: &[Backend]) {
        let mut bytes = BytesMut::new();
        for message in messages {
            message.encode(&mut bytes).unwrap();
        }
        self.send_bytes(&bytes).await;
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn fail(&mut self, code: &str) {
        self.fail_with(code, "as the test wants").await;
    }

    pub(super) async fn fail_with(&mut self, code: &str, message: &str) {
        self.send(&[Backend::ErrorResponse(ErrorResponse::new(fields("FATAL", code, message)))]).await;
    }

    pub(super) async fn warn(&mut self, code: &str, message: &str) {
        self.send(&[Backend::NoticeResponse(NoticeResponse::new(fields("WARNING", code, message)))]).await;
    }

    /// The next status message.
    pub(super) async fn status(&mut self) -> Status {
        let (tag, mut body) = self.receive().await;
        assert_eq!((tag, body.get_u8(), body.len()), (b'd', b'r', 33));
        let (written, flushed, applied) = (body.get_u64(), body.get_u64(), body.get_u64());
        assert_eq!((written, applied), (flushed, flushed));
        body.advance(8);
        Status { flushed, wants_answer: body.get_u8() == 1 }
    }

    /// The next message, which must come soon.
    pub(super) async fn receive(&mut self) -> (u8, Bytes) {
        let whole = async {
            loop {
                if let Some(length) = self.received.get(1..5).map(|mut l| l.get_u32() as usize)
                    && self.received.len() > length
                {
                    let tag = self.received.get_u8();
                    self.received.advance(4);
                    return (tag, self.received.split_to(length - 4).freeze());
                }
                let read = self.stream.read_buf(&mut self.received).await.unwrap();
                assert_ne!(read, 0, "the source hung up");
            }
        };
        timeout(Duration::from_secs(10), whole).await.expect("a message in time")
    }
}

fn fields(severity: &str, code: &str, message: &str) -> Vec<(u8, String)> {
    [(b'S', severity), (b'C', code), (b'M', message)].map(|(kind, text)| (kind, text.to_owned())).to_vec()
}

fn row(values: &[Option<&str>]) -> Backend {
    let mut data = BytesMut::new();
    for value in values {
        match value {
            None => data.put_i32(-1),
            Some(text) => {
                data.put_i32(i32::try_from(text.len()).unwrap());
                data.put_slice(text.as_bytes());
            }
        }
    }
    Backend::DataRow(DataRow::new(data, i16::try_from(values.len()).unwrap()))
}

fn copy(data: BytesMut) -> Backend {
    Backend::CopyData(CopyData::new(data.freeze()))
}

/// `XLogData` around a payload.
pub(super) fn wal(payload: &[u8]) -> Backend {
    wal_at(0, payload)
}

/// The same, of a place in the log.
pub(super) fn wal_at(place: u64, payload: &[u8]) -> Backend {
    let mut data = BytesMut::new();
    data.put_u8(b'w');
    data.put_u64(place);
    data.put_u64(place);
    data.put_i64(0);
    data.put_slice(payload);
    copy(data)
}

pub(super) fn keepalive(end: u64, reply: u8) -> Backend {
    let mut data = BytesMut::new();
    data.put_u8(b'k');
    data.put_u64(end);
    data.put_i64(0);
    data.put_u8(reply);
    copy(data)
}

pub(super) fn begin(commit: u64) -> Backend {
    let mut data = BytesMut::from("B");
    data.put_u64(commit);
    data.put_i64(0);
    data.put_u32(9);
    wal(&data)
}

pub(super) fn commit(commit: u64, end: u64) -> Backend {
    let mut data = BytesMut::from("C\0");
    data.put_u64(commit);
    data.put_u64(end);
    data.put_i64(0);
    wal(&data)
}

/// A table with one text column.
pub(super) fn relation(id: u32, schema: &str, name: &str) -> Backend {
    let mut data = BytesMut::from("R");
    data.put_u32(id);
    data.put_slice(format!("{schema}\0{name}\0d").as_bytes());
    data.put_u16(1);
    data.put_slice(b"\x01c\0");
    data.put_u32(25);
    data.put_i32(-1);
    wal(&data)
}

pub(super) fn insert(relation: u32, text: &str) -> Backend {
    let mut data = BytesMut::from("I");
    data.put_u32(relation);
    data.put_u8(b'N');
    data.put_u16(1);
    data.put_u8(b't');
    data.put_u32(u32::try_from(text.len()).unwrap());
    data.put_slice(text.as_bytes());
    wal(&data)
}

/// A logical message.
pub(super) fn message(transactional: bool, prefix: &str, content: &str) -> Backend {
    let mut data = BytesMut::from("M");
    data.put_u8(u8::from(transactional));
    data.put_u64(0x200);
    data.put_slice(format!("{prefix}\0").as_bytes());
    data.put_u32(u32::try_from(content.len()).unwrap());
    data.put_slice(content.as_bytes());
    wal(&data)
}
