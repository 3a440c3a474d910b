//! Pools of sessions, for the parts that work in parallel.
//!
//! An error of the pool's backend is read with [`super::ConnectError::startup`].

use deadpool_postgres::{Connect, Manager, ManagerConfig, RecyclingMethod, Runtime};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::dial::patience;
use super::session::{connect, drive, spawn};

/// A pool of connections with a cache of prepared statements each.
pub type Pool = deadpool_postgres::Pool;

/// Makes a pool of at most `size` connections, opened when needed with the settings of [`super::PINS`]; `name` is
/// their `application_name`. Waiting for a free one and opening one are bounded by the connection string's
/// `connect_timeout`.
///
/// # Panics
///
/// Never: the one condition of `deadpool`'s builder, a runtime for its timeouts, is met here.
pub fn pool(server: &Server, name: &str, size: usize) -> Pool {
    let opener = Opener { server: server.clone(), name: name.to_owned() };
    let manager = Manager::from_connect(
        server.config.clone(),
        opener,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .create_timeout(Some(patience(server) * 2))
        .build()
        .expect("a pool with a runtime can have timeouts")
}

struct Opener {
    server: Server,
    name: String,
}

impl Connect for Opener {
    fn connect(&self, _config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        async {
            let (client, connection) = connect(&self.server, &self.name).await?;
            Ok((client, spawn(drive(connection, CancellationToken::new(), None))))
        }
        .boxed()
    }
}
