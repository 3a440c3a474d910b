//! What may be confirmed to the server: moved by whoever settles, read by the source.

use tokio::sync::watch;

use crate::domain::EndLsn;

/// The confirmed position. It never goes back.
#[derive(Debug, Clone)]
pub struct Positions {
    confirmed: watch::Sender<EndLsn>,
}

impl Positions {
    /// Starts at what is known to be settled (`EndLsn::default()` where nothing is: the slot's own position counts).
    pub fn new(start: EndLsn) -> (Self, watch::Receiver<EndLsn>) {
        let (confirmed, receiver) = watch::channel(start);
        (Self { confirmed }, receiver)
    }

    /// Everything up to here is settled. An earlier position than before changes nothing.
    pub fn confirm(&self, end: EndLsn) {
        self.confirmed.send_if_modified(|current| {
            let forward = end > *current;
            *current = (*current).max(end);
            forward
        });
    }

    /// What has been confirmed so far.
    pub fn confirmed(&self) -> EndLsn {
        *self.confirmed.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lsn;

    #[test]
    fn positions_never_go_back() {
        let (positions, mut receiver) = Positions::new(EndLsn(Lsn(5)));
        positions.confirm(EndLsn(Lsn(9)));
        assert!(receiver.has_changed().unwrap());
        receiver.mark_unchanged();
        positions.confirm(EndLsn(Lsn(7)));
        assert!(!receiver.has_changed().unwrap());
        assert_eq!(positions.confirmed(), EndLsn(Lsn(9)));
    }
}
