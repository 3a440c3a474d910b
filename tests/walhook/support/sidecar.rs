//! The binary as users run it, with its log under watch.

use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Database, PATIENCE, background, eventually};

/// How a sidecar is run. The file is `[database]`, `[server]` and what the test adds.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The rest of `walhook.toml`.
    pub toml: String,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
    /// Parts of the warnings and errors that this test brings about.
    pub expected: Vec<&'static str>,
}

impl Run {
    /// With this after the `[database]` and `[server]` sections.
    pub fn with(toml: impl Into<String>) -> Self {
        Self { toml: toml.into(), ..Self::default() }
    }

    /// A webhook of the file that takes everything to `url`, with more keys in `keys`.
    pub fn webhook(mut self, name: &str, url: &str, keys: &str) -> Self {
        let secret = super::SECRET;
        self.toml.extend([format!(
            "\n[[webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret = \"{secret}\"\n{keys}\n"
        )]);
        self
    }

    /// With a fail point's actions, in the syntax of the `fail` crate.
    pub fn fail_at(mut self, actions: &str) -> Self {
        self.environment.push(("FAILPOINTS".to_owned(), actions.to_owned()));
        self
    }

    /// Lists a part of a warning or an error that this test brings about.
    pub fn expecting(mut self, part: &'static str) -> Self {
        self.expected.push(part);
        self
    }
}

type Log = Arc<(Mutex<Vec<serde_json::Value>>, Notify)>;

/// A running sidecar. Dropping it kills the process and judges its log.
pub struct Sidecar {
    run: Run,
    home: TempDir,
    log: Log,
    lines_before: usize,
    child: Option<Child>,
    reader: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// Starts it on a database and waits until it streams.
    pub async fn start(database: &Database, run: Run) -> Self {
        let mut sidecar = Self::prepare(database, run);
        sidecar.spawn();
        sidecar.ready().await;
        sidecar
    }

    /// Writes its file, and starts nothing.
    pub fn prepare(database: &Database, run: Run) -> Self {
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        let sidecar = Self { run, home, log: Log::default(), lines_before: 0, child: None, reader: None };
        sidecar.write_own_file(database);
        sidecar
    }

    /// Writes its file as its run says by now.
    pub fn write_own_file(&self, database: &Database) {
        self.write_file(database, &self.run.toml);
    }

    /// Writes its file anew, with other text after `[database]` and `[server]`.
    pub fn write_file(&self, database: &Database, toml: &str) {
        let text = format!(
            "[database]\nurl = \"{}\"\nslot = \"{}\"\n\n[server]\nlisten = \"127.0.0.1:0\"\n\n{toml}",
            database.url, database.name,
        );
        std::fs::write(self.file(), text).expect("a file");
    }

    /// Its configuration file.
    pub fn file(&self) -> PathBuf {
        self.home.path().join("walhook.toml")
    }

    /// Starts the process and follows its log.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.lines_before = self.lines().len();
        let mut child = binary()
            .args(["--log-format", "json", "run", "--config"])
            .arg(self.file())
            .env("WALHOOK_LOG", "info")
            .envs(self.run.environment.iter().cloned())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(self.home.path().join("stdout")).expect("a file"))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary");
        let stderr = child.stderr.take().expect("a pipe");
        self.reader = Some(background(follow(stderr, self.log.clone())));
        self.child = Some(child);
    }

    /// Changes how the next start runs.
    pub fn next_run(&mut self, change: impl FnOnce(Run) -> Run) {
        self.run = change(std::mem::take(&mut self.run));
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("a running process")
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "it did not get ready within {PATIENCE:?}\n{}", self.log_text());
            assert!(!self.has_ended(), "it ended before it was ready\n{}", self.log_text());
            if let Some(address) = self.address()
                && get(&address, "/readyz").await.is_some_and(|(status, _)| status == 200)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it said beside its log, in this run.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.home.path().join("stdout")).expect("a file")
    }

    /// Where its server listens, once it has said so.
    pub fn address(&self) -> Option<String> {
        let lines = self.lines();
        let fresh = lines.get(self.lines_before..).unwrap_or_default();
        let listening = fresh.iter().rfind(|line| line["fields"]["message"] == "listening")?;
        Some(listening["fields"]["address"].as_str()?.to_owned())
    }

    /// The body of a page of its server.
    pub async fn page(&self, path: &str) -> String {
        let address = self.address().expect("an address");
        get(&address, path).await.map(|(_, body)| body).expect("an answer")
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child").is_some())
    }

    /// Ends the process as `kill -9` does.
    pub async fn kill9(&mut self) {
        if let Some(child) = self.child.as_mut() {
            child.kill().await.expect("a kill");
        }
        self.ended().await;
    }

    /// Sends a signal by name.
    pub async fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &command]).status().await.expect("a shell");
        assert!(status.success(), "no such process");
    }

    /// Asks it to stop, which it does in order.
    pub async fn stop(&mut self) {
        let code = self.terminate().await;
        assert_eq!(code, Some(0), "{}\n{}", self.last_lines(), self.log_text());
    }

    /// Asks it to stop, and gives its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        self.ended().await.code()
    }

    /// Waits until the process has ended, and its log is read.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a process");
        let status =
            tokio::time::timeout(PATIENCE, child.wait()).await.expect("an end in time").expect("a status");
        if let Some(reader) = self.reader.take() {
            reader.await.expect("a reader");
        }
        status
    }

    /// Starts it again, and waits until it streams.
    pub async fn restart(&mut self) {
        if self.child.is_some() {
            self.kill9().await;
        }
        self.spawn();
        self.ready().await;
    }

    /// Waits for a line of the log that has this in its message or another field.
    pub async fn logged(&self, part: &str) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let news = self.log.1.notified();
            let found = self.lines().into_iter().find(|line| line["fields"].to_string().contains(part));
            if let Some(line) = found {
                return line;
            }
            let late = tokio::time::timeout_at(deadline, news).await.is_err();
            assert!(!late, "never logged: {part}\n{}", self.log_text());
        }
    }

    /// How often it has published what is declared, over all its runs.
    pub fn catalogs(&self) -> usize {
        self.log_text().matches("the catalog is up to date").count()
    }

    /// Waits until it has published what is declared once more than `before`.
    pub async fn published_after(&self, before: usize) {
        eventually("what is declared is in force", PATIENCE, async || self.catalogs() > before).await;
    }

    /// Every line of its log, over all its runs.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log as text, for a failed test's output.
    pub fn log_text(&self) -> String {
        let lines: Vec<String> = self.lines().iter().map(ToString::to_string).collect();
        format!("--- log of the sidecar ---\n{}\n---", lines.join("\n"))
    }

    /// The last three, one by one: what is told of a failed test is short, and this is what matters most.
    fn last_lines(&self) -> String {
        let lines = self.lines();
        let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default();
        last.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn unlisted(&self) -> Vec<String> {
        let loud = |line: &serde_json::Value| matches!(line["level"].as_str(), Some("WARN" | "ERROR") | None);
        let listed = |line: &serde_json::Value| {
            let text = line.to_string();
            self.run.expected.iter().any(|part| text.contains(part))
        };
        self.lines().iter().filter(|line| loud(line) && !listed(line)).map(ToString::to_string).collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_text());
            return;
        }
        let unlisted = self.unlisted();
        assert!(
            unlisted.is_empty(),
            "the sidecar logged what the test did not list:\n{}",
            unlisted.join("\n")
        );
    }
}

/// The binary, without what only concerns the test.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walhook"));
    command.env_remove("RUST_BACKTRACE");
    for name in super::KNOBS {
        command.env_remove(name);
    }
    command
}

/// A line that is no JSON is kept as it is, without a level: it counts as loud.
async fn follow(stderr: tokio::process::ChildStderr, log: Log) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let parsed = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "text": line }));
        log.0.lock().unwrap_or_else(PoisonError::into_inner).push(parsed);
        log.1.notify_waiters();
    }
}

/// A GET by hand: status and body, or nothing where nobody answers.
pub async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
    Some((status, body))
}

/// Runs the binary to its end.
pub async fn run_once(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = binary();
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.envs(environment.iter().copied());
    let output = command.output();
    tokio::time::timeout(PATIENCE, output).await.expect("an end in time").expect("the binary")
}

/// Runs `walhook run` with a whole file that it must refuse; gives the exit code and what it said.
pub async fn refused(file: &str) -> (Option<i32>, String) {
    let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
    let path = home.path().join("walhook.toml");
    std::fs::write(&path, file).expect("a file");
    let output = run_once(&["run", "--config", path.to_str().expect("a plain path")], &[]).await;
    (output.status.code(), String::from_utf8(output.stderr).expect("plain text"))
}
