//! Names to addresses, with the policy applied to what comes out.
//!
//! reqwest dials exactly the addresses a resolver hands it, so filtering here is checking the address that is
//! connected to: a name that resolves to something else a moment later changes nothing. Addresses written into the
//! URL never pass through here; [`super::Transport::send`] checks those.
//!
//! [`lookups`](super::lookups) asks the system, within bounds that all clients share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Policy;
use super::lookups::Lookups;
use super::progress;
use crate::domain::limits;

/// Why a name gave no address to dial.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The name is not known.
    #[error("no such host {host}")]
    NotFound {
        host: String,
        #[source]
        source: Arc<std::io::Error>,
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
    /// To a tenant: whether the name is not known, or has addresses that are not for it, is not told.
    #[error("{}", untold(host))]
    Untold { host: String },
}

/// What a tenant reads of a name that gave no address to dial, and of an address that is not for it.
fn untold(host: &str) -> String {
    format!(
        "{host} is not on the public internet, as seen from here: not allowed for this webhook unless \
         security.tenants.allow_networks has it"
    )
}

/// What is read when an address is not dialled. A tenant is not told which address a name of ours has.
pub(super) fn refusal(host: &str, address: IpAddr, class: &str, to_tenant: bool) -> String {
    if to_tenant {
        return untold(host);
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
    lookups: Lookups,
}

impl Resolver {
    pub(super) fn new(policy: Option<Arc<Policy>>, lookups: Lookups) -> Self {
        Self { policy, lookups }
    }

    /// Whether a policy is applied.
    pub(super) fn is_guarded(&self) -> bool {
        self.policy.is_some()
    }

    /// Whether who reads of it must not learn what names resolve to.
    pub(super) fn is_for_tenants(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.for_tenants)
    }

    /// The addresses of `host` that may be dialled, at least one; their port is 0.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let to_tenant = self.is_for_tenants();
        let untold = |error| if to_tenant { ResolveError::Untold { host: host.to_owned() } } else { error };
        let found = self.lookups.addresses(host, limits::DNS_TIMEOUT).await;
        let all = found
            .ok_or_else(|| untold(ResolveError::TimedOut { host: host.to_owned() }))?
            .map_err(|source| untold(ResolveError::NotFound { host: host.to_owned(), source }))?;
        let (mut kept, mut forbidden) = (Vec::with_capacity(all.len()), None);
        for address in all.iter() {
            match self.policy.as_ref().and_then(|policy| policy.forbids(address.ip())) {
                None => kept.push(*address),
                Some(class) => forbidden = forbidden.or(Some((address.ip(), class))),
            }
        }
        match (kept.is_empty(), forbidden) {
            (false, _) => Ok(kept),
            (true, Some((address, class))) => {
                Err(ResolveError::Forbidden { host: host.to_owned(), address, class, to_tenant })
            }
            (true, None) => Err(untold(ResolveError::Empty { host: host.to_owned() })),
        }
    }

    /// Notes for the attempt's texts what is about to be dialled, where those may tell it.
    pub(super) fn note_dialling(&self, addresses: &[SocketAddr]) {
        if !self.is_for_tenants() {
            progress::dialling(addresses);
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            resolver.note_dialling(&addresses);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
