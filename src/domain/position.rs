//! Places in the write-ahead log.
//!
//! Three kinds, because mixing them up loses or repeats events: an [`Lsn`] is any byte address; a
//! [`CommitLsn`] orders and names transactions; an [`EndLsn`] is what may be confirmed to the server. A commit's
//! end is the next transaction's begin, so confirming a [`CommitLsn`] would have the transaction sent again.

use std::fmt;
use std::str::FromStr;

/// A byte address in the write-ahead log, written `X/X` in hexadecimal as Postgres does (`pg_lsn`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Where a transaction's commit record starts: names the transaction and orders it among all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitLsn(pub Lsn);

/// The byte after a commit record: confirming it tells the server that the transaction is not wanted again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndLsn(pub Lsn);

/// Text that is no LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a log position of the form 16/B374D848")]
pub struct ParseLsnError {
    /// The text as given.
    pub text: String,
}

impl Lsn {
    /// How many bytes of log lie between `earlier` and this; zero when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As a Postgres `bigint`, for columns that must sort; addresses stay below 2^63 in practice and saturate.
    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Display for CommitLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EndLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let bad = || ParseLsnError { text: text.to_owned() };
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |digits: &str| {
            let plain = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let (high, low) = part(high).zip(part(low)).ok_or_else(bad)?;
        Ok(Self((high << 32) | low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_and_writes_as_postgres_does() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for bad in ["", "/", "1", "1/", "/1", "1/2/3", "g/0", "123456789/0", "+1/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }
}
