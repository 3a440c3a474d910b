//! `SIGHUP`: the file is read again.
//!
//! Webhooks, events, tables, templates and the webhooks' defaults take effect at once. What the process was built
//! with (database, ledger, server, security, memory) needs a restart; a change of it is said and not followed.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, Sources};

/// Reads the file again; one with problems is refused as a whole.
pub(super) fn reread(sources: &Sources, config: &watch::Sender<Arc<Config>>) {
    match crate::control::load_config(sources) {
        Ok(new) => {
            let before = config.borrow().clone();
            for section in needs_restart(&before, &new) {
                tracing::warn!(section, "this section has changed and takes effect at the next start");
            }
            tracing::info!(path = %new.path.display(), "the configuration was read again");
            config.send_replace(Arc::new(new));
        }
        Err(problems) => {
            tracing::error!(%problems, "the configuration has problems; the one before stays in force");
        }
    }
}

fn needs_restart(before: &Config, new: &Config) -> Vec<&'static str> {
    use secrecy::ExposeSecret as _;
    let secret = |value: &Option<secrecy::SecretString>| value.as_ref().map(|s| s.expose_secret().to_owned());
    let (a, b) = (&before.database, &new.database);
    let database = a.url.expose_secret() != b.url.expose_secret()
        || (&a.slot, &a.publication, &a.schema) != (&b.slot, &b.publication, &b.schema)
        || (a.manage_publication, a.on_slot_lost) != (b.manage_publication, b.on_slot_lost);
    let (a, b) = (&before.ledger, &new.ledger);
    let ledger = secret(&a.url) != secret(&b.url)
        || (a.retention, a.failed_retention) != (b.retention, b.failed_retention)
        || (a.store_bodies, a.capture_response) != (b.store_bodies, b.capture_response);
    let server = before.server.listen != new.server.listen;
    let (a, b) = (&before.security, &new.security);
    let security = a.allow_http != b.allow_http || a.allow_networks != b.allow_networks;
    let (a, b) = (&before.delivery, &new.delivery);
    let delivery = (a.handover_after, a.shutdown_grace) != (b.handover_after, b.shutdown_grace)
        || (a.memory, a.max_body) != (b.memory, b.max_body);
    let all = [
        (database, "database"),
        (ledger, "ledger"),
        (server, "server"),
        (security, "security"),
        (delivery, "delivery (handover_after, shutdown_grace, memory, max_body)"),
    ];
    all.into_iter().filter(|(changed, _)| *changed).map(|(_, name)| name).collect()
}
