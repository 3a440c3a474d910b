//! Tenants: the customers of a product that offers them webhooks of their own.
//!
//! The name of a tenant's webhook says whose it is: `acme~crm` is `crm` of `acme`. No other webhook's name has a `~`. So
//! every delivery, which carries the name of the webhook that it was made for, says whose it is too, for ever: a webhook
//! cannot change hands, and one that is made anew under an old name has the old tenant.

use super::{Change, OldRow, ReplicaIdentity};

/// What stands in the name of a tenant's webhook between the tenant and the rest.
pub const TENANT_MARK: char = '~';

/// Whose a webhook of this name is; `None`: the operator's.
pub fn tenant_of(webhook: &str) -> Option<&str> {
    webhook.rsplit_once(TENANT_MARK).map(|(tenant, _)| tenant)
}

/// What tenants are told of a row that changes its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TenantChange {
    /// The former owner is told that it is deleted, the new one that it is created.
    #[default]
    Split,
    /// The new owner is told that it is created, the former one nothing.
    NewOwner,
}

/// Whose a row is, as far as a change tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'c> {
    /// The tenant of this text.
    Of(&'c [u8]),
    /// Nobody's: the column is null.
    Nobody,
    /// It was not sent.
    Unknown,
}

impl<'c> Owner<'c> {
    /// Of the row before the change; `position` is the tenant column's.
    pub fn before(change: &'c Change, position: usize) -> Self {
        let in_identity = change.relation.columns.get(position).is_some_and(|column| column.in_identity);
        match &change.old {
            Some(OldRow::Full(old)) => Self::of(old.cell(position)),
            // Of a key-only row a null means that the column was not sent.
            Some(OldRow::Key(old)) if in_identity => match Self::of(old.cell(position)) {
                Self::Nobody => Self::Unknown,
                owner => owner,
            },
            Some(OldRow::Key(_)) => Self::Unknown,
            // Where the identity is a key and no old row came, no column of the key has changed.
            None => match (&change.new, change.relation.identity) {
                (Some(new), ReplicaIdentity::Default | ReplicaIdentity::Index) if in_identity => {
                    Self::of(new.cell(position))
                }
                _ => Self::Unknown,
            },
        }
    }

    /// Of the row after the change.
    pub fn after(change: &'c Change, position: usize) -> Self {
        match &change.new {
            None => Self::Unknown,
            Some(new) => match Self::of(new.cell(position)) {
                // A large value that was not sent is the one from before.
                Self::Unknown if change.old.is_some() => Self::before(change, position),
                owner => owner,
            },
        }
    }

    fn of(cell: &'c super::Cell) -> Self {
        match cell {
            super::Cell::Text(text) if text.is_empty() => Self::Nobody,
            super::Cell::Text(text) => Self::Of(text),
            super::Cell::Null => Self::Nobody,
            super::Cell::Unchanged => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_the_mark_says_whose_it_is() {
        assert_eq!(tenant_of("acme~crm"), Some("acme"));
        assert_eq!(tenant_of("crm"), None);
    }
}
