//! The templates of the database, compiled as those of the file are.
//!
//! A row never changes and its number is no other row's, so each is compiled once for as long as it is there. One that
//! cannot be used sets aside the webhooks that use it, each with the reason, and nothing else (invariant I8).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::compile::{conditions_complaint, reach_complaint, template_complaint};
use crate::config::{Checks, Config, Problems, StoredTemplates, is_of_file, template_from_row};
use crate::domain::{BodyShape, TemplateSource, limits};
use crate::ledger::templates::StoredTemplate;
use crate::render::{Renderer, Templates};

/// The templates of the database under one configuration.
#[derive(Debug, Default)]
pub struct Shelf {
    /// By number, those that nobody can name too.
    kept: BTreeMap<i64, Arc<Kept>>,
    /// By the names that webhooks have for them.
    named: StoredTemplates,
    /// Those of them that compile, by the same names.
    compiled: Templates,
    set_aside: Vec<(String, String)>,
}

/// A row, and what it comes to.
#[derive(Debug)]
struct Kept {
    row: Arc<StoredTemplate>,
    made: Result<(Arc<TemplateSource>, Templates), Arc<str>>,
}

/// A template that somebody wants to keep, read and compiled as it will be; or every problem that it has. The keys are those
/// of the columns.
pub fn check_template_row(row: Map<String, Value>, config: &Config) -> Result<TemplateSource, Problems> {
    let checks = Checks {
        condition: &conditions_complaint,
        template: &template_complaint,
        connection: &|_| Ok(()),
        reach: &reach_complaint,
        stored: StoredTemplates::NONE,
    };
    template_from_row(row, config, &checks)
}

impl Kept {
    fn of(row: &Arc<StoredTemplate>, config: &Config) -> Self {
        let row = Arc::clone(row);
        let told = json!({
            "name": row.name, "version": row.version, "content_type": row.content_type, "body": row.body,
        });
        let told = if let Value::Object(told) = told { told } else { Map::new() };
        let made = check_template_row(told, config).map_err(|problems| problems.to_string());
        let made = made.and_then(|source| {
            let compiled = Templates::compile_all(std::slice::from_ref(&source)).map_err(|errors| {
                errors.iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>().join("\n")
            })?;
            Ok((Arc::new(source), compiled))
        });
        Self { row, made: made.map_err(Arc::from) }
    }
}

impl Shelf {
    /// Puts rows, in the order of their numbers, on a shelf. What `before` had is not compiled again.
    pub fn of(config: &Config, rows: &[Arc<StoredTemplate>], before: &Self) -> Self {
        let most = usize::try_from(limits::TEMPLATES).unwrap_or(usize::MAX);
        let mut shelf = Self::default();
        for (index, row) in rows.iter().enumerate() {
            let pinned: Arc<str> = row.pinned_name().into();
            if is_of_file(config, &row.name) {
                let reason = format!("{} declares a template of this name", config.path.display());
                shelf.set_aside.push((pinned.to_string(), reason));
                continue;
            }
            if index >= most {
                let reason = format!("there are more than {most} versions of templates");
                shelf.named.put(Arc::clone(&pinned), Err(reason.as_str().into()));
                shelf.set_aside.push((pinned.to_string(), reason));
                continue;
            }
            let known = before.kept.get(&row.number).filter(|kept| kept.row == *row).cloned();
            let kept = known.unwrap_or_else(|| Arc::new(Kept::of(row, config)));
            // Those that come later are later versions.
            for name in [Arc::clone(&pinned), row.name.as_str().into()] {
                match &kept.made {
                    Ok((source, compiled)) => {
                        shelf.named.put(Arc::clone(&name), Ok(Arc::clone(source)));
                        shelf.compiled.take_in(&name, compiled, &source.name);
                    }
                    Err(reason) => {
                        // The version before it is not what the name means now.
                        shelf.compiled.leave_out(&name);
                        shelf.named.put(name, Err(Arc::clone(reason)));
                    }
                }
            }
            if let Err(reason) = &kept.made {
                shelf.set_aside.push((pinned.to_string(), reason.to_string()));
            }
            shelf.kept.insert(row.number, kept);
        }
        shelf
    }

    /// The numbers of what is on it: while they are the same, so is the shelf.
    pub fn numbers(&self) -> impl Iterator<Item = i64> {
        self.kept.keys().copied()
    }

    /// The rows on it, in the order of numbers, each with the reason why it cannot be used.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<StoredTemplate>, Option<&str>)> {
        self.kept.values().map(|kept| (&kept.row, kept.made.as_ref().err().map(AsRef::as_ref)))
    }

    /// By the names that webhooks have for them.
    pub fn named(&self) -> &StoredTemplates {
        &self.named
    }

    /// What makes bodies by one of them.
    pub fn renderer(&self, name: &str) -> Option<Renderer> {
        self.renderer_of(&BodyShape::Template(name.into()))
    }

    pub(super) fn renderer_of(&self, shape: &BodyShape) -> Option<Renderer> {
        if matches!(shape, BodyShape::Template(_)) { self.compiled.renderer(shape) } else { None }
    }

    /// The versions that cannot be used, and why.
    pub fn set_aside(&self) -> &[(String, String)] {
        &self.set_aside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: i64, (name, version): (&str, &str), body: &str) -> Arc<StoredTemplate> {
        Arc::new(StoredTemplate {
            name: name.to_owned(),
            version: version.to_owned(),
            number,
            content_type: "application/json".to_owned(),
            body: body.to_owned(),
            description: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        })
    }

    fn config(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walhook.toml");
        std::fs::write(&path, format!("[database]\nurl = 'postgres://db/app'\n{text}")).unwrap();
        let sources = crate::config::Sources { path: Some(path), environment: Vec::new() };
        let checks = Checks {
            condition: &conditions_complaint,
            template: &template_complaint,
            connection: &|_| Ok(()),
            reach: &reach_complaint,
            stored: StoredTemplates::NONE,
        };
        crate::config::load(&sources, &checks).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn a_name_is_its_latest_version_and_a_pinned_one_stays() {
        let config = config("");
        let rows = [
            row(3, ("slack", "v1"), "{\"a\": 1}"),
            row(5, ("slack", "autumn"), "{\"a\": 2}"),
            row(7, ("sms", "v1"), "{}"),
        ];
        let shelf = Shelf::of(&config, &rows, &Shelf::default());
        for (name, body) in
            [("slack@v1", "{\"a\": 1}"), ("slack", "{\"a\": 2}"), ("slack@autumn", "{\"a\": 2}")]
        {
            assert_eq!(shelf.named().get(name).unwrap().unwrap().body, body, "{name}");
            assert!(shelf.renderer(name).is_some(), "{name}");
        }
        assert!(shelf.named().get("slack@v2").is_none() && shelf.set_aside().is_empty());
        // What is there stays what it is: nothing is made again.
        let again = Shelf::of(&config, &rows[..1], &shelf);
        assert!(Arc::ptr_eq(&again.kept[&3], &shelf.kept[&3]));
        assert_eq!(again.named().get("slack").unwrap().unwrap().body, "{\"a\": 1}");
        assert_eq!(again.numbers().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn what_cannot_be_used_has_its_reason_and_the_file_comes_first() {
        let config = config("[templates.mail]\nbody = '{}'\n");
        let rows = [
            row(1, ("slack", "v1"), "{}"),
            row(2, ("slack", "v2"), "{{#if}"),
            row(3, ("mail", "v7"), "{}"),
            row(4, ("a b", "v1"), "{}"),
        ];
        let shelf = Shelf::of(&config, &rows, &Shelf::default());
        assert!(shelf.named().get("slack@v1").unwrap().is_ok());
        for name in ["slack", "slack@v2"] {
            let reason = shelf.named().get(name).unwrap().unwrap_err();
            assert!(
                reason.contains("body: the template is not valid") && reason.contains("line 1"),
                "{reason}"
            );
            assert!(shelf.renderer(name).is_none(), "{name}");
        }
        assert!(shelf.named().get("mail@v7").is_none() && shelf.named().get("mail").is_none());
        let told: Vec<&str> = shelf.set_aside().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(told, ["slack@v2", "mail@v7", "a b@v1"]);
    }

    #[test]
    fn i11_no_more_versions_are_used_than_there_may_be() {
        let config = config("");
        let version = |number| row(number, ("a", &format!("v{number}")), "{}");
        let rows: Vec<_> = (1..=limits::TEMPLATES + 1).map(version).collect();
        let shelf = Shelf::of(&config, &rows, &Shelf::default());
        let (last, beyond) = (format!("a@v{}", limits::TEMPLATES), format!("a@v{}", limits::TEMPLATES + 1));
        assert!(shelf.renderer(&last).is_some() && shelf.renderer(&beyond).is_none());
        assert!(shelf.named().get("a").unwrap().is_ok());
        let reason = shelf.named().get(&beyond).unwrap().unwrap_err();
        assert_eq!(reason, "there are more than 1000 versions of templates");
        assert_eq!(shelf.set_aside().len(), 1);
    }
}
