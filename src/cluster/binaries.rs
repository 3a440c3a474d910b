//! Finds the programs of an installed Postgres server.
//!
//! Server packages put `postgres` and `initdb` beside each other in a directory that is rarely on the path. In this
//! order: the directory that `WALHOOK_PG_BIN` names, the newest of Debian's and Ubuntu's, Red Hat's and Homebrew's
//! places, what `pg_config --bindir` says, and the path.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Parents of directories named by version, each with a `bin` inside.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// Directories that may hold the programs themselves.
const PLAIN: [&str; 4] = [
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql/bin",
    "/usr/local/pgsql/bin",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
];

/// The directory that holds `postgres`, `initdb` and the other programs of one server version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries(PathBuf);

/// No directory with a server's programs was found.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// None anywhere.
    #[error(
        "no PostgreSQL server programs (postgres, initdb) were found\n  hint: install them: on Debian and Ubuntu \
         `apt-get install postgresql`, on Fedora `dnf install postgresql-server`, with Homebrew \
         `brew install postgresql@17`; or name their directory in WALHOOK_PG_BIN"
    )]
    NotFound,
    /// Not where `WALHOOK_PG_BIN` says.
    #[error("WALHOOK_PG_BIN names {0}, which holds no `postgres` and `initdb`")]
    NotThere(PathBuf),
}

impl Binaries {
    /// Finds the newest installed server, or the one that `WALHOOK_PG_BIN` names.
    #[expect(clippy::disallowed_methods, reason = "which server to use is no part of the configuration")]
    pub fn find() -> Result<Self, BinariesError> {
        if let Ok(named) = std::env::var("WALHOOK_PG_BIN") {
            let named = PathBuf::from(named);
            return if is_server(&named) { Ok(Self(named)) } else { Err(BinariesError::NotThere(named)) };
        }
        versioned()
            .into_iter()
            .chain(PLAIN.iter().map(PathBuf::from))
            .chain(told_by_pg_config())
            .chain(std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect::<Vec<_>>())
            .find(|directory| is_server(directory))
            .map(Self)
            .ok_or(BinariesError::NotFound)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn is_server(directory: &Path) -> bool {
    directory.join("postgres").is_file() && directory.join("initdb").is_file()
}

/// Directories named by version, the newest first.
fn versioned() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in VERSIONED {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let version = name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|v| v.parse().ok());
            if let Some(version) = version {
                found.push((version, entry.path().join("bin")));
            }
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

fn told_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (!text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}
