//! From declarations to a snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::load::with_texts_apart;
use super::sealed::opened;
use super::{Compiled, Invalid, Rows, Shelf, Snapshot};
use crate::clock::Clock;
use crate::config::{
    Allowed, Checks, Complaint, Config, Part, Problem, Problems, Security, StoredTemplates, Strangers,
    row_described, webhook_from_row,
};
use crate::domain::{Auth, BodyShape, Verification, Webhook, WebhookSource, limits};
use crate::matcher::{Condition, Matcher};
use crate::render::{self, Templates};
use crate::sign::{self, JwtSigner, Signer};
use crate::transport::{self, Policy, Route};

/// Compiles snapshots; remembers the rows it has checked and what came of them, so that one change among many costs one check
/// and one signer. One configuration has one compiler: what a row comes to depends on it.
#[derive(Default)]
pub struct Compiler {
    file: Option<Vec<Arc<Webhook>>>,
    shelf: Arc<Shelf>,
    checked: HashMap<String, (Arc<Map<String, Value>>, Checked)>,
    compiled: Known,
}

/// What is compiled, by name.
type Known = HashMap<Arc<str>, Arc<Compiled>>;

/// A row's webhook, or every problem of the row.
type Checked = Result<Arc<Webhook>, String>;

/// Whether a text is a condition, in the configuration's terms.
pub fn conditions_complaint(source: &str) -> Result<(), Complaint> {
    Condition::compile(source).map(drop).map_err(|error| Complaint {
        message: error.message.clone(),
        line: error.position.map(|(line, _)| line),
        column: error.position.map(|(_, column)| column),
    })
}

/// Whether a text is a template, in the configuration's terms.
pub fn template_complaint(source: &str) -> Result<(), Complaint> {
    render::check_template(source).map_err(|error| Complaint {
        message: error.message.clone(),
        line: error.position.map(|(line, _)| line),
        column: error.position.map(|(_, column)| column),
    })
}

/// Whether keys and certificates are what they should be, in the configuration's terms.
pub fn reach_complaint(part: Part<'_>) -> Result<(), Complaint> {
    let found = match part {
        Part::Secrets(secrets, scheme) => sign::check(secrets, scheme).map_err(|error| error.to_string()),
        Part::Jwt(jwt) => JwtSigner::new(jwt).map(drop).map_err(|error| error.to_string()),
        Part::Authorities(pem) => transport::check_authorities(pem, Clock::system().now()),
        Part::Identity(identity) => transport::check_identity(identity, Clock::system().now()),
    };
    found.map_err(|message| Complaint { message, line: None, column: None })
}

/// The webhooks whose receivers' certificates are not checked.
pub fn unverified(snapshot: &Snapshot) -> impl Iterator<Item = &Webhook> {
    let all = snapshot.webhooks().iter().map(|compiled| &*compiled.webhook);
    all.filter(|webhook| webhook.reach.connection.verification == Verification::Skipped)
}

/// Compiles what the file alone declares.
pub fn compile_file(config: &Config) -> Result<Snapshot, String> {
    compile_with(config, &Rows::default())
}

/// Compiles what file and database declare.
pub fn compile_with(config: &Config, rows: &Rows) -> Result<Snapshot, String> {
    Compiler::default().compile(config, rows)
}

impl Compiler {
    /// Compiles file and rows. The file's own faults are an error; a row's set that row aside.
    pub fn compile(&mut self, config: &Config, rows: &Rows) -> Result<Snapshot, String> {
        let file = self.file.get_or_insert_with(|| config.webhooks.iter().cloned().map(Arc::new).collect());
        let mut webhooks = file.clone();
        let templates = Arc::new(Shelf::of(config, &rows.templates, &self.shelf));
        if !templates.numbers().eq(self.shelf.numbers()) {
            // What a template means may be another text now, or none.
            self.checked.retain(|_, (row, _)| !row.contains_key("template"));
        }
        let mut invalid = Vec::new();
        let mut checked = HashMap::with_capacity(rows.webhooks.len());
        for row in &rows.webhooks {
            let name = row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let known = self.checked.remove(&name).filter(|(before, _)| before == row);
            let (row, result) =
                known.unwrap_or_else(|| (Arc::clone(row), check(row, config, templates.named())));
            match &result {
                _ if webhooks.len() >= limits::WEBHOOKS => {
                    let reason = format!("there are more than {} webhooks", limits::WEBHOOKS);
                    invalid.push(Invalid { webhook: name.clone(), reason });
                }
                Ok(webhook) if config.webhooks.iter().any(|ours| ours.name == webhook.name) => {
                    let reason = format!("{} declares a webhook of this name", config.path.display());
                    invalid.push(Invalid { webhook: name.clone(), reason });
                }
                Ok(webhook) => webhooks.push(Arc::clone(webhook)),
                Err(reason) => invalid.push(Invalid { webhook: name.clone(), reason: reason.clone() }),
            }
            checked.insert(name, (row, result));
        }
        self.checked = checked;
        self.shelf = Arc::clone(&templates);
        let known = std::mem::take(&mut self.compiled);
        let snapshot = assemble((config, templates), webhooks, invalid, &known)?;
        let known = |compiled: &Arc<Compiled>| (Arc::clone(&compiled.webhook.name), Arc::clone(compiled));
        self.compiled = snapshot.webhooks.iter().map(known).collect();
        Ok(snapshot)
    }
}

/// A row as a webhook, with every problem that it has: what the file's readers say, and what `[security]` does.
pub fn check_row(
    row: &Map<String, Value>,
    (config, stored): (&Config, &StoredTemplates),
    strangers: Strangers,
) -> Result<Webhook, Problems> {
    let checks = Checks {
        condition: &conditions_complaint,
        template: &template_complaint,
        connection: &|_| Ok(()),
        reach: &reach_complaint,
        stored,
    };
    let row = with_texts_apart(opened(row, config)?);
    let webhook = webhook_from_row(row, config, &checks, strangers)?;
    let policy = match webhook.source {
        WebhookSource::Tenant => tenants_policy(config),
        WebhookSource::Toml | WebhookSource::Database => policy(config),
    };
    let token_url = match &webhook.reach.auth {
        Some(Auth::OAuth2(oauth2)) => Some(("auth.token_url", &oauth2.token_url)),
        _ => None,
    };
    let urls = [Some(("url", &webhook.url)), token_url].into_iter().flatten();
    let refusals = urls.filter_map(|(key, url)| policy.refusal(url).map(|(_, reason)| (key, reason)));
    let row = row_described(&webhook.name, config);
    let refused: Vec<_> = refusals.map(|(key, reason)| Problem::of_row(&row, key, reason)).collect();
    if refused.is_empty() { Ok(webhook) } else { Err(Problems(refused)) }
}

/// What webhooks of the database may target.
pub fn policy(config: &Config) -> Policy {
    let Security { allow_http, allow_networks, .. } = &config.security;
    Policy { allow_http: *allow_http, allow_networks: allow_networks.clone(), for_tenants: false }
}

/// What those of tenants may.
pub fn tenants_policy(config: &Config) -> Policy {
    let Allowed { allow_http, allow_networks } = &config.security.tenants;
    Policy { allow_http: *allow_http, allow_networks: allow_networks.clone(), for_tenants: true }
}

fn check(row: &Map<String, Value>, config: &Config, stored: &StoredTemplates) -> Checked {
    let checked = check_row(row, (config, stored), Strangers::Left);
    checked.map(Arc::new).map_err(|problems| problems.to_string())
}

fn assemble(
    (config, shelf): (&Config, Arc<Shelf>),
    webhooks: Vec<Arc<Webhook>>,
    invalid: Vec<Invalid>,
    known: &Known,
) -> Result<Snapshot, String> {
    let templates =
        Templates::compile_all(&config.templates).map_err(|errors| lines("templates.", &errors))?;
    let matcher =
        Matcher::build(&config.tables, &config.events, &webhooks).map_err(|errors| lines("", &errors))?;
    let matcher = matcher.with_int8(config.delivery.int8);
    let mut compiled = Vec::with_capacity(webhooks.len());
    for webhook in webhooks {
        let same = known.get(&webhook.name).filter(|known| Arc::ptr_eq(&known.webhook, &webhook));
        // A template may be another under the same name.
        if let Some(same) = same.filter(|same| matches!(same.webhook.body, BodyShape::Format(_))) {
            compiled.push(Arc::clone(same));
            continue;
        }
        let reach = &webhook.reach;
        let signer = Signer::with_scheme(&webhook.secrets, &reach.signature)
            .map_err(|error| format!("{}: {error}", webhook.name))?;
        let jwt = match &reach.auth {
            Some(Auth::Jwt(jwt)) => {
                Some(JwtSigner::new(jwt).map_err(|error| format!("{}: {error}", webhook.name))?)
            }
            _ => None,
        };
        let route = Route::of(reach);
        let no_template = || format!("{}: its template is not there", webhook.name);
        let ours = templates.renderer(&webhook.body);
        let renderer = ours.or_else(|| shelf.renderer_of(&webhook.body)).ok_or_else(no_template)?;
        compiled.push(Arc::new(Compiled { webhook, signer, jwt, route, renderer }));
    }
    let by_name = compiled.iter().enumerate().map(|(at, c)| (Arc::clone(&c.webhook.name), at)).collect();
    Ok(Snapshot { webhooks: compiled, by_name, matcher, invalid, shelf })
}

/// One line a fault, each with its place.
fn lines<P: std::fmt::Display, E: std::fmt::Display>(prefix: &str, faults: &[(P, E)]) -> String {
    let lines: Vec<String> =
        faults.iter().map(|(place, fault)| format!("{prefix}{place}: {fault}")).collect();
    lines.join("\n")
}
