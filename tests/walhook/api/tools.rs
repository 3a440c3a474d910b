//! Programs of others that try the API: what `tests/clients/install.sh` has installed, which `./test` calls.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// A place in the cache that the installer fills.
#[expect(clippy::disallowed_methods, reason = "where the tools are is told to the test by its environment")]
pub(super) fn cached(name: &str) -> PathBuf {
    let told = std::env::var("WALHOOK_TEST_CACHE").map(PathBuf::from);
    let cache = told.unwrap_or_else(|_| {
        let home = std::env::var("HOME").expect("HOME or WALHOOK_TEST_CACHE is set");
        Path::new(&home).join(".cache/walhook-tests")
    });
    cache.join(name)
}

/// A program that the installer has put among Python's.
pub(super) fn python(name: &str) -> PathBuf {
    cached("clients-python/bin").join(name)
}

/// A file beside the installer.
pub(super) fn beside_installer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a program to its end; its failure to begin, or to end in time, is the test's.
pub(super) async fn output(command: &mut Command, within: Duration) -> Output {
    let named = format!("{command:?}");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{named} did not end within {within:?}"));
    output.unwrap_or_else(|error| {
        panic!("{named} cannot be run: {error}; tests/clients/install.sh installs it")
    })
}

/// What a program that must succeed wrote to standard output.
pub(super) async fn succeeds(command: &mut Command, within: Duration) -> String {
    let named = format!("{command:?}");
    let output = output(command, within).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{named}: {}\n{out}\n{err}", output.status);
    out
}
