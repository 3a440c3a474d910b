//! The environment as a layer over the file: `WALHOOK_DELIVERY__RETRY__JITTER` is `delivery.retry.jitter`.
//!
//! A variable's text stays text here; the reader that knows which type a key wants makes it a number, a list, a
//! table. Three kinds of variables start with `WALHOOK_` and are no keys: those that name other things, those that the
//! configuration itself names as the home of a secret (`{ env = "WALHOOK_ADMIN_TOKEN" }`), and those that Kubernetes
//! and Docker make for a service that happens to be called walhook.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::path::Path;
use super::problem::{Fault, Place, Problem};
use super::sources::{FILE_VARIABLE, Sources};

const PREFIX: &str = "WALHOOK_";
/// Variables of walhook's that are no keys: the configuration file, where commands ask, and the Postgres server of the demo
/// and the tests.
const NO_KEYS: [&str; 9] = [
    FILE_VARIABLE,
    super::sources::API_URL_VARIABLE,
    super::sources::API_KEY_VARIABLE,
    super::sources::API_KEY_FILE_VARIABLE,
    "WALHOOK_PG_BIN",
    "WALHOOK_LOG",
    "WALHOOK_LOG_FORMAT",
    "WALHOOK_SECRET",
    "WALHOOK_THREADS",
];
/// Lists of tables, which a variable can only replace as a whole.
const LISTS: [&str; 2] = ["webhooks", "events"];

/// What the environment sets.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub tree: Map<String, Value>,
    /// Which variable set which key.
    pub variables: Vec<(Path, String)>,
    pub problems: Vec<Problem>,
}

/// Reads the layer. `file` is the tree below it, whose spelling of a name is kept where only the case differs.
pub(super) fn layer(sources: &Sources, file: &Map<String, Value>) -> Layer {
    let mut variables: Vec<_> =
        sources.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    let mut homes = BTreeSet::new();
    for (key, value) in file {
        homes_of_secrets(key, value, &mut homes);
    }
    homes.extend(
        variables.iter().filter(|(name, _)| name.ends_with("__ENV")).map(|(_, value)| value.as_str()),
    );

    let mut layer = Layer::default();
    for (name, value) in variables {
        let rest = name.strip_prefix(PREFIX).unwrap_or_default();
        if !NO_KEYS.contains(&name.as_str()) && !homes.contains(name.as_str()) && !made_by_the_platform(rest)
        {
            layer.set(name, rest, value, file);
        }
    }
    layer
}

/// The variable that would set a key of this path, in which `*` stands for a name.
pub(super) fn variable_of(pattern: &str) -> String {
    format!("{PREFIX}{}", pattern.to_uppercase().replace('.', "__"))
}

impl Layer {
    fn set(&mut self, name: &str, rest: &str, value: &str, file: &Map<String, Value>) {
        let mut path = Path::default();
        let mut below = Some(file);
        let mut keys = Vec::new();
        for part in rest.split("__") {
            let same = |key: &&String| key.eq_ignore_ascii_case(part);
            let key = below.and_then(|map| map.keys().find(same)).cloned().unwrap_or(part.to_lowercase());
            below = below.and_then(|map| map.get(&key)).and_then(Value::as_object);
            path = path.key(&key);
            keys.push(key);
        }
        let Some((last, parents)) = keys.split_last() else { return };
        if let Some(list) = parents.first().filter(|first| LISTS.contains(&first.as_str())) {
            let fault = Fault::new("an entry of a list cannot be set from the environment")
                .detail(format!("{} can only be replaced as a whole, with TOML or JSON: {}=[{{…}}].", list, variable_of(list)))
                .hint("Set the key in the file; its secrets can be read from the environment with { env = \"NAME\" }.");
            self.problems.push(fault.at(Place::Variable(name.to_owned()), &path));
            return;
        }
        if insert(&mut self.tree, parents, last, value) {
            self.variables.push((path, name.to_owned()));
        } else {
            let fault = Fault::new("another variable sets what holds this key")
                .hint("Set either the table as a whole or its keys one by one.");
            self.problems.push(fault.at(Place::Variable(name.to_owned()), &path));
        }
    }
}

/// Whether the place was free: a key is not set inside one that already has a text.
fn insert(tree: &mut Map<String, Value>, parents: &[String], last: &str, value: &str) -> bool {
    let mut map = tree;
    for parent in parents {
        let child = map.entry(parent.clone()).or_insert_with(|| Value::Object(Map::new()));
        let Some(child) = child.as_object_mut() else { return false };
        map = child;
    }
    map.insert(last.to_owned(), Value::String(value.to_owned())).is_none()
}

/// The variables that the file names as homes of secrets: the strings under keys called `env`.
fn homes_of_secrets<'a>(key: &str, value: &'a Value, homes: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(name) if key == "env" => {
            homes.insert(name);
        }
        Value::Array(items) => items.iter().for_each(|item| homes_of_secrets("", item, homes)),
        Value::Object(map) => map.iter().for_each(|(key, value)| homes_of_secrets(key, value, homes)),
        _ => {}
    }
}

/// `WALHOOK_SERVICE_HOST`, `WALHOOK_PORT_8787_TCP_ADDR`, …
fn made_by_the_platform(rest: &str) -> bool {
    !rest.contains("__")
        && (rest == "PORT"
            || ["PORT_", "SERVICE_HOST", "SERVICE_PORT"].iter().any(|start| rest.starts_with(start)))
}
