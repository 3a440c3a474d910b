//! A connection string, checked.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host};

use super::ServerError;
use super::params::split;

/// How much TLS a connection demands (libpq's `sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// None.
    Disable,
    /// TLS where the server offers it, without verification.
    Prefer,
    /// TLS, without verification unless `sslrootcert` is given: then as `verify-ca`.
    Require,
    /// TLS with a certificate of a trusted authority.
    VerifyCa,
    /// TLS with a certificate of a trusted authority for this very host.
    VerifyFull,
}

/// Where trust comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// The machine's own authorities.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// Everything about TLS that a connection string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsOptions {
    pub(super) mode: TlsMode,
    pub(super) roots: Option<Roots>,
    /// Our certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// One place to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A host by name or address; `addr` saves the lookup.
    Tcp { host: String, addr: Option<IpAddr>, port: u16 },
    /// The directory of a Unix socket.
    Unix { dir: PathBuf, port: u16 },
}

/// A Postgres server and how to log in there. `Debug` and [`Server::display`] show no password.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Config,
    pub(super) tls: TlsOptions,
    /// Which of the hosts alone is meant.
    only: Option<usize>,
}

impl Server {
    /// Reads a connection string, `postgres://…` or `key=value …`.
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        let split = split(text)?;
        let config: Config =
            split.rest.parse().map_err(|source: tokio_postgres::Error| ServerError::Unreadable {
                problem: std::error::Error::source(&source)
                    .map_or_else(|| source.to_string(), crate::telemetry::chain),
            })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ServerError::Missing { what: "host" });
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(ServerError::Missing { what: "user" });
        }
        let ports = config.get_ports().len();
        if ports > 1 && ports != config.get_hosts().len().max(config.get_hostaddrs().len()) {
            return Err(ServerError::Option { option: "port", expected: "one port, or one for each host" });
        }
        Ok(Self { config, tls: tls_options(&split.ours)?, only: None })
    }

    /// The database's name; where the string has none, Postgres takes the user's.
    pub fn database(&self) -> Option<&str> {
        self.config.get_dbname().or(self.config.get_user())
    }

    /// The role.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The password, for the link's own authentication.
    pub(crate) fn password(&self) -> Option<&[u8]> {
        self.config.get_password()
    }

    /// Whether SCRAM must (`Some(true)`) or must not (`Some(false)`) be bound to the TLS channel.
    pub(crate) fn channel_binding(&self) -> Option<bool> {
        match self.config.get_channel_binding() {
            ChannelBinding::Require => Some(true),
            ChannelBinding::Disable => Some(false),
            _ => None,
        }
    }

    /// The string's own `options`.
    pub(crate) fn options(&self) -> Option<&str> {
        self.config.get_options()
    }

    /// The same server and role with another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(name);
        other
    }

    /// How much TLS is demanded.
    pub fn tls_mode(&self) -> TlsMode {
        self.tls.mode
    }

    /// `host:port/database` of the first host: fit for logs and messages.
    pub fn display(&self) -> String {
        let place = match self.targets().first() {
            Some(Target::Tcp { host, port, .. }) => format!("{host}:{port}"),
            Some(Target::Unix { dir, port }) => format!("{}:{port}", dir.display()),
            None => "nowhere".to_owned(),
        };
        format!("{place}/{}", self.database().unwrap_or_default())
    }

    /// This server host by host: of several hosts some may be standbys, which only a login tells.
    pub(crate) fn each_host(&self) -> Vec<Self> {
        let one = |index| Self { only: Some(index), ..self.clone() };
        (0..self.targets().len()).map(one).collect()
    }

    /// The places to try, in order.
    pub(super) fn targets(&self) -> Vec<Target> {
        let (hosts, addrs, ports) =
            (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        let count = hosts.len().max(addrs.len());
        let one = |index: usize| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            let addr = addrs.get(index).copied();
            match (hosts.get(index), addr) {
                (Some(Host::Unix(dir)), None) => Some(Target::Unix { dir: dir.clone(), port }),
                (Some(Host::Tcp(host)), addr) => Some(Target::Tcp { host: host.clone(), addr, port }),
                (_, Some(addr)) => Some(Target::Tcp { host: addr.to_string(), addr: Some(addr), port }),
                (None, None) => None,
            }
        };
        match self.only {
            Some(index) => one(index).into_iter().collect(),
            None => (0..count).filter_map(one).collect(),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("at", &self.display())
            .field("user", &self.user())
            .field("tls", &self.tls.mode)
            .finish_non_exhaustive()
    }
}

fn tls_options(ours: &[(&'static str, String)]) -> Result<TlsOptions, ServerError> {
    let last = |name: &str| {
        ours.iter().rev().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, v)| v.as_str())
    };
    let roots = last("sslrootcert").map(|text| match text {
        "system" => Roots::System,
        path => Roots::File(PathBuf::from(path)),
    });
    let mode = match last("sslmode") {
        None if roots == Some(Roots::System) => TlsMode::VerifyFull,
        Some("disable") => TlsMode::Disable,
        None | Some("allow" | "prefer") => TlsMode::Prefer,
        Some("require") => TlsMode::Require,
        Some("verify-ca") => TlsMode::VerifyCa,
        Some("verify-full") => TlsMode::VerifyFull,
        Some(_) => {
            let expected = "disable, prefer, require, verify-ca or verify-full";
            return Err(ServerError::Option { option: "sslmode", expected });
        }
    };
    if mode == TlsMode::VerifyCa && roots.as_ref().is_none_or(|r| *r == Roots::System) {
        let expected = "a file with sslmode=verify-ca (any public authority's customer could pose as the server; use verify-full)";
        return Err(ServerError::Option { option: "sslrootcert", expected });
    }
    let identity = match (last("sslcert"), last("sslkey")) {
        (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
        (None, None) => None,
        (Some(_), None) => return Err(ServerError::Missing { what: "sslkey beside its sslcert" }),
        (None, Some(_)) => return Err(ServerError::Missing { what: "sslcert beside its sslkey" }),
    };
    Ok(TlsOptions { mode, roots, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_never_shows_its_password() {
        let server = Server::parse("postgres://app:hunter2@db.example:6543/shop?sslmode=require").unwrap();
        assert!(!format!("{server:?}").contains("hunter2"));
        assert_eq!(server.display(), "db.example:6543/shop");
        assert_eq!(server.database(), Some("shop"));
        assert_eq!(server.with_database("other").display(), "db.example:6543/other");
    }

    #[test]
    fn sslmode_and_its_files_are_understood() {
        let mode = |rest: &str| Server::parse(&format!("host=h user=u {rest}")).map(|s| s.tls_mode());
        assert_eq!(mode("").unwrap(), TlsMode::Prefer);
        assert_eq!(mode("sslrootcert=system").unwrap(), TlsMode::VerifyFull);
        assert_eq!(mode("sslmode=verify-ca sslrootcert=/ca.pem").unwrap(), TlsMode::VerifyCa);
        for bad in ["sslmode=verify_full", "sslmode=verify-ca", "sslcert=/a.pem", "port=1,2"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unix_sockets_and_several_hosts_are_targets() {
        let server = Server::parse("host=/tmp/x,db user=u port=1,2").unwrap();
        let expect = [
            Target::Unix { dir: "/tmp/x".into(), port: 1 },
            Target::Tcp { host: "db".into(), addr: None, port: 2 },
        ];
        assert_eq!(server.targets(), expect);
        assert!(matches!(Server::parse("dbname=x user=u"), Err(ServerError::Missing { what: "host" })));
        assert!(matches!(Server::parse("host=x"), Err(ServerError::Missing { what: "user" })));
    }
}
