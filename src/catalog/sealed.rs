//! What is secret in the rows of webhooks: opened to be checked, and sealed to be stored.
//!
//! A column is sealed as a whole: `secret` with all its entries and their ends, `auth`, `headers` and `tls` as their JSON.
//! Of `tls`, only where there is a key in it: certificates are public.

use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Config, Problem, Problems, row_described};
use crate::domain::{EncryptionKey, SigningSecret};
use crate::ledger::secrets::{COLUMNS, Held};
use crate::seal::{Home, SealError, is_sealed, key_of, open, seal};

/// How what is secret stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Encrypted with the first key.
    Encrypted,
    /// Encrypted with one of the other keys.
    OlderKey,
    /// As plain text.
    Plain,
    /// Encrypted, and none of the keys opens it.
    Unreadable,
}

impl Standing {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted",
            Self::OlderKey => "older key",
            Self::Plain => "plain",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A secret in a column of several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Text(String),
    Ending {
        secret: String,
        #[serde(default)]
        until: Option<Timestamp>,
    },
}

/// A row with what is sealed in it opened; every column that does not open is a problem of its own.
pub fn opened(row: &Map<String, Value>, config: &Config) -> Result<Map<String, Value>, Problems> {
    let mut row = row.clone();
    let webhook = row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    for column in COLUMNS {
        let Some(Value::String(text)) = row.get(column).filter(|value| is_sealed_value(value)) else {
            continue;
        };
        let described = row_described(&webhook, config);
        let told = |message: String, hint: &str| Problem {
            hint: Some(hint.to_owned()),
            ..Problem::of_row(&described, column, message)
        };
        let home = Home { webhook: &webhook, column };
        let value = match open(&config.security.encryption_keys, home, text) {
            Err(error) => Err(told(error.to_string(), error.hint())),
            Ok(text) if column == "secret" => Ok(Value::String(text.to_string())),
            Ok(text) => serde_json::from_str(&text)
                .map_err(|_| told("what was encrypted is no JSON".to_owned(), SealError::Malformed.hint())),
        };
        match value {
            Ok(value) => drop(row.insert(column.to_owned(), value)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(row) } else { Err(Problems(problems)) }
}

fn is_sealed_value(value: &Value) -> bool {
    value.as_str().is_some_and(is_sealed)
}

/// The sealed text of a column, where it is sealed.
fn sealed_in<'a>(column: &str, text: &'a str) -> Option<&'a str> {
    // What is sealed has nothing in it that JSON would escape.
    let text = if column == "secret" { text } else { text.strip_prefix('"')?.strip_suffix('"')? };
    is_sealed(text).then_some(text)
}

/// How what a row holds stands, a column each of those that hold something secret.
pub fn standings(held: &Held, keys: &[EncryptionKey]) -> Vec<(&'static str, Standing)> {
    let standing = |(column, text): (&'static str, &Option<Zeroizing<String>>)| {
        let text = text.as_ref()?;
        let Some(sealed) = sealed_in(column, text) else {
            return has_secret(column, text).then_some((column, Standing::Plain));
        };
        let standing = match open(keys, Home { webhook: &held.webhook, column }, sealed) {
            Err(_) => Standing::Unreadable,
            Ok(_) if key_of(sealed).ok() == keys.first().map(EncryptionKey::id) => Standing::Encrypted,
            Ok(_) => Standing::OlderKey,
        };
        Some((column, standing))
    };
    COLUMNS.into_iter().zip(&held.columns).filter_map(standing).collect()
}

/// Whether there is a secret in a column's plain text.
fn has_secret(column: &str, text: &str) -> bool {
    let is_empty = matches!(text.trim(), "" | "{}" | "[]" | "null");
    !is_empty
        && (column != "tls" || serde_json::from_str::<Value>(text).is_ok_and(|tls| tls.get("key").is_some()))
}

/// A row as it is with everything secret sealed by the first key; `None` where nothing is to be done. What none of the keys
/// opens is an error, with the column.
pub fn sealed_anew(held: &Held, keys: &[EncryptionKey]) -> Result<Option<Held>, (&'static str, SealError)> {
    let Some(first) = keys.first() else { return Ok(None) };
    let mut after = held.clone();
    let mut is_changed = false;
    for (column, text) in COLUMNS.into_iter().zip(&mut after.columns) {
        let Some(text) = text else { continue };
        let home = Home { webhook: &held.webhook, column };
        let plain = match sealed_in(column, text) {
            Some(sealed) => {
                let plain = open(keys, home, sealed).map_err(|error| (column, error))?;
                if key_of(sealed) == Ok(first.id()) {
                    continue;
                }
                plain
            }
            None if has_secret(column, text) => text.clone(),
            None => continue,
        };
        let sealed = seal(first, home, &plain).map_err(|error| (column, error))?;
        *text = Zeroizing::new(if column == "secret" { sealed } else { json!(sealed).to_string() });
        is_changed = true;
    }
    Ok(is_changed.then_some(after))
}

/// The secrets that a webhook's column `secret` holds, sealed or not; `None` where it holds nothing that could be read as
/// secrets.
pub fn secrets_in(
    webhook: &str,
    text: &str,
    keys: &[EncryptionKey],
) -> Result<Option<Vec<SigningSecret>>, SealError> {
    let plain = match sealed_in("secret", text) {
        Some(sealed) => open(keys, Home { webhook, column: "secret" }, sealed)?,
        None => Zeroizing::new(text.to_owned()),
    };
    if !plain.trim_start().starts_with('[') || serde_json::from_str::<Value>(&plain).is_err() {
        return Ok(Some(vec![SecretString::from(plain.as_str()).into()]));
    }
    let entries: Option<Vec<Entry>> = serde_json::from_str(&plain).ok();
    let secret = |entry| match entry {
        Entry::Text(text) => SigningSecret::from(SecretString::from(text)),
        Entry::Ending { secret, until } => SigningSecret { text: secret.into(), until },
    };
    Ok(entries.map(|entries| entries.into_iter().map(secret).collect()))
}

/// What the column `secret` holds for these secrets: one as its text, several as JSON; sealed by the first key, where there
/// is one.
pub fn secrets_text(
    webhook: &str,
    secrets: &[SigningSecret],
    keys: &[EncryptionKey],
) -> Result<Zeroizing<String>, SealError> {
    let entry = |secret: &SigningSecret| match secret.until {
        None => json!(secret.text.expose_secret()),
        Some(until) => json!({ "secret": secret.text.expose_secret(), "until": until.to_string() }),
    };
    let plain = Zeroizing::new(match secrets {
        [only] if only.until.is_none() => only.text.expose_secret().to_owned(),
        several => Value::Array(several.iter().map(entry).collect()).to_string(),
    });
    match keys.first() {
        Some(first) => seal(first, Home { webhook, column: "secret" }, &plain).map(Zeroizing::new),
        None => Ok(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Checks, Sources};

    fn keys(bytes: &[u8]) -> Vec<EncryptionKey> {
        bytes.iter().map(|byte| EncryptionKey::new(Zeroizing::new([*byte; 32]))).collect()
    }

    fn held(columns: [Option<&str>; 4]) -> Held {
        let columns = columns.map(|text| text.map(|text| Zeroizing::new(text.to_owned())));
        Held { webhook: "crm".to_owned(), columns }
    }

    fn config() -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walhook.toml");
        std::fs::write(&path, "[database]\nurl = 'postgres://db/app'\n").unwrap();
        let checks = Checks {
            condition: &|_| Ok(()),
            template: &|_| Ok(()),
            connection: &|_| Ok(()),
            reach: &|_| Ok(()),
            stored: crate::config::StoredTemplates::NONE,
        };
        crate::config::load(&Sources { path: Some(path), environment: Vec::new() }, &checks).unwrap()
    }

    const PLAIN: [Option<&str>; 4] = [
        Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        Some(r#"{"kind": "bearer", "token": "hunter2"}"#),
        Some(r#"{"X-Key": "hunter2"}"#),
        Some(r#"{"key": "hunter2", "certificate": "public"}"#),
    ];

    #[test]
    fn what_is_plain_or_has_an_older_key_is_sealed_anew_and_only_that() {
        let plain = held(PLAIN);
        let all = |standing| COLUMNS.map(|column| (column, standing)).to_vec();
        assert_eq!(standings(&plain, &keys(&[1])), all(Standing::Plain));
        assert!(sealed_anew(&plain, &[]).unwrap().is_none());

        let sealed = sealed_anew(&plain, &keys(&[1])).unwrap().unwrap();
        assert_eq!(standings(&sealed, &keys(&[1])), all(Standing::Encrypted));
        assert!(sealed_anew(&sealed, &keys(&[1])).unwrap().is_none(), "it is sealed already");
        for text in sealed.columns.iter().flatten() {
            assert!(!text.contains("hunter2") && !text.contains("MfKQ"), "{}", text.as_str());
        }
        assert_eq!(standings(&sealed, &keys(&[2, 1])), all(Standing::OlderKey));
        let anew = sealed_anew(&sealed, &keys(&[2, 1])).unwrap().unwrap();
        assert_eq!(standings(&anew, &keys(&[2])), all(Standing::Encrypted));
        assert_eq!(standings(&anew, &keys(&[1])), all(Standing::Unreadable));
        assert!(matches!(sealed_anew(&anew, &keys(&[1])), Err(("secret", SealError::UnknownKey { .. }))));
    }

    #[test]
    fn what_holds_no_secret_stays_as_it_is() {
        let open = held([None, None, Some("{}"), Some(r#"{"ca": "-----BEGIN CERTIFICATE-----"}"#)]);
        assert!(standings(&open, &keys(&[1])).is_empty());
        assert!(sealed_anew(&open, &keys(&[1])).unwrap().is_none());
    }

    #[test]
    fn a_row_is_opened_whole_or_told_column_by_column() {
        let config = |keys| {
            let mut config = config();
            config.security.encryption_keys = keys;
            config
        };
        let sealed = sealed_anew(&held(PLAIN), &keys(&[1])).unwrap().unwrap();
        let mut row: Map<String, Value> = [("name".to_owned(), json!("crm"))].into_iter().collect();
        for (column, text) in COLUMNS.into_iter().zip(sealed.columns.iter().flatten()) {
            let of_json = || serde_json::from_str(text).unwrap();
            row.insert(column.to_owned(), if column == "secret" { json!(text.as_str()) } else { of_json() });
        }
        let opened_row = opened(&row, &config(keys(&[2, 1]))).unwrap();
        for (column, text) in COLUMNS.into_iter().zip(PLAIN.into_iter().flatten()) {
            let expect = if column == "secret" { json!(text) } else { serde_json::from_str(text).unwrap() };
            assert_eq!(opened_row[column], expect, "{column}");
        }
        let problems = opened(&row, &config(Vec::new())).unwrap_err();
        assert_eq!(problems.0.len(), 4);
        let told = problems.to_string();
        let id = keys(&[1])[0].id();
        let first = format!(
            "row \"crm\" of walhook.webhooks: secret: it is encrypted (key {id}), and security.encryption_key is not \
             set\n  hint: Set security.encryption_key to the key that it was encrypted with.\n"
        );
        assert!(told.starts_with(&first), "{told}");
        // In another webhook's row.
        row.insert("name".to_owned(), json!("other"));
        let told = opened(&row, &config(keys(&[1]))).unwrap_err().to_string();
        assert!(told.contains("row \"other\" of walhook.webhooks: auth: it cannot be decrypted"), "{told}");
        // A column with the text of another one.
        row.insert("name".to_owned(), json!("crm"));
        row.insert("auth".to_owned(), row["headers"].clone());
        let told = opened(&row, &config(keys(&[1]))).unwrap_err();
        assert_eq!((told.0.len(), told.0[0].key.as_str()), (1, "auth"));
    }

    #[test]
    fn secrets_are_written_as_they_are_read() {
        let until: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let secret = |text: &str, until| SigningSecret { text: text.into(), until };
        let several = [secret("a", None), secret("b", Some(until)), secret("c", None)];
        let shown = |secrets: &[SigningSecret]| {
            let text = |secret: &SigningSecret| (secret.text.expose_secret().to_owned(), secret.until);
            secrets.iter().map(text).collect::<Vec<_>>()
        };
        for keys in [keys(&[]), keys(&[1])] {
            for count in [1, 3] {
                let text = secrets_text("crm", &several[..count], &keys).unwrap();
                assert_eq!(is_sealed(&text), !keys.is_empty());
                let read = secrets_in("crm", &text, &keys).unwrap().unwrap();
                assert_eq!(shown(&read), shown(&several[..count]));
            }
        }
        assert_eq!(secrets_text("crm", &several[..1], &[]).unwrap().as_str(), "a");
        let row = r#"["a",{"secret":"b","until":"2026-12-01T00:00:00Z"},"c"]"#;
        assert_eq!(secrets_text("crm", &several, &[]).unwrap().as_str(), row);
        // As the reader of rows has it: what is no JSON is one secret, and what is JSON of another kind is none.
        assert_eq!(
            shown(&secrets_in("crm", "[not json", &[]).unwrap().unwrap()),
            [("[not json".to_owned(), None)]
        );
        assert!(secrets_in("crm", "[7]", &[]).unwrap().is_none());
    }
}
