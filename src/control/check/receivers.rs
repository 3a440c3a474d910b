//! Whether receivers can be reached.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{CheckReport, Finding, Severity};
use crate::catalog::{self, Snapshot};
use crate::clock::Clock;
use crate::config::Config;
use crate::control;
use crate::transport;

/// How long a receiver may take to be reached.
const PROBE: Duration = Duration::from_secs(5);
/// How long before the end of a client certificate it is told.
const EXPIRY_DAYS: i64 = 30;
/// Receivers that are looked at at once.
const PROBES: usize = 16;

/// Whether each webhook's receiver can be reached; nothing is sent.
pub(super) async fn receivers(config: &Config, snapshot: &Snapshot, clock: &Clock, report: &mut CheckReport) {
    let transport = match control::transport(config, clock) {
        Ok(transport) => transport,
        Err(error) => return report.error("receivers", (error.to_string(), error.detail(), error.hint())),
    };
    for webhook in catalog::unverified(snapshot) {
        let message = format!("{}: tls.insecure_skip_verify is set", webhook.name);
        let detail =
            "The receiver's certificate is not checked: whoever stands between can read and change requests.";
        let hint =
            "Set tls.ca to the authority that issued the certificate, and leave insecure_skip_verify out.";
        let finding = Finding::new(Severity::Warning, "receivers", message);
        report.findings.push(finding.detail(detail).hint(hint));
    }
    expiries(snapshot, clock, report);
    let probes = snapshot.webhooks().iter().map(|compiled| {
        let (webhook, transport) = (&compiled.webhook, &transport);
        async move {
            let place = format!(
                "{}://{}:{}",
                webhook.url.scheme(),
                webhook.url.host_str().unwrap_or_default(),
                webhook.url.port_or_known_default().unwrap_or_default()
            );
            let reached = {
                let (route, patience) = (compiled.route.as_ref(), webhook.timeout.min(PROBE));
                transport.probe(&webhook.url, webhook.source, route, patience).await
            };
            match reached {
                Ok(_) => {
                    Finding::new(Severity::Ok, "receivers", format!("{}: {place} answers", webhook.name))
                }
                Err(outcome) => {
                    let message = format!("{}: {place} cannot be reached", webhook.name);
                    Finding::new(Severity::Warning, "receivers", message).detail(outcome.describe()).hint(
                        format!("Check webhooks.{}.url; what it is owed meanwhile waits.", webhook.name),
                    )
                }
            }
        }
    });
    let found: Vec<Finding> = stream::iter(probes).buffered(PROBES).collect().await;
    report.findings.extend(found);
}

/// Tells of client certificates that end soon.
fn expiries(snapshot: &Snapshot, clock: &Clock, report: &mut CheckReport) {
    let now = clock.now();
    for compiled in snapshot.webhooks() {
        let webhook = &compiled.webhook;
        let Some(until) = webhook.reach.connection.identity.as_ref().and_then(transport::expiry) else {
            continue;
        };
        let days = until.duration_since(now).as_hours() / 24;
        if days < EXPIRY_DAYS {
            let message = format!("{}: its client certificate expires at {until}", webhook.name);
            let hint = "Renew tls.certificate and tls.key; SIGHUP reads their files again.";
            report.findings.push(Finding::new(Severity::Warning, "receivers", message).hint(hint));
        }
    }
}
