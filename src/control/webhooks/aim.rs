//! Where a declaration aims: whether the names in its URLs lead to addresses that it may target.
//!
//! What is dialled is judged at each attempt, whatever was seen before. This look is a courtesy to who declares: a name that
//! leads nowhere but to forbidden addresses is told at once, and not by the first delivery. So a name that cannot be looked
//! up now is let pass, and so is one whose lookup takes long. A tenant gets no such courtesy: an answer by name would tell
//! it which names there are inside. Rows written by SQL are judged at each attempt alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;
use url::{Host, Url};

use super::super::{Actor, ControlError, Sight};
use crate::catalog::{policy, tenants_policy};
use crate::config::Config;
use crate::domain::limits;
use crate::transport::{Lookups, Policy};

/// How long a name may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How long it is known: who declares ten thousand webhooks at one host has it looked up now and then.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// What names led to lately.
#[derive(Debug)]
pub struct Aims {
    lookups: Lookups,
    known: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

/// A declared URL that leads nowhere but to forbidden addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Astray {
    /// The key of the declaration.
    pub key: &'static str,
    /// The URL's text.
    pub url: String,
    /// One of the addresses.
    pub address: IpAddr,
    /// What is told.
    pub problem: String,
}

impl From<Astray> for ControlError {
    fn from(astray: Astray) -> Self {
        Self::Value { key: astray.key, problem: astray.problem }
    }
}

impl Aims {
    /// Those that these lookups tell.
    pub fn by(lookups: Lookups) -> Self {
        Self { lookups, known: Mutex::default() }
    }

    /// The first URL of a declaration that leads astray, as far as that can be told now.
    pub(super) async fn astray(
        &self,
        config: &Config,
        actor: &Actor,
        document: &Map<String, Value>,
    ) -> Option<Astray> {
        if actor.sight != Sight::All {
            return None;
        }
        let is_tenants = document.get("tenant").is_some_and(|tenant| !tenant.is_null());
        let policy = if is_tenants { tenants_policy(config) } else { policy(config) };
        let token_url = document.get("auth").and_then(|auth| auth.get("token_url"));
        for (key, value) in [("url", document.get("url")), ("auth.token_url", token_url)] {
            let Some(text) = value.and_then(Value::as_str) else { continue };
            let Ok(url) = Url::parse(text) else { continue };
            let Some(Host::Domain(name)) = url.host() else { continue };
            if let Some((address, problem)) = forbidden(&policy, name, &self.addresses(name).await) {
                return Some(Astray { key, url: text.to_owned(), address, problem });
            }
        }
        None
    }

    /// The addresses of a name; none where they do not come in time.
    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let now = Instant::now();
        if let Some((at, addresses)) = self.known().get(name)
            && now - *at < KNOWN_FOR
        {
            return addresses.clone();
        }
        let addresses = self.lookups.look(name, WITHIN).await;
        let mut known = self.known();
        if known.len() >= limits::DNS_SILENT_KNOWN {
            known.clear();
        }
        known.insert(name.to_owned(), (Instant::now(), addresses.clone()));
        addresses
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Vec<IpAddr>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a declaration names the same URL.
pub(super) fn names(document: &Map<String, Value>, astray: &Astray) -> bool {
    let value = match astray.key {
        "auth.token_url" => document.get("auth").and_then(|auth| auth.get("token_url")),
        key => document.get(key),
    };
    value.and_then(Value::as_str) == Some(&astray.url)
}

/// Whether there are addresses and none of them may be targeted; one of them, and what is told.
fn forbidden(policy: &Policy, name: &str, addresses: &[IpAddr]) -> Option<(IpAddr, String)> {
    let mut first = None;
    for address in addresses {
        let told = policy.refusal_of_name(name, *address)?;
        first = first.or(Some((*address, told)));
    }
    first
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::config::{Checks, Sources, StoredTemplates};

    fn config() -> Config {
        let toml = "[database]\nurl = \"postgres://localhost/app\"\n[security]\nallow_networks = [\"10.9.0.0/16\"]\n";
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("walhook.toml");
        std::fs::write(&path, toml).expect("a file");
        let sources = Sources { path: Some(path), environment: Vec::new() };
        let checks = Checks {
            condition: &|_| Ok(()),
            template: &|_| Ok(()),
            connection: &|_| Ok(()),
            reach: &|_| Ok(()),
            stored: StoredTemplates::NONE,
        };
        crate::config::load(&sources, &checks).expect("a configuration")
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_else_is_refused_and_what_is_not_known_passes() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let aims = Aims::by(Lookups::by(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            let at = |last| ([10, 9, 0, last], 0).into();
            match name {
                "inside.test" => Ok(vec![([10, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into()]),
                "both.test" => Ok(vec![([10, 0, 0, 1], 0).into(), ([93, 184, 215, 14], 0).into()]),
                "allowed.test" => Ok(vec![at(1)]),
                "empty.test" => Ok(Vec::new()),
                _ => Err(std::io::Error::other("no such host")),
            }
        }));
        let (config, operator) = (config(), Actor::command_line());
        let told = async |document: Value, actor: &Actor| {
            aims.astray(&config, actor, document.as_object().unwrap()).await
        };
        let inside = json!({ "url": "https://inside.test/in" });
        let astray = told(inside.clone(), &operator).await.expect("a refusal");
        assert_eq!((astray.key, astray.address), ("url", [10, 0, 0, 1].into()));
        assert_eq!(
            astray.problem,
            "inside.test is 10.0.0.1, a special address (private): not allowed for this webhook unless \
             security.allow_networks has it"
        );
        for passing in ["both.test", "allowed.test", "empty.test", "nowhere.test"] {
            assert_eq!(
                told(json!({ "url": format!("https://{passing}/") }), &operator).await,
                None,
                "{passing}"
            );
        }
        let tenants = json!({ "url": "https://allowed.test/", "tenant": "acme" });
        let astray = told(tenants, &operator).await.expect("a refusal");
        assert!(astray.problem.ends_with("security.tenants.allow_networks has it"), "{}", astray.problem);
        let tokens = json!({ "url": "https://both.test/", "auth": { "token_url": "https://inside.test/t" } });
        assert_eq!(told(tokens, &operator).await.map(|astray| astray.key), Some("auth.token_url"));
        let acme = Actor { sight: Sight::Tenant("acme".into()), ..operator.clone() };
        assert_eq!(told(inside.clone(), &acme).await, None, "a tenant learns nothing by names");
        let before = asked.load(Ordering::SeqCst);
        for _ in 0..10_000 {
            assert!(told(inside.clone(), &operator).await.is_some());
        }
        assert_eq!(asked.load(Ordering::SeqCst), before, "a name is looked up now and then");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_whose_server_is_silent_passes_after_two_seconds_and_then_at_once() {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let aims = Aims::by(Lookups::by(move |_| {
            wait.lock().unwrap().recv().unwrap_or(());
            Ok(vec![([10, 0, 0, 1], 0).into()])
        }));
        let began = Instant::now();
        let (addresses, ()) = tokio::join!(aims.addresses("silent.test"), async {
            tokio::task::yield_now().await;
            tokio::time::advance(WITHIN).await;
        });
        assert!(addresses.is_empty());
        assert!(aims.addresses("silent.test").await.is_empty());
        assert_eq!(began.elapsed(), WITHIN);
        tokio::time::advance(KNOWN_FOR).await;
        assert!(aims.addresses("silent.test").await.is_empty());
        assert_eq!(began.elapsed(), WITHIN + KNOWN_FOR, "it is still being looked up: nobody waits again");
        drop(go_on);
    }
}
