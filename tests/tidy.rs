//! The tree checks itself: a rule without a test is a wish.
//!
//! Reads the sources as text. What a compiler or a lint says better is not here, but for the length of functions,
//! which is told for all files at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module uses lower floors only; those of one floor do not know each other.
const FLOORS: [(&str, u32); 26] = [
    ("domain", 0),
    ("clock", 1),
    ("tasks", 1),
    ("telemetry", 1),
    ("pgoutput", 1),
    ("matcher", 1),
    ("render", 1),
    ("sign", 1),
    ("seal", 1),
    ("config", 1),
    ("settlement", 1),
    ("live", 1),
    ("postgres", 2),
    ("cluster", 2),
    ("source", 3),
    ("ledger", 3),
    ("transport", 3),
    ("catalog", 4),
    ("dispatcher", 5),
    ("chores", 5),
    ("backfill", 5),
    ("intake", 6),
    ("control", 7),
    ("api", 8),
    ("app", 9),
    ("cli", 10),
];

/// Used by their neighbours on the first floor too: time, dice and tasks are in everybody's hands.
const FOR_EVERYBODY: [&str; 2] = ["clock", "tasks"];

/// Everything that may stand at the top of the tree.
const TOP: [&str; 18] = [
    ".ci",
    ".clippy.toml",
    ".config",
    ".docker",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "config.example.toml",
    "demo",
    "docker-compose.yml",
    "examples",
    "migrations",
    "test",
];
/// Also there, and looked into below.
const CODE: [&str; 2] = ["src", "tests"];

/// Invariants that this version has nothing to break with.
const EXEMPT: [(&str, &str); 0] = [];

/// The operator's commands and the operation of the API that does the same.
const BY_API: [(&str, &str); 14] = [
    ("Retry", "retry_delivery"),
    ("Enable", "enable_webhook"),
    ("Pause", "pause_webhook"),
    ("Disable", "disable_webhook"),
    ("Trigger", "test_webhook"),
    ("Keys", "create_key"),
    ("Stats", "get_webhook_stats"),
    ("Render", "render"),
    ("Backfill", "create_backfill"),
    ("Webhooks", "create_webhook"),
    ("Deliveries", "list_deliveries"),
    ("Audit", "list_audit"),
    ("Events", "list_events"),
    ("Templates", "list_templates"),
];
/// Those that the API does not have, and why.
const NOT_BY_API: [(&str, &str); 4] = [
    ("Check", "looks at files and receivers from where it is typed; changes nothing"),
    ("Status", "the API's lists say it a webhook at a time; changes nothing"),
    ("Secrets", "made and encrypted where the operator's key is"),
    ("Uninstall", "removes what the API runs on"),
];

/// Files with queues whose length something else bounds.
const BOUNDED_OTHERWISE: [(&str, &str); 9] = [
    ("src/dispatcher/simulation/mod.rs", "a test's ends of the queues below"),
    ("src/tasks.rs", "deaths of essential tasks: as many as there are tasks"),
    ("src/app/start.rs", "faults: one a worker"),
    ("src/app/workers.rs", "faults, and the queues between dispatcher and writer, as below"),
    ("src/app/mod.rs", "faults: one a worker"),
    ("src/app/stop.rs", "faults: one a worker"),
    (
        "src/dispatcher/mod.rs",
        "commands: by delivery.memory and limits::IN_FLIGHT; a full queue would have two tasks wait for each other",
    ),
    ("src/ledger/writer.rs", "answers: one a command"),
    ("src/dispatcher/run.rs", "commands as above; ends of attempts: by limits::IN_FLIGHT"),
];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under `directory` whose names end so, as paths relative to the root, in order.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "node_modules" && name != "target" && name != "__pycache__" {
                open.push(path);
            } else if name.ends_with(ending) {
                found.push(path.strip_prefix(root()).expect("it is below").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// All sources and scripts of ours, for searches in text.
fn texts() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["src", "tests", "benches", "examples", "migrations", ".config", ".ci", ".docker"]
            .iter()
            .flat_map(|directory| files(directory, ""))
            .filter(|path| !path.to_string_lossy().ends_with("package-lock.json"))
            .collect();
    let top = ["README.md", "CHANGELOG.md", "config.example.toml", "docker-compose.yml", "demo", "test"];
    all.extend(top.iter().map(PathBuf::from));
    all
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_file_has_an_essay_and_fits_in_500_lines() {
    let mut found = Vec::new();
    for path in files("src", ".rs").into_iter().chain(files("tests", ".rs")).chain(files("benches", ".rs")) {
        let text = read(&path);
        if !text.starts_with("//!") {
            found.push(format!("{}: does not begin with `//!`", path.display()));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES {
            found.push(format!("{}: {lines} lines", path.display()));
        }
    }
    none("files out of shape", &found);
}

#[test]
fn every_function_fits_in_70_lines() {
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        let text = read(&path);
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_fn = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn "];
            let is_fn = is_fn.iter().any(|start| head.starts_with(start))
                || (head.starts_with("pub(") && head.contains(") ") && head.contains("fn "));
            if open.is_none() && is_fn && !head.ends_with(';') && !head.ends_with('}') {
                open = Some((number, indent, head.to_owned()));
            } else if let Some((start, at, name)) = &open
                && indent == *at
                && head.starts_with('}')
            {
                let lines = number - start + 1;
                if lines > FUNCTION_LINES {
                    found.push(format!("{}:{}: {lines} lines: {name}", path.display(), start + 1));
                }
                open = None;
            }
        }
    }
    none("functions that are too long", &found);
}

#[test]
fn every_file_is_part_of_the_crate() {
    let mut reached = BTreeSet::new();
    let mut open = vec![PathBuf::from("src/lib.rs"), PathBuf::from("src/main.rs")];
    while let Some(path) = open.pop() {
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let parent = path.parent().expect("a directory");
        let home =
            if ["lib", "main", "mod"].contains(&&*stem) { parent.to_owned() } else { parent.join(&stem) };
        for line in read(&path).lines() {
            let line = line.trim();
            let name = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name);
            if let Some(name) = name.filter(|name| !line.starts_with("//") && !name.contains(' ')) {
                let places = [home.join(format!("{name}.rs")), home.join(name).join("mod.rs")];
                open.extend(places.into_iter().filter(|place| root().join(place).is_file()));
            }
        }
        reached.insert(path);
    }
    let dead: Vec<String> = files("src", ".rs")
        .into_iter()
        .filter(|path| !reached.contains(path))
        .map(|path| path.display().to_string())
        .collect();
    none("files that nobody compiles", &dead);
}

/// The top-level modules that a source names by `crate::`, with the line; a group `crate::{a, b::c}` names each.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            // `$crate` and other people's `xcrate::` are not ours; neither is `pub(in crate::…)`.
            let rest = code.get(at + "crate::".len()..).unwrap_or_default();
            let names = rest.strip_prefix('{').map_or_else(|| vec![rest], |group| group.split(',').collect());
            for name in names {
                let name: String =
                    name.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                found.push((number + 1, name));
            }
        }
    }
    found
}

#[test]
fn modules_use_lower_floors_only() {
    let floors: BTreeMap<&str, u32> = FLOORS.into_iter().collect();
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        let mut parts = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy().into_owned());
        let module = parts.next().expect("a name").trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&&*module) {
            continue;
        }
        let Some(floor) = floors.get(&*module) else {
            found.push(format!("{}: `{module}` has no floor", path.display()));
            continue;
        };
        let text = read(&path);
        // A test may bring up a real server, which stands on the second floor.
        let (code, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for (line, name) in uses(code) {
            let Some(used) = floors.get(&*name) else { continue };
            let neighbour = used == floor && !FOR_EVERYBODY.contains(&&*name);
            if name != module && (used > floor || neighbour) {
                found.push(format!(
                    "{}:{line}: `{module}` (floor {floor}) uses `{name}` ({used})",
                    path.display()
                ));
            }
        }
    }
    none("floors", &found);
}

#[test]
fn no_lint_is_switched_off_without_a_reason() {
    let mut found = Vec::new();
    for path in files("src", ".rs").into_iter().chain(files("tests", ".rs")).chain(files("benches", ".rs")) {
        for (number, line) in read(&path).lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    none("use #[expect(…, reason = …)]", &found);
}

#[test]
fn every_invariant_is_numbered_in_the_essay_and_has_a_test_of_its_name() {
    let essay = read(Path::new("src/lib.rs"));
    let sources: String =
        files("src", ".rs").iter().chain(&files("tests", ".rs")).map(|path| read(path)).collect();
    let mut found = Vec::new();
    for number in 1..=13 {
        let name = format!("I{number}");
        if !essay.contains(&format!("**{name}**")) {
            found.push(format!("{name}: not in the essay of lib.rs"));
        }
        let exempt = EXEMPT.iter().any(|(exempt, _why)| *exempt == name);
        let is_tested = sources.contains(&format!("fn i{number}_"))
            || sources.lines().any(|line| line.trim_start().starts_with(&format!("i{number}_")));
        if is_tested == exempt {
            let what = if exempt { "exempt, and yet it has a test" } else { "no test of its name" };
            found.push(format!("{name}: {what}"));
        }
    }
    none("invariants", &found);
}

#[test]
fn i13_every_command_is_in_the_api_or_listed_as_not_there() {
    let commands = read(Path::new("src/cli/operate.rs"));
    let (_, verbs) = commands.split_once("pub(super) enum Operate {").expect("the operator's verbs");
    let (verbs, _) = verbs.split_once("\n}").expect("their end");
    let verbs: BTreeSet<&str> =
        verbs.lines().filter_map(|line| line.trim().split_once('(')).map(|(name, _)| name).collect();
    let verbs: BTreeSet<&str> =
        verbs.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric())).collect();
    let listed: BTreeSet<&str> = BY_API.iter().chain(&NOT_BY_API).map(|(command, _)| *command).collect();
    assert_eq!(verbs, listed);
    let api: String = files("src/api", ".rs").iter().map(|path| read(path)).collect();
    for (command, operation) in BY_API {
        assert!(api.contains(&format!("operation_id = \"{operation}\"")), "{command}: no {operation}");
    }
    // Their handlers and their commands have the rules of `control`, and SQL of nobody.
    let sql = files("src/api", ".rs").into_iter().chain(files("src/cli/operate", ".rs"));
    let found: Vec<String> = sql
        .filter(|path| {
            [".query(", ".execute(", ".batch_execute("].iter().any(|call| read(path).contains(call))
        })
        .map(|path| path.display().to_string())
        .collect();
    none("statements of their own", &found);
}

#[test]
fn i11_no_queue_is_without_a_bound() {
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        if BOUNDED_OTHERWISE.iter().any(|(file, _)| path == Path::new(file)) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if line.contains("unbounded_channel") || line.contains("UnboundedSender") {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none("queues without a bound", &found);
}

#[test]
fn the_top_holds_only_what_was_agreed() {
    let known = |name: &str| TOP.contains(&name) || CODE.contains(&name);
    let ignored = [".git", "target", "tmp"];
    let found: Vec<String> = fs::read_dir(root())
        .expect("the root")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !known(name) && !ignored.contains(&&**name))
        .collect();
    none("not agreed at the top", &found);
    for name in ["CHANGELOG.md", "README.md", "LICENSE"] {
        assert!(!read(Path::new(name)).trim().is_empty(), "{name} is missing");
    }
}

#[test]
fn nothing_names_a_machines_own_paths() {
    // Put together here, so that this file does not name them either.
    let ours =
        [["/tmp", "/wt"], ["/work", "/shared"], ["/root", "/."], ["/home", "/"]].map(|two| two.concat());
    let mut found = Vec::new();
    for path in texts() {
        for (number, line) in read(&path).lines().enumerate() {
            if ours.iter().any(|own| line.contains(own.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none("machine paths", &found);
}

/// TOML blocks of a Markdown text.
fn toml_blocks(markdown: &str) -> Vec<toml::Table> {
    let blocks = markdown.split("```toml\n").skip(1);
    blocks
        .map(|rest| {
            let text = rest.split("```").next().unwrap_or_default();
            let parsed = text.parse::<toml::Table>();
            assert!(parsed.is_ok(), "a TOML block of the README: {parsed:?}\n{text}");
            parsed.unwrap_or_default()
        })
        .collect()
}

/// `a.b.c` of every key in a table. What users name themselves is `*`; `[[lists]]` read like tables.
fn key_paths(prefix: &str, value: &toml::Value, into: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            let last = prefix.rsplit('.').next().unwrap_or_default();
            let named = ["tables", "templates", "headers", "mask"].contains(&last);
            for (key, value) in table {
                let key = if named { "*" } else { key };
                let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
                into.insert(path.clone());
                key_paths(&path, value, into);
            }
        }
        toml::Value::Array(list) => list.iter().for_each(|one| key_paths(prefix, one, into)),
        _ => {}
    }
}

#[test]
fn every_key_in_the_readme_is_in_the_example_of_the_configuration() {
    // Its optional keys stand there as comments of the form `# key = value`.
    let example = read(Path::new("config.example.toml"));
    assert!(!example.is_empty(), "config.example.toml is missing");
    let told: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).split(" =").next())
        .map(|key| key.trim_matches(['[', ']']))
        .collect();
    let mut keys = BTreeSet::new();
    for block in toml_blocks(&read(Path::new("README.md"))) {
        key_paths("", &toml::Value::Table(block), &mut keys);
    }
    assert!(keys.len() > 10, "the README shows next to no configuration");
    let found: Vec<String> = keys
        .into_iter()
        .filter(|path| {
            let last = path.rsplit('.').next().unwrap_or(path);
            // A secret's own keys, and what users name.
            last != "*" && !["env", "file"].contains(&last) && !example_names(&told, last, &example)
        })
        .collect();
    none("in the README, not in config.example.toml", &found);
}

fn example_names(told: &BTreeSet<&str>, key: &str, example: &str) -> bool {
    let in_line = format!("{key} = ");
    told.contains(key) || example.contains(&in_line) || example.contains(&format!("[{key}."))
}

#[test]
fn every_test_that_the_readme_names_is_there() {
    let readme = read(Path::new("README.md"));
    let sources: Vec<(PathBuf, String)> = ["src", "tests"]
        .iter()
        .flat_map(|directory| files(directory, ".rs"))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    let named: BTreeSet<(&str, &str)> = readme
        .split('`')
        .filter(|text| text.len() > 20 && !text.contains(char::is_whitespace))
        .filter_map(|text| text.split_once("::"))
        .collect();
    assert!(named.len() > 20, "the README names next to no test");
    let missing: Vec<String> = named
        .into_iter()
        .filter(|(area, test)| {
            let definition = format!("fn {test}(");
            !sources.iter().any(|(path, text)| {
                let is_there =
                    path.iter().any(|part| part.to_string_lossy().trim_end_matches(".rs") == *area);
                is_there && text.contains(&definition)
            })
        })
        .map(|(area, test)| format!("{area}::{test}"))
        .collect();
    none("tests that the README names and nobody has written", &missing);
}

#[test]
fn every_metric_is_in_the_readme_with_its_help() {
    let readme = read(Path::new("README.md"));
    let missing: Vec<String> = walhook::telemetry::METRICS
        .iter()
        .map(|(name, _, help)| format!("| `{name}` | {} |", lower_first(help)))
        .filter(|row| !readme.contains(row))
        .collect();
    none("metrics that the README does not list", &missing);
}

fn lower_first(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("{}{rest}", first.to_lowercase())
}
