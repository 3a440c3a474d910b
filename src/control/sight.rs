//! Whose webhooks somebody may see and change: all, or those of one tenant.
//!
//! No verb gets a session with the ledger without saying whose [`Sight`] it works under and what it is [`About`]; that is
//! where a tenant is turned away. A verb that forgets to ask does not compile. What a tenant may not see is told with the
//! words for what is not there, and without a word about what comes near.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::ControlError;
use crate::config::{Problem, Problems};
use crate::domain::{TENANT_MARK, tenant_of};

/// What of a declaration a tenant writes. Everything else is the operator's: what lends out the operator's means
/// (templates, certificates, proxies), and what guards them (concurrency, breakers, how long is held).
const OF_TENANTS: [&str; 16] = [
    "name",
    "description",
    "metadata",
    "url",
    "secret",
    "events",
    "filter",
    "headers",
    "format",
    "format_version",
    "compression",
    "timeout",
    "ordering",
    "retry",
    "auth",
    "signature",
];

/// Whose webhooks are there for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Everybody's.
    All,
    /// This tenant's alone.
    Tenant(Arc<str>),
}

/// What a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// What is the operator's: no tenant may.
    Operators,
    /// One webhook and what belongs to it.
    Webhook(&'a str),
    /// What there is for this sight; the verb leaves out the rest by [`Sight::tenant`].
    Seen,
}

impl Sight {
    /// Whose alone; `None`: everybody's.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }

    /// Whether a webhook of this name is there for it.
    pub fn sees(&self, webhook: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(tenant) => tenant_of(webhook) == Some(tenant),
        }
    }

    /// Turns away whom it does not concern.
    pub(super) fn admit(&self, about: About<'_>) -> Result<(), ControlError> {
        match about {
            About::Operators if *self == Self::All => Ok(()),
            About::Operators => Err(ControlError::Operators),
            About::Webhook(name) if !self.sees(name) => Err(unknown(name)),
            About::Webhook(_) | About::Seen => Ok(()),
        }
    }

    /// Makes a document that a tenant wants to be its webhook one of the tenant's. `name` is the name that it has to have.
    pub(super) fn claim(&self, document: &mut Map<String, Value>) -> Result<(), ControlError> {
        let Self::Tenant(tenant) = self else { return Ok(()) };
        let of_operator = |key: &'static str| ControlError::Value {
            key,
            problem: "a tenant's key makes webhooks of that tenant alone".to_owned(),
        };
        if document.get("tenant").is_some_and(|given| given.as_str() != Some(tenant)) {
            return Err(of_operator("tenant"));
        }
        document.insert("tenant".to_owned(), (&**tenant).into());
        if let Some(Value::String(name)) = document.get_mut("name") {
            match tenant_of(name) {
                None => *name = format!("{tenant}{TENANT_MARK}{name}"),
                Some(named) if *named == **tenant => {}
                Some(_) => return Err(of_operator("name")),
            }
        }
        Ok(())
    }

    /// What is wrong with a declaration, without what it says to a tenant of what the operator has set in it.
    pub(super) fn told(&self, error: ControlError) -> ControlError {
        let ControlError::Declaration(Problems(mut problems)) = error else { return error };
        let is_ours = |problem: &Problem| {
            let key = problem.pointer.split('/').nth(1).unwrap_or_default();
            *self != Self::All && !key.is_empty() && !OF_TENANTS.contains(&key)
        };
        for problem in problems.iter_mut().filter(|problem| is_ours(problem)) {
            "what the operator has set here does not fit any more".clone_into(&mut problem.message);
            (problem.detail, problem.hint) = (None, None);
        }
        ControlError::Declaration(Problems(problems))
    }

    /// The keys that a tenant has no right to change, and has: of a document, against what is stored.
    pub(super) fn forbidden(&self, before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
        if *self == Self::All {
            return Vec::new();
        }
        let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
        let is_changed = |key: &&String| {
            let (before, after) = (before.get(*key), after.get(*key));
            before.filter(|value| !value.is_null()) != after.filter(|value| !value.is_null())
        };
        let is_ours = |key: &&String| *key != "tenant" && !OF_TENANTS.contains(&key.as_str());
        keys.filter(is_ours).filter(is_changed).cloned().collect()
    }
}

/// What is told of a webhook that is not there, or is not there for whoever asks.
fn unknown(name: &str) -> ControlError {
    ControlError::Unknown { what: "webhook", name: name.to_owned(), nearest: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn acme() -> Sight {
        Sight::Tenant("acme".into())
    }

    #[test]
    fn a_tenant_sees_the_webhooks_that_are_named_after_it_and_no_others() {
        for (name, seen) in
            [("acme~crm", true), ("crm", false), ("acme", false), ("globex~crm", false), ("acme2~crm", false)]
        {
            assert_eq!(acme().sees(name), seen, "{name}");
            assert!(Sight::All.sees(name));
            assert_eq!(acme().admit(About::Webhook(name)).is_ok(), seen, "{name}");
        }
        assert!(matches!(acme().admit(About::Operators), Err(ControlError::Operators)));
        assert!(acme().admit(About::Seen).is_ok() && Sight::All.admit(About::Operators).is_ok());
    }

    #[test]
    fn a_session_with_the_ledger_is_had_only_where_it_is_said_for_whom() {
        // Those of commands that only the operator types have their own.
        let may = ["desk.rs", "mod.rs", "check/mod.rs", "status.rs", "uninstall.rs"];
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/control"));
        let (mut open, mut files, mut found) = (vec![root.to_owned()], 0, Vec::new());
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let marks = [["ledger", ".session("].concat(), ["Pool", "::new("].concat()];
                if marks.iter().any(|mark| text.contains(mark)) && !may.contains(&name.as_str()) {
                    found.push(name);
                }
            }
        }
        assert!(files > 20 && found.is_empty(), "{found:?}");
    }

    #[test]
    fn what_a_tenant_makes_is_its_own() {
        let claimed = |document: &Value| {
            let mut document = map(document);
            acme().claim(&mut document).map(|()| Value::Object(document)).ok()
        };
        let own = Some(json!({"name": "acme~crm", "tenant": "acme"}));
        assert_eq!(claimed(&json!({"name": "crm"})), own);
        assert_eq!(claimed(&json!({"name": "acme~crm", "tenant": "acme"})), own);
        assert_eq!(claimed(&json!({"name": "globex~crm"})), None);
        assert_eq!(claimed(&json!({"name": "crm", "tenant": "globex"})), None);
        assert_eq!(claimed(&json!({"name": "crm", "tenant": null})), None);
    }

    #[test]
    fn a_tenant_is_not_told_what_the_operators_settings_have_against_them() {
        let problems = || {
            let problem = |key| Problem {
                detail: Some("The templates are geheim.".to_owned()),
                ..Problem::of_row("row", key, format!("{key} is wrong"))
            };
            ControlError::Declaration(Problems(["template", "url", "tls.ca"].map(problem).into()))
        };
        let told = acme().told(problems()).to_string();
        assert!(told.contains("url is wrong") && told.matches("geheim").count() == 1, "{told}");
        assert!(!told.contains("template is wrong") && !told.contains("tls.ca is wrong"), "{told}");
        assert_eq!(Sight::All.told(problems()).to_string(), problems().to_string());
    }

    #[test]
    fn what_lends_out_the_operators_means_stays_as_it_is() {
        let before = map(&json!({"name": "acme~a", "tls": {"ca": "x"}, "url": "u"}));
        let check = |after: &Value, expect: &[&str]| {
            assert_eq!(acme().forbidden(&before, &map(after)), expect, "{after}");
            assert!(Sight::All.forbidden(&before, &map(after)).is_empty());
        };
        check(&json!({"name": "acme~a", "tls": {"ca": "x"}, "url": "v", "tenant": "acme"}), &[]);
        check(&json!({"url": "u", "tls": {"insecure_skip_verify": true}}), &["tls"]);
        check(&json!({"url": "u", "template": "t"}), &["tls", "template"]);
        check(&json!({"tls": {"ca": "x"}, "proxy": "p", "concurrency": 1000}), &["proxy", "concurrency"]);
    }
}
