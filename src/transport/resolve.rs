//! Names to addresses, with the policy applied to what comes out.
//!
//! reqwest dials exactly the addresses a resolver hands it, so filtering here is checking the address that is
//! connected to: a name that resolves to something else a moment later changes nothing. Addresses written into the
//! URL never pass through here; [`super::Transport::send`] checks those.
//!
//! A lookup blocks a thread for as long as the system's resolver likes, even when nobody waits for it any more. So
//! the permit that bounds how many run travels into that thread.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::Policy;
use super::progress;
use crate::domain::limits;

/// Lookups that run at once, over all webhooks.
const LOOKUPS: usize = 128;

/// Why a name gave no address to dial.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The name is not known.
    #[error("no such host {host}")]
    NotFound {
        host: String,
        #[source]
        source: std::io::Error,
    },
    /// The name is known and has no address.
    #[error("the host {host} has no address")]
    Empty { host: String },
    /// The resolver did not answer.
    #[error("the name {host} did not resolve within {} s", limits::DNS_TIMEOUT.as_secs())]
    TimedOut { host: String },
    /// All its addresses are special ones.
    #[error("{}", refusal(host, *address, class, *to_tenant))]
    Forbidden { host: String, address: IpAddr, class: &'static str, to_tenant: bool },
}

/// What is read when an address is not dialled. A tenant is not told which address a name of ours has.
pub(super) fn refusal(host: &str, address: IpAddr, class: &str, to_tenant: bool) -> String {
    if to_tenant {
        return format!("{host} is not on the public internet: not allowed for this webhook");
    }
    let named = address.to_string();
    let what = if host == named { format!("{named} is") } else { format!("{host} is {named},") };
    format!(
        "{what} a special address ({class}): not allowed for this webhook unless security.allow_networks has it"
    )
}

/// The resolver of one client. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    /// `None`: every address may be dialled.
    policy: Option<Arc<Policy>>,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(policy: Option<Arc<Policy>>) -> Self {
        Self { policy, lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// Whether a policy is applied.
    pub(super) fn is_guarded(&self) -> bool {
        self.policy.is_some()
    }

    /// The addresses of `host` that may be dialled, at least one; their port is 0.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = tokio::time::timeout(limits::DNS_TIMEOUT, self.ask(host.to_owned())).await;
        let all = found
            .map_err(|_| ResolveError::TimedOut { host: host.to_owned() })?
            .map_err(|source| ResolveError::NotFound { host: host.to_owned(), source })?;
        let (mut kept, mut forbidden) = (Vec::with_capacity(all.len()), None);
        for address in all {
            match self.policy.as_ref().and_then(|policy| policy.forbids(address.ip())) {
                None => kept.push(address),
                Some(class) => forbidden = forbidden.or(Some((address.ip(), class))),
            }
        }
        match (kept.is_empty(), forbidden) {
            (false, _) => Ok(kept),
            (true, Some((address, class))) => {
                let to_tenant = self.policy.as_ref().is_some_and(|policy| policy.for_tenants);
                Err(ResolveError::Forbidden { host: host.to_owned(), address, class, to_tenant })
            }
            (true, None) => Err(ResolveError::Empty { host: host.to_owned() }),
        }
    }

    async fn ask(&self, host: String) -> std::io::Result<Vec<SocketAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(std::io::Error::other)?;
        let looked_up = tokio::task::spawn_blocking(move || {
            let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect);
            drop(permit);
            found
        });
        looked_up.await.map_err(std::io::Error::other)?
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            progress::dialling(&addresses);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
