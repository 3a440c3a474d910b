//! Whether a receiver can be reached at all, without sending it anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::door::Door;
use super::progress::Progress;
use super::route::Way;
use super::{Route, Transport, failure, unusable};
use crate::domain::{Outcome, TimeoutStage, UnreachableBy, WebhookSource};

impl Transport {
    /// Resolves, connects and, for https, shakes hands, by the rules of [`Transport::send`]; then hangs up. Answers
    /// with the address that took the connection (`None` behind a proxy, which alone knows it), or with the outcome an
    /// attempt would have had. An access token is asked for where the webhook needs one.
    pub async fn probe(
        &self,
        url: &Url,
        source: WebhookSource,
        route: Option<&Route>,
        timeout: Duration,
    ) -> Result<Option<SocketAddr>, Outcome> {
        if let Some(refused) = self.refusal(url, source) {
            return Err(refused);
        }
        let way = route.map(|route| route.way(&self.shared.routes, source)).transpose();
        let way = way.map_err(|error| unusable(&error))?;
        let door = way.as_ref().map_or_else(|| self.door(source), |way| &way.door);
        let reached = tokio::time::timeout(timeout, reach(door, url)).await;
        let reached = reached.unwrap_or(Err(Outcome::TimedOut { stage: TimeoutStage::Connect }))?;
        if let Some(Way { tokens: Some(tokens), .. }) = &way {
            if let Some(refused) = self.refusal(tokens.url(), tokens.source) {
                return Err(refused);
            }
            tokens.get(None).await?;
        }
        Ok(reached)
    }
}

async fn reach(door: &Door, url: &Url) -> Result<Option<SocketAddr>, Outcome> {
    if let Some(proxy) = door.proxy() {
        let tunnel = proxy.connect(&url.as_str().parse().unwrap_or_default()).await;
        return match tunnel {
            Ok(_) => Ok(None),
            Err(error) => Err(match error.downcast_ref::<super::resolve::ResolveError>() {
                Some(unresolved) => failure::unresolved(unresolved),
                None => unreachable(&*error, url),
            }),
        };
    }
    let port = url.port_or_known_default().unwrap_or(0);
    let mut addresses = match url.host() {
        Some(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Domain(name)) => {
            let found = door.resolver.lookup(name).await;
            found.map_err(|error| failure::unresolved(&error))?
        }
        None => Vec::new(),
    };
    for address in &mut addresses {
        address.set_port(port);
    }
    let connected = TcpStream::connect(addresses.as_slice()).await.map_err(|e| unreachable(&e, url))?;
    let peer = connected.peer_addr().map_err(|e| unreachable(&e, url))?;
    if url.scheme() == "https" {
        shake_hands(door, connected, url).await.map_err(|e| unreachable(&e, url))?;
    }
    Ok(Some(peer))
}

async fn shake_hands(door: &Door, connected: TcpStream, url: &Url) -> io::Result<()> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(&door.tls)).connect(name, connected).await.map(drop)
}

fn unreachable(error: &(dyn std::error::Error + 'static), url: &Url) -> Outcome {
    let (by, reason): (UnreachableBy, String) =
        failure::told(error, true, url, &failure::place(url, &Progress::default()));
    Outcome::Unreachable { by, reason }
}
