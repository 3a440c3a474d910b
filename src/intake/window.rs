//! What changes between the two marks of a backfill's page (see [`crate::backfill`]).

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::expand::Touched;
use crate::domain::limits;

/// Watches one table between the marks; and remembers which transactions went by last.
#[derive(Debug, Default)]
pub(super) struct Window {
    open: Option<Open>,
    /// The last transactions, by the low 32 bits of their ids, that the stream has brought.
    recent: VecDeque<u32>,
}

#[derive(Debug)]
struct Open {
    name: String,
    table: u32,
    changes: Changes,
    /// The transactions that went by before it opened.
    before: HashSet<u32>,
}

/// What has changed in a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// Rows with these keys.
    Keys(HashSet<Vec<Bytes>>),
    /// Too much to say.
    Unknown,
}

/// A window that has been closed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) changes: Changes,
    pub(super) before: HashSet<u32>,
}

impl Window {
    /// A transaction begins.
    pub(super) fn begin(&mut self, xid: u32) {
        if self.recent.len() >= limits::BACKFILL_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(xid);
    }

    /// A page's low mark.
    pub(super) fn open(&mut self, name: &str, table: u32) {
        let before = self.recent.iter().copied().collect();
        self.open =
            Some(Open { name: name.to_owned(), table, changes: Changes::Keys(HashSet::new()), before });
    }

    /// Whether a table is being watched.
    pub(super) fn watches(&self, table: u32) -> bool {
        self.open.as_ref().is_some_and(|open| open.table == table)
    }

    /// A change of the watched table.
    pub(super) fn touch(&mut self, touched: Touched) {
        let Some(open) = &mut self.open else { return };
        let Changes::Keys(keys) = &mut open.changes else { return };
        match touched {
            Touched::Rows(rows) if keys.len() + rows.len() <= limits::BACKFILL_TOUCHED => keys.extend(rows),
            Touched::Rows(_) | Touched::Unknown => open.changes = Changes::Unknown,
        }
    }

    /// A page's high mark; `None` where its low mark was not seen.
    pub(super) fn close(&mut self, name: &str) -> Option<Closed> {
        let open = self.open.take_if(|open| open.name == name)?;
        Some(Closed { changes: open.changes, before: open.before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_what_changes_between_its_marks_and_gives_up_when_that_is_too_much() {
        let key = |n: usize| vec![Bytes::from(n.to_string())];
        let mut window = Window::default();
        window.begin(7);
        window.touch(Touched::Rows(vec![key(0)]));
        window.open("a", 1);
        assert!(window.watches(1) && !window.watches(2));
        window.touch(Touched::Rows(vec![key(1), key(2)]));
        window.touch(Touched::Rows(vec![key(1)]));
        assert!(window.close("b").is_none());
        let closed = window.close("a").expect("it was open");
        assert_eq!(closed.changes, Changes::Keys(HashSet::from([key(1), key(2)])));
        assert_eq!(closed.before, HashSet::from([7]));
        assert!(window.close("a").is_none() && !window.watches(1));

        window.open("c", 1);
        for n in 0..=limits::BACKFILL_TOUCHED {
            window.touch(Touched::Rows(vec![key(n)]));
        }
        assert_eq!(window.close("c").expect("it was open").changes, Changes::Unknown);
        window.open("d", 1);
        window.touch(Touched::Unknown);
        window.touch(Touched::Rows(vec![key(1)]));
        assert_eq!(window.close("d").expect("it was open").changes, Changes::Unknown);
    }
}
