//! From a configuration to what it names.

use secrecy::ExposeSecret as _;

use super::ControlError;
use crate::catalog;
use crate::catalog::{policy, tenants_policy};
use crate::chores::upkeep::Upkeep;
use crate::clock::Clock;
use crate::config::{Checks, Complaint, Config, Problems, Sources, StoredTemplates};
use crate::domain::limits;
use crate::ledger::Ledger;
use crate::postgres::Server;
use crate::source::{Manage, PublicationNames};
use crate::transport::{Lookups, Transport, TransportOptions};

/// Loads the configuration, with everything that other modules know about its texts.
pub fn load_config(sources: &Sources) -> Result<Config, Problems> {
    let connection = |text: &str| {
        let parsed = Server::parse(text).map(drop);
        parsed.map_err(|error| Complaint { message: error.to_string(), line: None, column: None })
    };
    let checks = Checks {
        condition: &catalog::conditions_complaint,
        template: &catalog::template_complaint,
        connection: &connection,
        reach: &catalog::reach_complaint,
        stored: StoredTemplates::NONE,
    };
    crate::config::load(sources, &checks)
}

/// The connections a configuration names.
#[derive(Debug, Clone)]
pub struct Places {
    /// The application's database.
    pub database: Server,
    /// Where the ledger is.
    pub ledger: Ledger,
}

impl Places {
    /// Reads them.
    pub fn of(config: &Config) -> Result<Self, ControlError> {
        let database = Server::parse(config.database.url.expose_secret())?;
        let home = match &config.ledger.url {
            Some(url) => Server::parse(url.expose_secret())?,
            None => database.clone(),
        };
        Ok(Self { database, ledger: Ledger::new(home, &config.database.schema) })
    }

    /// What looks after the publications.
    pub fn upkeep(&self, config: &Config) -> Upkeep {
        Upkeep::new(
            self.database.clone(),
            PublicationNames::of(&config.database.publication),
            manage(config),
            config.database.schema.clone(),
        )
    }
}

/// Whether the publications are ours to change.
pub fn manage(config: &Config) -> Manage {
    if config.database.manage_publication { Manage::Change } else { Manage::Look }
}

/// The client for deliveries, as a configuration wants it.
pub fn transport(config: &Config, clock: &Clock) -> Result<Transport, ControlError> {
    let options = TransportOptions {
        policy: policy(config),
        tenants: tenants_policy(config),
        capture_bytes: config.ledger.capture_response,
        clock: clock.clone(),
        extra_roots: Vec::new(),
        lookups: Lookups::of_the_system(),
        connect_within: limits::CONNECT_TIMEOUT,
    };
    Ok(Transport::new(options)?)
}
