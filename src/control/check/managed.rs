//! Services that run Postgres for their customers: there `ALTER SYSTEM` is closed, and rights are given by other ways.
//! Each is recognised by the role that its administrators have.

use crate::postgres::Session;
use crate::source::{SetupError, roles_among};

/// A service, and its own way to what walhook needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// The role that only its servers have.
    marker: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How `wal_level` becomes `logical`.
    wal_level: &'static str,
    /// How a role may replicate; `{role}` is the role, quoted.
    replication: &'static str,
    /// How other settings are changed.
    pub settings: &'static str,
    /// What to do where the address leads to a pooler, through which nobody replicates.
    pub direct: Option<&'static str>,
}

const SERVICES: [Service; 5] = [
    Service {
        marker: "rds_superuser",
        name: "Amazon RDS or Aurora",
        wal_level: "Set rds.logical_replication = 1 in a parameter group of your own (of the cluster, with Aurora), \
                    attach it, and reboot the instance.",
        replication: "As the master user: GRANT rds_replication TO {role};",
        settings: "in the parameter group",
        direct: Some("Connect to the instance or cluster endpoint, not to an RDS Proxy."),
    },
    Service {
        marker: "cloudsqlsuperuser",
        name: "Google Cloud SQL",
        wal_level: "Set the database flag cloudsql.logical_decoding = on; the instance restarts.",
        replication: "As a member of cloudsqlsuperuser: ALTER USER {role} WITH REPLICATION;",
        settings: "as a database flag",
        direct: None,
    },
    Service {
        marker: "azure_pg_admin",
        name: "Azure Database for PostgreSQL",
        wal_level: "Set the server parameter wal_level to LOGICAL, and restart the server.",
        replication: "As the server's administrator: ALTER ROLE {role} WITH REPLICATION;",
        settings: "as a server parameter",
        direct: Some("Connect to port 5432, not to the built-in pooler's 6432."),
    },
    Service {
        marker: "supabase_admin",
        name: "Supabase",
        wal_level: "Projects have wal_level = logical from the beginning; where one has not, only Supabase's support can \
                    set it.",
        replication: "As postgres, in the SQL editor: ALTER ROLE {role} WITH REPLICATION;",
        settings: "with `supabase postgres-config update --config`",
        direct: Some("Use the direct connection (db.PROJECT.supabase.co, port 5432), not the pooler."),
    },
    Service {
        marker: "neon_superuser",
        name: "Neon",
        wal_level: "Switch on Logical Replication in the settings of the project; it cannot be switched off again, and \
                    its computes restart.",
        replication: "Use a role made in the console, which may replicate, or as one of those: ALTER ROLE {role} WITH \
                      REPLICATION;",
        settings: "in the settings of the project, as far as it lets you",
        direct: Some("Use the direct connection string, whose host has no \"-pooler\"."),
    },
];

/// The service that runs this server, if it says so.
pub(super) async fn service(session: &Session) -> Result<Option<&'static Service>, SetupError> {
    let markers: Vec<&str> = SERVICES.iter().map(|service| service.marker).collect();
    let found = roles_among(session, &markers).await?;
    Ok(SERVICES.iter().find(|service| found.iter().any(|role| role == service.marker)))
}

impl Service {
    /// The service's own remedy for a problem; `None` where the usual one is right.
    pub fn remedy(&self, problem: &SetupError) -> Option<String> {
        match problem {
            SetupError::Setting { setting: "wal_level", .. } => Some(self.wal_level.to_owned()),
            SetupError::Setting { setting, .. } => Some(format!("Raise {setting} {}.", self.settings)),
            SetupError::Privilege { role } => {
                let role = postgres_protocol::escape::escape_identifier(role);
                Some(self.replication.replace("{role}", &role))
            }
            _ => None,
        }
    }
}
