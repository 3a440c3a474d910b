//! Whether a receiver can be reached at all, without sending it anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::progress::Progress;
use super::{Transport, failure};
use crate::domain::{Outcome, TimeoutStage, UnreachableBy, WebhookSource};

impl Transport {
    /// Resolves, connects and, for https, shakes hands, by the rules of [`Transport::send`]; then hangs up. Answers
    /// with the address that took the connection, or with the outcome an attempt would have had.
    pub async fn probe(
        &self,
        url: &Url,
        source: WebhookSource,
        timeout: Duration,
    ) -> Result<SocketAddr, Outcome> {
        if let Some(refused) = self.refusal(url, source) {
            return Err(refused);
        }
        let reached = tokio::time::timeout(timeout, self.reach(url, source)).await;
        reached.unwrap_or(Err(Outcome::TimedOut { stage: TimeoutStage::Connect }))
    }

    async fn reach(&self, url: &Url, source: WebhookSource) -> Result<SocketAddr, Outcome> {
        let port = url.port_or_known_default().unwrap_or(0);
        let mut addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
            Some(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
            Some(Host::Domain(name)) => {
                let found = self.door(source).resolver.lookup(name).await;
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
            self.shake_hands(connected, url).await.map_err(|e| unreachable(&e, url))?;
        }
        Ok(peer)
    }

    async fn shake_hands(&self, connected: TcpStream, url: &Url) -> io::Result<()> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.shared.tls)).connect(name, connected).await.map(drop)
    }
}

fn unreachable(error: &io::Error, url: &Url) -> Outcome {
    let (by, reason): (UnreachableBy, String) =
        failure::told(error, true, url, &failure::place(url, &Progress::default()));
    Outcome::Unreachable { by, reason }
}
