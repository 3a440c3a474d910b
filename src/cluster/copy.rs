//! A second server from a copy of a cluster's files: its standby, or a backup of it that is restored.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use super::server;
use super::{Cluster, ClusterError, Mode};

/// What the copy starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// As the cluster itself would: a snapshot of its disk.
    Snapshot,
    /// As a standby that follows `primary_conninfo`. Slots are not copied, as with `pg_basebackup`.
    Standby,
    /// After a recovery to the end of the log it has, which begins a timeline: a restored backup.
    Recovered,
}

impl Copied {
    fn signal(self) -> Option<&'static str> {
        match self {
            Self::Snapshot => None,
            Self::Standby => Some("standby.signal"),
            Self::Recovered => Some("recovery.signal"),
        }
    }
}

impl Cluster {
    /// Copies the files to a cluster of its own, with further `settings`; this server is stopped meanwhile and started
    /// again. The copy is not started. Blocks the thread.
    pub fn copy(&mut self, kind: Copied, settings: &[(&str, String)]) -> Result<Self, ClusterError> {
        let home = super::new_home(self.owner)?;
        let watchdog = server::Watchdog::start(home.path())?;
        self.stop(Mode::Fast)?;
        let copied = copy_files(self.home.path(), home.path());
        self.start()?;
        copied?;
        let data = server::data_directory(home.path());
        if let Some(signal) = kind.signal() {
            let path = data.join(signal);
            let made = OpenOptions::new().create(true).append(true).open(&path);
            made.map_err(|source| ClusterError::Io { action: "write the signal file", source })?;
            self.owner.take(&path)?;
        }
        if kind == Copied::Standby {
            remove_slots(&data)?;
        }
        let own = [
            ("unix_socket_directories", home.path().display().to_string()),
            // The log it has is all there is.
            ("restore_command", "false".to_owned()),
        ];
        let settings = own.iter().chain(settings);
        let line = |(name, value): &(&str, String)| format!("{name} = '{}'", value.replace('\'', "''"));
        let text = settings.map(line).collect::<Vec<_>>().join("\n") + "\n";
        server::configure(home.path(), &text)?;
        Ok(Self {
            binaries: self.binaries.clone(),
            home,
            owner: self.owner,
            password: self.password.clone(),
            port: 0,
            running: None,
            watchdog,
        })
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<(), ClusterError> {
    let output = Command::new("cp")
        .arg("-a")
        .arg(server::data_directory(from))
        .arg(server::data_directory(to))
        .output()
        .map_err(|source| ClusterError::Io { action: "copy the files", source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(ClusterError::Program { program: "cp", output: String::from_utf8_lossy(&output.stderr).into_owned() })
}

fn remove_slots(data: &Path) -> Result<(), ClusterError> {
    let failed = |source| ClusterError::Io { action: "remove the copied slots", source };
    for entry in std::fs::read_dir(data.join("pg_replslot")).map_err(failed)?.flatten() {
        std::fs::remove_dir_all(entry.path()).map_err(failed)?;
    }
    Ok(())
}
