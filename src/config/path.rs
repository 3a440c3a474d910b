//! The path of a key: `webhooks[0].retry.jitter`, `tables."other.orders".event`.

use std::fmt;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A key that the configuration gives a meaning to.
    Key(String),
    /// A name that the operator chose (a table, a template, a header).
    Name(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// How to get from the root to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub fn name(&self, name: &str) -> Self {
        self.with(Step::Name(name.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The path of what holds this; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    /// The path as a JSON pointer (RFC 6901): `/webhooks/0/retry`.
    pub fn pointer(&self) -> String {
        let token = |step: &Step| match step {
            Step::Index(index) => format!("/{index}"),
            Step::Key(text) | Step::Name(text) => format!("/{}", text.replace('~', "~0").replace('/', "~1")),
        };
        self.0.iter().map(token).collect()
    }

    /// The path with `*` for names and `[]` for places in a list: the same for every table, every webhook.
    pub fn pattern(&self) -> String {
        let general = self.0.iter().map(|step| match step {
            Step::Key(key) => format!(".{key}"),
            Step::Name(_) => ".*".to_owned(),
            Step::Index(_) => "[]".to_owned(),
        });
        general.collect::<String>().trim_start_matches('.').to_owned()
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(text) | Step::Name(text) => {
                    let dot = if depth == 0 { "" } else { "." };
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if !text.is_empty() && text.chars().all(bare) {
                        write!(f, "{dot}{text}")?;
                    } else {
                        write!(f, "{dot}{text:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_would_be_written_in_toml() {
        let root = Path::default();
        assert_eq!(
            root.key("webhooks").index(2).key("retry").key("jitter").to_string(),
            "webhooks[2].retry.jitter"
        );
        assert_eq!(root.pointer(), "");
        assert_eq!(root.key("headers").name("a/b~c").index(2).pointer(), "/headers/a~1b~0c/2");
        let table = root.key("tables").name("other.orders").key("event");
        assert_eq!(table.to_string(), "tables.\"other.orders\".event");
        assert_eq!(table.pattern(), "tables.*.event");
        assert_eq!(table.parent().and_then(|p| p.parent()), Some(root.key("tables")));
        assert_eq!(root.parent(), None);
    }
}
