//! What is wrong with a configuration: every problem, each with its place, in the voice of Postgres.
//!
//! A problem is up to three lines: the primary line (where, which key, what), a detail (what is valid) and a hint
//! (what to do). No line shows a secret (invariant I12).

use std::fmt;
use std::path::PathBuf;

use super::path::Path;

/// Where a problem stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file, at a line and a column (both from 1, columns in characters) where they are known.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line and column.
        at: Option<(usize, usize)>,
    },
    /// In an environment variable.
    Variable(String),
    /// In a row of the database, described.
    Row(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The path of the key, such as `webhooks[0].retry.jitter`; empty where it is about the whole.
    pub key: String,
    /// The same as a JSON pointer (RFC 6901), such as `/webhooks/0/retry/jitter`.
    pub pointer: String,
    /// What is wrong: lower case, without a full stop.
    pub message: String,
    /// What is valid here, as a sentence.
    pub detail: Option<String>,
    /// What to do, as a sentence.
    pub hint: Option<String>,
}

/// Everything that is wrong, in the order of the file; never empty where it is returned as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// What is wrong with a value, by someone who does not know where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the hint that names the valid word nearest to `written`, where one is near.
    pub fn nearest<'a>(self, written: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(written, valid) {
            Some(word) => self.hint(format!("Perhaps you meant \"{word}\".")),
            None => self,
        }
    }

    pub fn at(self, place: Place, path: &Path) -> Problem {
        let Self { message, detail, hint } = self;
        Problem { place, key: path.to_string(), pointer: path.pointer(), message, detail, hint }
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// The valid word that a person who wrote `written` most likely meant.
pub(super) fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let likeness = |word: &str| strsim::normalized_damerau_levenshtein(&written, &word.to_lowercase());
    let best = valid.into_iter().map(|word| (likeness(word), word)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= 0.5).map(|(_, word)| word)
}

impl Problem {
    /// One that somebody else found in a row of the database, at a key of it.
    pub fn of_row(row: &str, key: &str, message: String) -> Self {
        let path = key.split('.').fold(Path::default(), |path, key| path.key(key));
        Fault::new(message).at(Place::Row(row.to_owned()), &path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, at: Some((line, column)) } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::File { path, at: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Row(row) => f.write_str(row),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\n  detail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_only_where_one_is_near() {
        let keys = ["timeout", "concurrency", "retry"];
        assert_eq!(nearest("timout", keys), Some("timeout"));
        assert_eq!(nearest("Retry", keys), Some("retry"));
        assert_eq!(nearest("payload", keys), None);
        assert_eq!(nearest("anything", []), None);
    }
}
