//! What can go wrong on the way to a server, in the voice of Postgres: primary message, detail, hint.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::DbError;

use crate::telemetry::{chain, may_quote_rows, name_of};

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It may pass by itself.
    Transient,
    /// Somebody must change something.
    Definite,
}

/// A connection string that cannot be used. Never shows the string: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The string has no valid form.
    #[error("the connection string cannot be read: {problem}")]
    Unreadable {
        /// What is wrong with it.
        problem: String,
    },
    /// An option has a value it cannot have.
    #[error("invalid value for \"{option}\" in the connection string")]
    Option {
        /// The option.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// Something every connection needs is not there.
    #[error("the connection string names no {what}")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
}

impl ServerError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Option { expected, .. } => format!("Expected {expected}."),
            Self::Unreadable { .. } | Self::Missing { .. } => {
                "Write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters \
                 percent-encoded, or as host=HOST user=USER dbname=DATABASE."
                    .to_owned()
            }
        }
    }
}

/// An error as the server reported it, without what it says about values of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// SQLSTATE, five characters.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The detail, where there is one.
    pub detail: Option<String>,
    /// The hint, where there is one.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl Error for Fault {}

impl Fault {
    /// Without what the server says about values of rows.
    #[must_use]
    pub fn without_rows(mut self) -> Self {
        if may_quote_rows(&self.code) {
            name_of(&self.code).clone_into(&mut self.message);
            (self.detail, self.hint) = (None, None);
        }
        self
    }
}

impl From<&DbError> for Fault {
    fn from(error: &DbError) -> Self {
        let fault = Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        };
        fault.without_rows()
    }
}

/// Why a connection could not be made. `server` is `host:port/database`, without secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("could not connect to Postgres at {server}")]
    Unreachable {
        /// Where.
        server: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection or its startup took too long.
    #[error("connecting to Postgres at {server} timed out")]
    TimedOut {
        /// Where.
        server: String,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The server speaks no TLS and `sslmode` demands it.
    #[error("Postgres at {server} does not offer TLS")]
    NoTls {
        /// Where.
        server: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with Postgres at {server} failed")]
    Tls {
        /// Where.
        server: String,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use \"{}\" as {option}", path.display())]
    TlsFile {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// TLS cannot be set up with what is given.
    #[error("TLS for Postgres at {server} cannot be set up")]
    TlsSetup {
        /// Where.
        server: String,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The role does not exist, or its password or certificate is not accepted.
    #[error("Postgres at {server} does not accept the credentials of role \"{user}\"")]
    Credentials {
        /// Where.
        server: String,
        /// The role.
        user: String,
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// The authentication exchange could not be done on our side.
    #[error("could not authenticate role \"{user}\" with Postgres at {server}")]
    Authentication {
        /// Where.
        server: String,
        /// The role.
        user: String,
        /// What failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such database.
    #[error("the database of {server} does not exist")]
    NoDatabase {
        /// Where.
        server: String,
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// The server has no connection to spare.
    #[error("Postgres at {server} has no free connection")]
    TooMany {
        /// Where.
        server: String,
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// The server is starting, stopping or recovering.
    #[error("Postgres at {server} is not ready")]
    NotReady {
        /// Where.
        server: String,
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// The server is a standby: nothing can be written there.
    #[error("Postgres at {server} is a standby")]
    Standby {
        /// Where.
        server: String,
    },
    /// The server refused for another reason.
    #[error("Postgres at {server} refused the connection")]
    Refused {
        /// Where.
        server: String,
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// What came was not the Postgres protocol.
    #[error("what answers at {server} does not speak the Postgres protocol")]
    Protocol {
        /// Where.
        server: String,
        /// What was wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ConnectError {
    /// Sorts a refusal at startup by its SQLSTATE.
    pub fn refused(server: String, user: &str, source: Fault) -> Self {
        let (user, source) = (user.to_owned(), Box::new(source));
        match source.code.as_str() {
            "28P01" | "28000" => Self::Credentials { server, user, source },
            "3D000" => Self::NoDatabase { server, source },
            "53300" | "53400" => Self::TooMany { server, source },
            "57P01" | "57P02" | "57P03" => Self::NotReady { server, source },
            _ => Self::Refused { server, source },
        }
    }

    /// Sorts what opening a session, or a connection of a pool, ended with.
    pub fn startup(server: &super::Server, error: tokio_postgres::Error) -> Self {
        let (user, place) = (server.user().to_owned(), server.display());
        if let Some(db) = error.as_db_error() {
            return Self::refused(place, &user, Fault::from(db));
        }
        let Some(source) = error.into_source() else {
            return Self::Unreachable { server: place, source: io::ErrorKind::ConnectionAborted.into() };
        };
        match source.downcast::<Self>().map_err(<dyn Error + Send + Sync>::downcast::<io::Error>) {
            Ok(ours) => *ours,
            Err(Ok(io)) if is_protocol(&io) => Self::Authentication { server: place, user, source: io },
            Err(Ok(io)) => Self::Unreachable { server: place, source: *io },
            Err(Err(source)) => Self::Authentication { server: place, user, source },
        }
    }

    /// Whether trying again can help.
    pub fn nature(&self) -> Nature {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooMany { .. }
            | Self::NotReady { .. }
            | Self::Standby { .. } => Nature::Transient,
            Self::Refused { source, .. } => nature_of(source),
            // Cut off in the middle of the handshake, not refused by its content.
            Self::Tls { source, .. } if source.kind() != io::ErrorKind::InvalidData => Nature::Transient,
            _ => Nature::Definite,
        }
    }

    /// What is known beyond the primary message.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::TimedOut { seconds, .. } => Some(format!("No answer within {seconds} s.")),
            _ => self.source().map(chain),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                "Check host and port of the connection string, that the server runs, and that a firewall lets us through."
            }
            Self::NoTls { .. } => {
                "Set ssl = on in postgresql.conf, or use sslmode=prefer or sslmode=disable."
            }
            Self::Tls { .. } => {
                "With sslmode=verify-ca or verify-full, sslrootcert must name the file of the authority that signed the \
                 server's certificate (or \"system\"); with verify-full, the host must be among its subject alternative names."
            }
            Self::TlsFile { .. } => "The file must be readable by walhook and hold PEM.",
            Self::TlsSetup { .. } => {
                "Check sslmode, sslrootcert, sslcert and sslkey of the connection string."
            }
            Self::Credentials { .. } => {
                "Check user and password of the connection string, that the role may log in (ALTER ROLE … LOGIN;), and that \
                 pg_hba.conf has a line for this role, database and address."
            }
            Self::Authentication { .. } => {
                "Give a password in the connection string, and use a method walhook speaks: SCRAM-SHA-256, md5, \
                 password, cert, peer or trust."
            }
            Self::NoDatabase { .. } => "Check the database's name in the connection string.",
            Self::TooMany { .. } => {
                "Raise max_connections (or max_wal_senders), or the role's connection limit."
            }
            Self::NotReady { .. } => return None,
            Self::Standby { .. } => {
                "Name the primary in the connection string, or every server of the cluster (host1:5432,host2:5432): the one \
                 that takes writes is found."
            }
            Self::Refused { source, .. } if source.code == "42501" => {
                "Give the role the right that it lacks: ALTER ROLE … REPLICATION; to read the log (on Amazon RDS: GRANT \
                 rds_replication TO …;), GRANT CONNECT ON DATABASE … TO …; to come in."
            }
            Self::Refused { source, .. } => return source.hint.clone(),
            Self::Protocol { .. } => "Check that the port is Postgres's own.",
        };
        Some(text.to_owned())
    }
}

/// Whether an error reported by the server may pass by itself, by the class of its SQLSTATE.
pub(crate) fn nature_of(fault: &Fault) -> Nature {
    match fault.code.get(..2) {
        Some("08" | "40" | "53" | "57" | "58" | "XX") => Nature::Transient,
        _ if matches!(fault.code.as_str(), "55006" | "55P03" | "25P03" | "25P04") => Nature::Transient,
        _ => Nature::Definite,
    }
}

fn is_protocol(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other)
}

/// Whether a code (SQLSTATE) says that text is none, or cannot be made UTF-8: `character_not_in_repertoire`,
/// `untranslatable_character`.
pub fn is_of_a_character(code: &str) -> bool {
    matches!(code, "22021" | "22P05")
}

/// Primary, detail and hint on lines of their own, as `psql` prints them.
pub fn told(primary: &dyn fmt::Display, detail: Option<&str>, hint: Option<&str>) -> String {
    let mut text = primary.to_string();
    for (name, part) in [("detail", detail), ("hint", hint)] {
        if let Some(part) = part {
            text.extend(["\n  ", name, ": ", part]);
        }
    }
    text
}
