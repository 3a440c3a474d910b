//! A throwaway Postgres cluster, for `walhook demo`, `walhook bench` and the tests.
//!
//! [`Cluster::create`] finds the server's binaries, runs `initdb` in a temporary directory and starts a server with
//! `wal_level = logical` on a free loopback port. Dropping it stops the server and removes the directory. A small
//! watchdog does the same should this process die without a chance to drop anything (`kill -9`, a static at exit):
//! it waits for the end of a pipe that only this process holds.
//!
//! `initdb` refuses to run as root; started by root, everything here runs as the system's user `postgres`. The
//! superuser of the cluster is `postgres` too, with a password drawn for each cluster.

mod binaries;
mod copy;
mod server;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

pub use binaries::{Binaries, BinariesError};
pub use copy::Copied;

/// How long `initdb`, a start or a stop may take before it counts as failed. Crash recovery is part of a start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the server waits for its disk. Without, a crash of the *machine* may lose data; a crash of the server
/// never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Quick: what a throwaway cluster wants.
    #[default]
    Off,
    /// As in production: what a measurement wants.
    On,
}

/// How the server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Disconnects everybody and shuts down in order.
    Fast,
    /// Ends as in a crash; the next start recovers from the log.
    Immediate,
}

/// What a cluster is made with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether the server waits for its disk.
    pub fsync: Fsync,
    /// Further settings, as in `postgresql.conf`; they win over those set here.
    pub settings: Vec<(String, String)>,
}

/// Why a cluster is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server binaries were found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// A file, a directory or a process could not be handled.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The process runs as root and there is no user to hand the server to.
    #[error("the server does not run as root, and there is no system user `postgres` to run it as")]
    NoUser,
    /// A program of the server's package failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The end of what it printed.
        output: String,
    },
    /// A statement on the new cluster failed.
    #[error("a statement on the throwaway cluster failed")]
    Statement(#[from] tokio_postgres::Error),
}

/// A running (or stopped) throwaway cluster.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    home: TempDir,
    owner: server::Owner,
    password: SecretString,
    port: u16,
    running: Option<Child>,
    watchdog: server::Watchdog,
}

impl Cluster {
    /// Makes a cluster and starts it; about two seconds. Blocks the thread.
    pub fn create(options: &Options) -> Result<Self, ClusterError> {
        let binaries = Binaries::find()?;
        let owner = server::Owner::of_this_process()?;
        let home = new_home(owner)?;
        let watchdog = server::Watchdog::start(home.path())?;
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        let password = SecretString::from(password);
        let mut cluster = Self { binaries, home, owner, password, port: 0, running: None, watchdog };
        cluster.initialise(options)?;
        cluster.start()?;
        Ok(cluster)
    }

    /// The loopback port of the server; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        self.password.expose_secret()
    }

    /// The server's programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Where the server's unix socket is.
    pub fn socket_directory(&self) -> &Path {
        self.home.path()
    }

    /// The server's log.
    pub fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    /// A connection string for the superuser, over TCP with a password.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", self.password(), database)
    }

    /// A connection string for somebody else.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database.
    pub async fn create_database(&self, name: &str) -> Result<(), ClusterError> {
        self.execute("postgres", &format!("create database \"{}\"", name.replace('"', "\"\""))).await
    }

    /// Runs statements in a database as the superuser.
    pub async fn execute(&self, database: &str, statements: &str) -> Result<(), ClusterError> {
        let (client, connection) =
            tokio_postgres::connect(&self.url(database), tokio_postgres::NoTls).await?;
        let work = async {
            let done = client.batch_execute(statements).await;
            drop(client);
            done
        };
        let (done, _ended) = tokio::join!(work, connection);
        Ok(done?)
    }

    /// Starts the server where it is stopped, and waits until it takes connections.
    pub fn start(&mut self) -> Result<(), ClusterError> {
        if self.running.is_some() {
            return Ok(());
        }
        let tries = if self.port == 0 { 5 } else { 1 };
        if self.port != 0 {
            server::wait_for_port(self.port);
        }
        let mut last = None;
        for _ in 0..tries {
            let port = if self.port == 0 { server::free_port()? } else { self.port };
            match server::start(&self.binaries, &self.owner, self.home.path(), port) {
                Ok(child) => {
                    self.port = port;
                    self.running = Some(child);
                    return Ok(());
                }
                // The port may have been taken in between: draw another.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ClusterError::Program { program: "postgres", output: String::new() }))
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, mode: Mode) -> Result<(), ClusterError> {
        match self.running.take() {
            None => Ok(()),
            Some(child) => server::stop(child, mode),
        }
    }

    /// Stops the server and starts it again.
    pub fn restart(&mut self, mode: Mode) -> Result<(), ClusterError> {
        self.stop(mode)?;
        self.start()
    }

    fn initialise(&self, options: &Options) -> Result<(), ClusterError> {
        server::initialise(&self.binaries, &self.owner, self.home.path(), self.password())?;
        let fsync = match options.fsync {
            Fsync::Off => "off",
            Fsync::On => "on",
        };
        let text = format!(
            "wal_level = logical
fsync = {fsync}
listen_addresses = '127.0.0.1'
max_connections = 100
\
             max_wal_senders = 20
max_replication_slots = 20
log_min_messages = warning
\
             log_line_prefix = '%m [%p] %u@%d '
unix_socket_directories = '{}'
",
            self.home.path().display()
        );
        let given = options.settings.iter();
        let given = given.map(|(name, value)| {
            format!(
                "{name} = '{}'
",
                value.replace('\'', "''")
            )
        });
        server::configure(self.home.path(), &(text + &given.collect::<String>()))
    }
}

/// A directory of its owner's, closed to everybody else.
fn new_home(owner: server::Owner) -> Result<TempDir, ClusterError> {
    let home = tempfile::Builder::new()
        .prefix("walhook-pg-")
        .tempdir()
        .map_err(|source| ClusterError::Io { action: "make a temporary directory", source })?;
    owner.take(home.path())?;
    Ok(home)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing in it is worth an orderly end. What fails here is left to the watchdog.
        if self.stop(Mode::Immediate).is_ok() {
            // Whatever has that number by now is not ours.
            let removed =
                std::fs::remove_file(server::data_directory(self.home.path()).join("postmaster.pid"));
            drop(removed);
        }
        self.watchdog.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_survives_a_crash_and_leaves_nothing_behind() {
        let mut cluster = Cluster::create(&Options::default()).expect("a cluster");
        cluster.create_database("shop").await.expect("a database");
        cluster.execute("shop", "create table t (id int); insert into t values (1)").await.expect("a table");
        cluster.restart(Mode::Immediate).expect("a restart");
        cluster
            .execute("shop", "do $$ begin assert (select count(*) = 1 from t); end $$")
            .await
            .expect("a row");
        let wrong = cluster.url_as("postgres", "wrong", "shop");
        assert!(tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err());
        assert!(!format!("{cluster:?}").contains(cluster.password()));
        let (home, port) = (cluster.socket_directory().to_owned(), cluster.port());
        drop(cluster);
        assert!(!home.exists());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
