//! A connection in replication mode: startup, simple queries, and the way into streaming.
//!
//! `replication=database` in the startup packet makes the server process a walsender, which takes replication
//! commands and plain SQL, both by the simple query protocol only. Message shapes: the manual's "Message Formats".
//! Bodies are read here by hand and with care, because a malformed one must end the connection and not the process.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::SourceError;
use super::auth;
use super::frame::{Frame, Splitter};
use crate::postgres::{ConnectError, Dialled, Fault, PINS, Server, Socket, dial};

/// How long startup, and each command, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rows that an answer of ours can have.
const ROWS: usize = 1000;

/// The `ParameterStatus` of a server that only replays another's log.
const IN_RECOVERY: &[u8] = b"in_hot_standby\0on\0";

/// A row of text values.
pub(super) type TextRow = Vec<Option<String>>;

/// A replication connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) splitter: Splitter,
    pub(super) out: BytesMut,
    /// The one host that it leads to.
    pub(super) server: Server,
}

impl Link {
    /// Connects to the first host that takes writes, and logs in.
    pub(super) async fn open(server: &Server, name: &str) -> Result<Self, SourceError> {
        let mut hosts = server.each_host().into_iter();
        let mut opened = Self::open_there(&hosts.next().unwrap_or_else(|| server.clone()), name).await;
        for host in hosts {
            if opened.is_ok() {
                break;
            }
            opened = Self::open_there(&host, name).await;
        }
        opened
    }

    async fn open_there(server: &Server, name: &str) -> Result<Self, SourceError> {
        let (mut link, end_point) = Self::dial(server).await?;
        let slow = || ConnectError::TimedOut { server: server.display(), seconds: PATIENCE.as_secs() };
        timeout(PATIENCE, link.startup(server, name, end_point)).await.map_err(|_| slow())??;
        Ok(link)
    }

    async fn dial(server: &Server) -> Result<(Self, Option<Vec<u8>>), SourceError> {
        let Dialled { socket, end_point } = dial(server).await?;
        let link = Self { socket, splitter: Splitter::new(), out: BytesMut::new(), server: server.clone() };
        Ok((link, end_point))
    }

    /// What a server says that turns a newcomer away at the door, before it asks who that is.
    pub(super) async fn knock(server: &Server) -> Result<Option<Fault>, SourceError> {
        let (mut link, _) = Self::dial(server).await?;
        let parameters = [("user", server.user()), ("database", server.database().unwrap_or_default())];
        frontend::startup_message(parameters, &mut link.out)?;
        link.flush().await?;
        let frame = link.frame().await?;
        if frame.tag == b'E' {
            return Ok(Some(fault(&frame.body)));
        }
        frontend::terminate(&mut link.out);
        link.flush().await?;
        Ok(None)
    }

    async fn startup(
        &mut self,
        server: &Server,
        name: &str,
        end_point: Option<Vec<u8>>,
    ) -> Result<(), SourceError> {
        let options = server.options().unwrap_or_default().to_owned();
        let mut parameters = vec![
            ("user", server.user()),
            ("database", server.database().unwrap_or_default()),
            ("replication", "database"),
            ("application_name", name),
            ("client_encoding", "UTF8"),
        ];
        if !options.is_empty() {
            parameters.push(("options", &options));
        }
        parameters.extend(PINS);
        frontend::startup_message(parameters, &mut self.out)?;
        self.flush().await?;
        auth::authenticate(self, server, end_point).await?;
        // Parameters, the key to cancel with, and then ready.
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'Z' => return Ok(()),
                b'E' => return Err(refused(server, &frame.body).into()),
                b'S' if *frame.body == *IN_RECOVERY => {
                    return Err(ConnectError::Standby { server: server.display() }.into());
                }
                b'S' | b'K' | b'N' => {}
                tag => return Err(unexpected(tag, "startup")),
            }
        }
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> Result<(), SourceError> {
        while self.out.has_remaining() {
            self.socket.write_buf(&mut self.out).await?;
        }
        self.socket.flush().await?;
        Ok(())
    }

    /// The next frame. May be dropped at any point and called again.
    pub(super) async fn frame(&mut self) -> Result<Frame, SourceError> {
        loop {
            if let Some(frame) = self.splitter.next()? {
                return Ok(frame);
            }
            if self.socket.read_buf(self.splitter.room()).await? == 0 {
                return Err(SourceError::HungUp);
            }
        }
    }

    /// Runs one statement; `command` names it in errors.
    pub(super) async fn query(
        &mut self,
        command: &'static str,
        sql: &str,
    ) -> Result<Vec<TextRow>, SourceError> {
        frontend::query(sql, &mut self.out)?;
        let answer = async {
            self.flush().await?;
            let (mut rows, mut failure) = (Vec::new(), None);
            loop {
                let frame = self.frame().await?;
                match frame.tag {
                    b'D' if rows.len() < ROWS => rows.push(data_row(frame.body)?),
                    b'D' => return Err(SourceError::out_of_order("an answer with too many rows")),
                    b'E' => failure = Some(Box::new(fault(&frame.body))),
                    b'Z' => break,
                    b'T' | b'C' | b'N' | b'S' | b'I' => {}
                    tag => return Err(unexpected(tag, command)),
                }
            }
            match failure {
                Some(source) => Err(SourceError::Refused { command, source }),
                None => Ok(rows),
            }
        };
        timeout(PATIENCE, answer).await.map_err(|_| SourceError::Silent { seconds: PATIENCE.as_secs() })?
    }

    /// Sends `START_REPLICATION` and waits for the server to begin.
    pub(super) async fn start(&mut self, sql: &str) -> Result<(), SourceError> {
        const COMMAND: &str = "START_REPLICATION";
        frontend::query(sql, &mut self.out)?;
        let answer = async {
            self.flush().await?;
            loop {
                let frame = self.frame().await?;
                match frame.tag {
                    b'W' => return Ok(()),
                    b'E' => {
                        return Err(SourceError::Refused {
                            command: COMMAND,
                            source: Box::new(fault(&frame.body)),
                        });
                    }
                    b'N' | b'S' => {}
                    tag => return Err(unexpected(tag, COMMAND)),
                }
            }
        };
        timeout(PATIENCE, answer).await.map_err(|_| SourceError::Silent { seconds: PATIENCE.as_secs() })?
    }
}

/// A startup that the server refused.
pub(super) fn refused(server: &Server, body: &[u8]) -> ConnectError {
    ConnectError::refused(server.display(), server.user(), fault(body))
}

/// A message that cannot come there.
pub(super) fn unexpected(tag: u8, during: &str) -> SourceError {
    SourceError::Protocol { problem: format!("message '{}' during {during}", tag.escape_ascii()) }
}

/// Reads an `ErrorResponse` or `NoticeResponse`; missing parts stay empty.
pub(super) fn fault(body: &[u8]) -> Fault {
    let mut fault = Fault { code: String::new(), message: String::new(), detail: None, hint: None };
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { break };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => fault.code = text,
            b'M' => fault.message = text,
            b'D' => fault.detail = Some(text),
            b'H' => fault.hint = Some(text),
            _ => {}
        }
    }
    fault.without_rows()
}

fn data_row(mut body: Bytes) -> Result<TextRow, SourceError> {
    let cut = || SourceError::out_of_order("message 'D' that ends too early");
    let count = body.try_get_u16().map_err(|_| cut())?;
    let mut row = Vec::new();
    for _ in 0..count {
        let length = body.try_get_i32().map_err(|_| cut())?;
        row.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if length <= body.len() => {
                Some(String::from_utf8_lossy(&body.split_to(length)).into_owned())
            }
            Ok(_) => return Err(cut()),
        });
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_however_it_is_cut() {
        let body = b"SFATAL\0C57P01\0Mgoing down\0Hwait\0\0";
        let whole = fault(body);
        assert_eq!((whole.code.as_str(), whole.message.as_str()), ("57P01", "going down"));
        assert_eq!(whole.hint.as_deref(), Some("wait"));
        for end in 0..body.len() {
            fault(&body[..end]);
        }
    }

    #[test]
    fn a_cut_row_is_an_error() {
        let body = [0, 2, 0, 0, 0, 1, b'x', 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(data_row(Bytes::copy_from_slice(&body)).unwrap(), [Some("x".to_owned()), None]);
        for end in 0..body.len() {
            assert!(data_row(Bytes::copy_from_slice(&body[..end])).is_err(), "{end}");
        }
    }
}
