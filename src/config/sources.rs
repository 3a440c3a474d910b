//! Where a configuration comes from: a file and the environment. The one reader of both.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::problem::{Fault, Place};

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "walhook.toml";
/// The environment variable that names the file. It is not a key.
pub(super) const FILE_VARIABLE: &str = "WALHOOK_CONFIG";
/// The environment variable that names the instance that commands ask. It is not a key.
pub const API_URL_VARIABLE: &str = "WALHOOK_API_URL";
/// The one that holds the key for it. It is not a key of the configuration.
pub const API_KEY_VARIABLE: &str = "WALHOOK_API_KEY";
/// The one that names the file with that key.
pub const API_KEY_FILE_VARIABLE: &str = "WALHOOK_API_KEY_FILE";
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What a configuration is loaded from.
#[derive(Clone)]
pub struct Sources {
    /// The file, as named on the command line; `None`: what `WALHOOK_CONFIG` names, else `walhook.toml`.
    pub path: Option<PathBuf>,
    /// The whole environment, as names and values. It holds secrets.
    pub environment: Vec<(String, String)>,
}

impl Sources {
    /// This process's environment (what is not UTF-8 in it is left out), and the file named on its command line.
    pub fn from_process(path: Option<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { path, environment: std::env::vars_os().filter_map(text).collect() }
    }

    /// The file that is read.
    pub fn file(&self) -> PathBuf {
        let named = || self.variable(FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        self.path.clone().or_else(named).unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
    }

    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of the configuration file.
    pub(super) fn read_file(&self) -> Result<String, (Place, Fault)> {
        let path = self.file();
        read_text(&path, FILE_BYTES).map_err(|fault| {
            let fault = if path.exists() {
                fault
            } else {
                Fault::new("there is no configuration file").hint(format!(
                    "Copy config.example.toml to {} and edit it, or name another file with --config or {FILE_VARIABLE}.",
                    path.display()
                ))
            };
            (Place::File { path, at: None }, fault)
        })
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads a file of at most `limit` bytes of UTF-8.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, Fault> {
    let refused = |why: String| Fault::new(format!("cannot read {}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| refused(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(refused(format!("it is longer than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8".to_owned()))
}

/// A file named in the configuration: where it is relative, from the configuration's folder.
pub(super) fn beside(config: &Path, name: &str) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(name)
}
