//! The sidecar that is measured: this binary once more, run as users run it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::{BenchError, io, process};

/// How long it may take to stream.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop: its own grace, and a little.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// Lines of its log that are shown when it dies.
const LINES_SHOWN: usize = 20;

/// A running sidecar.
pub(super) struct Sidecar {
    child: Child,
    pid: u32,
    address: SocketAddr,
    log: PathBuf,
    _home: TempDir,
}

impl Sidecar {
    /// Starts it with a configuration, to which its address is added. It may not stream yet.
    pub(super) async fn start(config: &str) -> Result<Self, BenchError> {
        let home = tempfile::Builder::new()
            .prefix("walhook-bench-")
            .tempdir()
            .map_err(io("make a temporary directory"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io("find a free port"))?;
        let address = listener.local_addr().map_err(io("find a free port"))?;
        drop(listener);
        let (path, log) = (home.path().join("walhook.toml"), home.path().join("log"));
        let config = format!("server.listen = \"{address}\"\n{config}");
        std::fs::write(&path, config).map_err(io("write walhook.toml"))?;
        let stderr = std::fs::File::create(&log).map_err(io("make a log"))?;
        let binary = std::env::current_exe().map_err(io("find this program"))?;
        let child = Command::new(binary)
            .arg("run")
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start the sidecar"))?;
        let pid = child.id().unwrap_or(0);
        Ok(Self { child, pid, address, log, _home: home })
    }

    /// Waits until it streams and its ledger can be written.
    pub(super) async fn ready(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.page("/readyz").await.is_some_and(|page| page.starts_with("HTTP/1.1 200")) {
            self.must_live()?;
            if Instant::now() > deadline {
                return Err(self.failure());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Where its API is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An error with the end of its log where it has died.
    pub(super) fn must_live(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait().map_err(io("wait for the sidecar"))? {
            None => Ok(()),
            Some(_) => Err(self.failure()),
        }
    }

    /// Waits for its death, which should not come.
    pub(super) async fn death(&mut self) -> BenchError {
        let status = self.child.wait().await;
        tracing::debug!(?status, "the sidecar ended");
        self.failure()
    }

    /// One of its numbers; `None` while it does not answer or has not counted it.
    pub(super) async fn number(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics").await?;
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        page.lines().find_map(value)
    }

    async fn page(&self, path: &str) -> Option<String> {
        let ask = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
            stream.write_all(request.as_bytes()).await?;
            let mut page = String::new();
            stream.read_to_string(&mut page).await?;
            Ok::<_, std::io::Error>(page)
        };
        timeout(Duration::from_secs(5), ask).await.ok()?.ok()
    }

    /// Processor time it has had, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds(self.pid)
    }

    /// The most it has had resident.
    pub(super) fn peak_mib(&self) -> Option<f64> {
        process::peak_mib(self.pid)
    }

    /// Stops it as an operator does, and kills it where it does not listen.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        let ask = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid)]).status().await;
        ask.map_err(io("stop the sidecar"))?;
        if timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await.map_err(io("kill the sidecar"))?;
        }
        Ok(())
    }

    fn failure(&self) -> BenchError {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)).copied();
        BenchError::Child { what: "the sidecar", said: shown.collect::<Vec<_>>().join("\n") }
    }
}
