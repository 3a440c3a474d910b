//! A TCP proxy of our own, which can do to a connection what networks do.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::background;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Bytes pass.
    Well,
    /// Connections that stood when it began carry nothing any more and are never closed; new ones pass.
    HalfOpen,
    /// Everything is closed at once.
    Cut,
}

/// Passes connections on to an address.
pub struct Proxy {
    address: SocketAddr,
    target: Arc<watch::Sender<SocketAddr>>,
    network: Arc<watch::Sender<(u64, Network)>>,
}

impl Proxy {
    /// Listens on a free port and passes on to `target`, which need not be there yet.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let network = Arc::new(watch::Sender::new((0, Network::Well)));
        let news = Arc::clone(&network);
        let target = Arc::new(watch::Sender::new(target));
        let now = Arc::clone(&target);
        background(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *now.borrow();
                let Ok(server) = TcpStream::connect(target).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let born = news.borrow().0;
                background(pass(from_client, to_server, born, news.subscribe()));
                background(pass(from_server, to_client, born, news.subscribe()));
            }
        });
        Self { address, target, network }
    }

    /// A connection string with this proxy in the place of its host and port.
    pub fn in_front_of(&self, url: &str) -> String {
        let (head, tail) = url.rsplit_once('@').expect("a password");
        let (_, database) = tail.split_once('/').expect("a database");
        format!("{head}@{}/{database}", self.address)
    }

    /// Passes new connections on to another address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Changes how the network is, for the connections that stand now.
    pub fn turn(&self, network: Network) {
        self.network.send_modify(|(generation, now)| {
            *generation += 1;
            *now = network;
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    born: u64,
    mut news: watch::Receiver<(u64, Network)>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let (generation, network) = *news.borrow_and_update();
        if generation > born {
            match network {
                Network::Cut => return,
                // Both halves are kept, and nothing is read: the peers see an idle connection.
                Network::HalfOpen => std::future::pending().await,
                Network::Well => {}
            }
        }
        tokio::select! {
            biased;
            changed = news.changed() => if changed.is_err() { return },
            read = from.read(&mut bytes) => match read {
                Ok(count) if count > 0 => {
                    let passed = bytes.get(..count).unwrap_or_default();
                    if to.write_all(passed).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
