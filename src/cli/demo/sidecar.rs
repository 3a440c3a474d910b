//! The sidecar of the demo: this binary once more, run as users run it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::Instant;

use super::DemoError;
use super::receiver::Receivers;
use crate::tasks::{Role, Tasks};

/// How long it may take to get ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to stop: its own grace, and a little.
const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// Lines of its log that are kept for the case that it dies.
const LINES_KEPT: usize = 20;
/// The variable that hands the secret over, as an operator would.
const SECRET_VARIABLE: &str = "SHOP_WEBHOOK_SECRET";

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running sidecar.
pub(super) struct Sidecar {
    child: Child,
    address: SocketAddr,
    log: Lines,
    _home: TempDir,
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> DemoError {
    move |source| DemoError::Io { action, source }
}

/// What an operator of the shop would write.
fn file(database: &str, server: SocketAddr, receivers: Receivers) -> String {
    let Receivers { crm, warehouse } = receivers;
    format!(
        r#"[database]
url = "{database}"

[server]
listen = "{server}"

[tables.orders]
event = "order"

[tables.customers]
event = "customer"

[[events]]
type = "order.shipped"
table = "orders"
on = ["update"]
when = "record.status == 'shipped' && old.status != 'shipped'"

[[webhooks]]
name = "crm"
url = "http://{crm}/hooks"
secret = {{ env = "{SECRET_VARIABLE}" }}
events = ["customer.*", "order.created", "order.updated", "order.deleted"]

[[webhooks]]
name = "warehouse"
url = "http://{warehouse}/hooks"
secret = {{ env = "{SECRET_VARIABLE}" }}
events = ["order.shipped"]
retry = {{ schedule = ["1s", "2s", "5s"] }}
"#
    )
}

impl Sidecar {
    /// Starts it and waits until it streams.
    pub(super) async fn start(
        database: &str,
        receivers: Receivers,
        secret: &SecretString,
        tasks: &Tasks,
    ) -> Result<Self, DemoError> {
        let home = tempfile::Builder::new()
            .prefix("walhook-demo-")
            .tempdir()
            .map_err(io("make a temporary directory"))?;
        let path = home.path().join("walhook.toml");
        let address = free_address().await?;
        tokio::fs::write(&path, file(database, address, receivers))
            .await
            .map_err(io("write walhook.toml"))?;
        let binary = std::env::current_exe().map_err(io("find this program"))?;
        let mut child = Command::new(binary)
            .arg("run")
            .arg("--config")
            .arg(&path)
            .env(SECRET_VARIABLE, secret.expose_secret())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for the demo, which stops it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start the sidecar"))?;
        let log = Lines::default();
        if let Some(stderr) = child.stderr.take() {
            tasks.spawn("the sidecar's log", Role::Passing, follow(stderr, log.clone()));
        }
        let mut sidecar = Self { child, address, log, _home: home };
        sidecar.ready().await?;
        Ok(sidecar)
    }

    /// Where its own pages are.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn ready(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(self.address).await {
            let ended = self.child.try_wait().map_err(io("wait for the sidecar"))?.is_some();
            if ended || Instant::now() > deadline {
                return Err(DemoError::Sidecar { log: self.log_end() });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits for its death, which should not come; gives the end of its log.
    pub(super) async fn death(&mut self) -> String {
        let status = self.child.wait().await;
        tracing::debug!(?status, "the sidecar ended");
        self.log_end()
    }

    /// Stops it as an operator does, and kills it where it does not listen.
    pub(super) async fn stop(&mut self) {
        if let Some(pid) = self.child.id() {
            let asked = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await;
            tracing::debug!(?asked, "the sidecar was asked to stop");
        }
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            let killed = self.child.kill().await;
            tracing::debug!(?killed, "the sidecar was killed");
        }
    }

    fn log_end(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

async fn follow(stderr: ChildStderr, log: Lines) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() >= LINES_KEPT {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// A loopback address that was free a moment ago.
async fn free_address() -> Result<SocketAddr, DemoError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io("find a free port"))?;
    listener.local_addr().map_err(io("find a free port"))
}

/// Whether `/readyz` answers 200.
async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(head)) if head.ends_with(b" 200"))
}
