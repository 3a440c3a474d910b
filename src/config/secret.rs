//! Values that are secret: a text, or where to find it.
//!
//! `"text"`, `{ env = "NAME" }` or `{ file = "/run/secrets/name" }` (one line end at the file's end is cut off). In a
//! row of the database only text is taken: who may write rows is not who may read the operator's files and variables.

use std::path::Path;

use secrecy::SecretString;
use serde_json::Value;

use super::document::Origin;
use super::node::Node;
use super::problem::Fault;
use super::sources::{Sources, beside, read_text};

const FORMS: &str = "Write \"text\", { env = \"NAME\" } or { file = \"/run/secrets/name\" }.";
const FILE_BYTES: u64 = 64 * 1024;
/// A bundle of certificates is longer than any key.
const LONG_FILE_BYTES: u64 = 1024 * 1024;

impl Node<'_> {
    fn secret_text(&self, limit: u64) -> Option<String> {
        let found = match (&self.value, &self.doc.origin) {
            (Value::String(text), _) => Ok(text.clone()),
            (Value::Object(_), Origin::Row(_)) => Err(Fault::new("expected the value itself, as a string")
                .detail("Only the operator's file may point to environment variables and files.")),
            (Value::Object(form), Origin::Operator { path, sources, .. }) => {
                let mut entries = form.iter();
                match (entries.next(), entries.next()) {
                    (Some((form, Value::String(name))), None) => look_up(form, name, (path, sources), limit),
                    _ => Err(Fault::new("expected a string, or where to find it; found another table")
                        .detail(FORMS)),
                }
            }
            _ => Err(Fault::new("expected a string, or where to find it").detail(FORMS)),
        };
        let nonempty = found
            .and_then(|text| if text.is_empty() { Err(Fault::new("the value is empty")) } else { Ok(text) });
        nonempty.map_err(|fault| self.refuse(fault)).ok()
    }

    pub fn secret(self) -> Option<SecretString> {
        self.secret_text(FILE_BYTES).map(SecretString::from)
    }

    /// A long text that is no secret, and written like one: certificates.
    pub fn long_text(self) -> Option<String> {
        self.secret_text(LONG_FILE_BYTES)
    }

    /// A secret that `check` accepts; what it says may not show the secret.
    pub fn checked_secret(self, check: impl FnOnce(&str) -> Result<(), Fault>) -> Option<SecretString> {
        let text = self.secret_text(FILE_BYTES)?;
        check(&text).map_err(|fault| self.refuse(fault)).ok()?;
        Some(SecretString::from(text))
    }
}

fn look_up(
    form: &str,
    name: &str,
    (config, sources): (&Path, &Sources),
    limit: u64,
) -> Result<String, Fault> {
    match form {
        "env" => sources.variable(name).map(str::to_owned).ok_or_else(|| {
            Fault::new(format!("the environment variable {name} is not set"))
                .hint(format!("Set {name} for walhook's process, or write {{ file = \"…\" }} instead."))
        }),
        "file" => {
            let text = read_text(&beside(config, name), limit)?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
        other => Err(Fault::new(format!("expected env or file, found \"{other}\""))
            .detail(FORMS)
            .nearest(other, ["env", "file"])),
    }
}
