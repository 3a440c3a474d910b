//! Running the server's programs: as whom, started how, stopped how, and who cleans up when nobody is left to.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::{Binaries, ClusterError, Mode, PATIENCE};

/// Reads until its input ends, which is when the owner has died or is done; then ends what is left. The server is
/// known by the first line of its own pid file. Signals from a terminal are not for it.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP QUIT
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
fi
rm -rf "$1"
"#;

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> ClusterError {
    move |source| ClusterError::Io { action, source }
}

/// The data directory of a cluster whose home is `home`.
pub(super) fn data_directory(home: &Path) -> PathBuf {
    home.join("data")
}

/// A loopback port that was free a moment ago.
pub(super) fn free_port() -> Result<u16, ClusterError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(io("find a free port"))?;
    Ok(listener.local_addr().map_err(io("find a free port"))?.port())
}

/// Waits a little while where somebody else has the port of a server that was stopped.
pub(super) fn wait_for_port(port: u16) {
    for _ in 0..50 {
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whom the server runs as: this process's user, or `postgres` where that is root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    other: Option<(u32, u32)>,
}

impl Owner {
    pub(super) fn of_this_process() -> Result<Self, ClusterError> {
        // A file that we just made belongs to whom we run as.
        let probe = tempfile::tempfile().and_then(|f| f.metadata()).map_err(io("make a temporary file"))?;
        if probe.uid() != 0 {
            return Ok(Self { other: None });
        }
        let number = |flag| id_of_postgres(flag).ok_or(ClusterError::NoUser);
        Ok(Self { other: Some((number("-u")?, number("-g")?)) })
    }

    /// Hands a path over, closed to everybody else.
    pub(super) fn take(self, path: &Path) -> Result<(), ClusterError> {
        if let Some((user, group)) = self.other {
            chown(path, Some(user), Some(group)).map_err(io("hand a file to the user `postgres`"))?;
        }
        Ok(())
    }

    /// A command in `home` as this owner, in a process group of its own: Ctrl-C in the terminal is for us, and we
    /// stop the server in order.
    fn command(self, program: &Path, home: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(home).stdin(Stdio::null()).env("LC_ALL", "C").process_group(0);
        if let Some((user, group)) = self.other {
            command.uid(user).gid(group);
        }
        command
    }
}

/// Adds settings to the cluster's `postgresql.conf`; of two for one name the later counts.
pub(super) fn configure(home: &Path, text: &str) -> Result<(), ClusterError> {
    let path = data_directory(home).join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(path).map_err(io("open postgresql.conf"))?;
    file.write_all(text.as_bytes()).map_err(io("write postgresql.conf"))
}

fn id_of_postgres(flag: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, "postgres"]).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Runs `initdb`: local connections are trusted (the directory is closed), TCP ones need the password.
pub(super) fn initialise(
    binaries: &Binaries,
    owner: &Owner,
    home: &Path,
    password: &str,
) -> Result<(), ClusterError> {
    let secret = home.join("password");
    std::fs::write(&secret, password).map_err(io("write the password file"))?;
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600))
        .map_err(io("close the password file"))?;
    owner.take(&secret)?;
    let output = owner
        .command(&binaries.program("initdb"), home)
        .args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile=password"])
        .arg("--pgdata")
        .arg(data_directory(home))
        .output()
        .map_err(io("run initdb"))?;
    std::fs::remove_file(&secret).map_err(io("remove the password file"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ClusterError::Program { program: "initdb", output: end_of(&String::from_utf8_lossy(&output.stderr)) })
}

/// Starts the server on `port` and waits until it takes connections.
pub(super) fn start(
    binaries: &Binaries,
    owner: &Owner,
    home: &Path,
    port: u16,
) -> Result<Child, ClusterError> {
    let log_path = home.join("server.log");
    let log = open_log(&log_path)?;
    let also = log.try_clone().map_err(io("open the server's log"))?;
    let mut child = owner
        .command(&binaries.program("postgres"), home)
        .arg("-D")
        .arg(data_directory(home))
        .arg("-p")
        .arg(port.to_string())
        .stdout(also)
        .stderr(log)
        .spawn()
        .map_err(io("run postgres"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if is_ready(home, child.id()) {
            return Ok(child);
        }
        let ended = child.try_wait().map_err(io("wait for postgres"))?.is_some();
        if ended || Instant::now() > deadline {
            if !ended {
                let stopped = stop(child, Mode::Immediate);
                drop(stopped);
            }
            let text = std::fs::read_to_string(&log_path).unwrap_or_default();
            return Err(ClusterError::Program { program: "postgres", output: end_of(&text) });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn open_log(path: &Path) -> Result<File, ClusterError> {
    OpenOptions::new().create(true).append(true).open(path).map_err(io("open the server's log"))
}

/// The server writes `ready` (or `standby`) into the eighth line of its pid file once it takes connections.
fn is_ready(home: &Path, pid: u32) -> bool {
    let text = std::fs::read_to_string(data_directory(home).join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.trim() == pid.to_string())
        && lines.nth(6).is_some_and(|line| matches!(line.trim(), "ready" | "standby"))
}

/// Ends the server, by its pid, and waits for it; kills it where it does not listen.
pub(super) fn stop(mut child: Child, mode: Mode) -> Result<(), ClusterError> {
    let signal = match mode {
        Mode::Fast => "-INT",
        Mode::Immediate => "-QUIT",
    };
    let command = format!("kill {signal} {}", child.id());
    Command::new("sh").args(["-c", &command]).status().map_err(io("signal postgres"))?;
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().map_err(io("wait for postgres"))?.is_none() {
        if Instant::now() > deadline {
            child.kill().map_err(io("kill postgres"))?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(8)).copied().collect::<Vec<_>>().join("\n")
}

/// A shell that outlives this process by a moment, to end what it left.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    pub(super) fn start(home: &Path) -> Result<Self, ClusterError> {
        let shell = Command::new("sh")
            .args(["-c", WATCHDOG, "walhook-watchdog"])
            .arg(home)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(io("start the watchdog"))?;
        Ok(Self { shell })
    }

    /// Lets it clean up now, and waits for it.
    pub(super) fn end(&mut self) {
        drop(self.shell.stdin.take());
        let ended = self.shell.wait();
        drop(ended);
    }
}
