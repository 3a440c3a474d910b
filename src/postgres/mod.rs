//! How any part of walhook reaches a Postgres server.
//!
//! A [`Server`] is a checked connection string. It opens [`Session`]s (ordinary connections, each with its driver
//! task), and hands the replication link the same [`dial`]: one way to find the host, one way
//! to speak TLS, one way to name what went wrong.
//!
//! ```text
//!   connection string ─▶ Server ─▶ dial (TCP or Unix socket, TLS by sslmode) ─▶ Session | replication link
//! ```
//!
//! `tokio_postgres::Config` reads the string, so every option it knows works. It does not know `sslmode=verify-ca`,
//! `sslmode=verify-full`, `sslrootcert`, `sslcert` and `sslkey`; those are taken out first, from either form of the
//! string. TLS is always made here, by `rustls`, so that sessions and replication verify alike and both bind
//! their SCRAM exchange to the server's certificate.
//!
//! What the server may set per role or database is pinned at startup ([`PINS`]): texts of values must not depend
//! on who connects, and no timeout of the application's may cut our work.

mod binding;
mod dial;
mod error;
mod params;
mod server;
mod session;
mod tls;
mod verify;
mod watched;

pub use dial::{Dialled, Socket, dial};
pub(crate) use error::nature_of as fault_nature;
pub use error::{ConnectError, Fault, Nature, ServerError, is_of_a_character, told};
pub use server::{Server, TlsMode};
pub use session::{Heard, Session};

/// Settings of every connection, whatever the role's or the database's own are.
pub const PINS: [(&str, &str); 17] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "iso_8601"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("timezone", "UTC"),
    // With these, a `regclass` reads the same whoever looks: its schema is named unless it is `pg_catalog`.
    ("search_path", "pg_catalog"),
    ("quote_all_identifiers", "off"),
    ("synchronous_commit", "on"),
    ("statement_timeout", "0"),
    ("lock_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    // A server keeps nothing for a client whose machine is gone.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "4"),
    ("default_transaction_read_only", "off"),
    // That a publication is skipped is a warning.
    ("client_min_messages", "warning"),
];

/// [`PINS`] as the `options` of a startup packet, after those the connection string has.
pub fn pinned_options(own: Option<&str>) -> String {
    let mut options = own.map(|text| format!("{text} ")).unwrap_or_default();
    for (index, (name, value)) in PINS.iter().enumerate() {
        let gap = if index == 0 { "" } else { " " };
        options.extend([gap, "-c ", name, "=", value]);
    }
    options
}
