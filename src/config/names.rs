//! Which names are valid: of Postgres objects, of event types, of webhooks.

use super::problem::Fault;
use crate::domain::TENANT_MARK;
use crate::domain::limits::WEBHOOK_NAME;

/// What Postgres keeps of an identifier (`NAMEDATALEN` - 1), in bytes.
const IDENTIFIER_BYTES: usize = 63;
const EVENT_BYTES: usize = 200;

/// A replication slot's name: lower-case letters, digits and underscores, at most 63 (Postgres, `CREATE_REPLICATION_SLOT`).
pub(super) fn slot(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !text.is_empty() && text.len() <= IDENTIFIER_BYTES && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let fault = Fault::new(format!("\"{text}\" is not a valid name of a replication slot"))
        .detail("Postgres allows lower-case letters, digits and underscores, at most 63 of them.");
    let repaired: String = text.to_lowercase().chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if repaired.is_empty() || repaired.len() > IDENTIFIER_BYTES {
        return Err(fault);
    }
    Err(fault.hint(format!("\"{repaired}\" would be valid.")))
}

/// The name of a table, a column, a publication: 1 to 63 bytes, any characters but NUL.
pub(super) fn identifier(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err("a name may not be empty".into());
    }
    if text.len() > IDENTIFIER_BYTES || text.contains('\0') {
        return Err(Fault::new(format!("\"{}\" is not a valid name in Postgres", text.escape_debug()))
            .detail(format!("A name has at most {IDENTIFIER_BYTES} bytes; this one has {}.", text.len())));
    }
    Ok(text.to_owned())
}

/// The schema of walhook's own tables.
pub(super) fn own_schema(text: &str) -> Result<String, Fault> {
    if text.starts_with("pg_") || text == "information_schema" {
        return Err(Fault::new(format!("\"{text}\" is reserved by Postgres")));
    }
    if text == "public" {
        return Err(Fault::new("walhook needs a schema of its own")
            .detail("Changes of the tables in this schema are never events, so it can hold none of the application's.")
            .hint("Leave the key out for the schema \"walhook\"; it is made when it is missing."));
    }
    identifier(text)
}

/// `table` (in schema `public`) or `schema.table`.
pub(super) fn table(text: &str) -> Result<(String, String), Fault> {
    let (schema, table) = text.split_once('.').unwrap_or(("public", text));
    if table.contains('.') || schema.is_empty() || table.is_empty() {
        return Err(Fault::new(format!("expected the name of a table, found \"{text}\""))
            .detail("A table is written \"orders\" (in schema public) or \"shop.orders\"."));
    }
    Ok((identifier(schema)?, identifier(table)?))
}

/// An event type: `order.shipped`.
pub(super) fn event_type(text: &str) -> Result<String, Fault> {
    if text.contains('*') {
        return Err(Fault::new(format!("\"{text}\" is not an event type"))
            .detail("A * stands for any run of characters where a webhook chooses its events, not where they are named."));
    }
    event_pattern(text)
}

/// What a webhook chooses events with: a type, in which `*` stands for any run of characters.
pub(super) fn event_pattern(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_alphanumeric() || "_.-*:/$".contains(c);
    if !text.is_empty() && text.len() <= EVENT_BYTES && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let fault = Fault::new(format!("\"{}\" is not an event type", text.escape_debug())).detail(format!(
        "An event type has 1 to {EVENT_BYTES} bytes: letters, digits and _ . - : / $, such as \"orders.created\"."
    ));
    Err(if text.contains(',') {
        fault.hint("Write several types as a list: [\"orders.created\", \"orders.updated\"].")
    } else if text.contains(' ') {
        fault.hint("For a table with such a name, set tables.NAME.event to the prefix its events shall have.")
    } else {
        fault
    })
}

/// The name of a tenant: what the tenant column of its rows holds.
pub(super) fn tenant(text: &str) -> Result<String, Fault> {
    plain_name(text).map_err(|_| {
        Fault::new(format!("\"{}\" is not a valid tenant", text.escape_debug())).detail(format!(
            "A tenant is what the tenant column holds: 1 to {WEBHOOK_NAME} characters of A-Z a-z 0-9 _ . -, such as a \
             number, a uuid or a slug."
        ))
    })
}

/// The name of a webhook: of a tenant's, the tenant, `~`, and a name of its own.
pub(super) fn webhook_name(text: &str) -> Result<String, Fault> {
    match text.split_once(TENANT_MARK) {
        Some((tenant, own)) if text.len() <= WEBHOOK_NAME => {
            plain_name(tenant).and(plain_name(own)).map(|_| text.to_owned())
        }
        _ => plain_name(text),
    }
}

/// The name of a webhook or a template.
pub(super) fn plain_name(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !text.is_empty() && text.len() <= WEBHOOK_NAME && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("\"{}\" is not a valid name", text.escape_debug()))
        .detail(format!("A name has 1 to {WEBHOOK_NAME} characters of A-Z a-z 0-9 _ . -")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_postgres_own_rules() {
        for (text, valid) in
            [("walhook", true), ("w_2", true), ("", false), ("Walhook", false), ("a-b", false)]
        {
            assert_eq!(slot(text).is_ok(), valid, "{text}");
        }
        assert!(slot(&"a".repeat(63)).is_ok());
        assert!(slot(&"a".repeat(64)).is_err());
        assert_eq!(slot("My-Slot").unwrap_err().hint.as_deref(), Some("\"my_slot\" would be valid."));
    }

    #[test]
    fn a_table_is_in_public_unless_it_says_otherwise() {
        assert_eq!(table("orders"), Ok(("public".to_owned(), "orders".to_owned())));
        assert_eq!(table("shop.Order Items"), Ok(("shop".to_owned(), "Order Items".to_owned())));
        for wrong in ["", ".", "a.", ".b", "a.b.c"] {
            assert!(table(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_star_is_for_choosing_events_and_not_for_naming_them() {
        assert!(event_pattern("order.*").is_ok());
        assert!(event_type("order.*").is_err());
        assert!(event_type("bestellung.geändert").is_ok());
        for wrong in ["", "a b", "a,b", "a\n"] {
            assert!(event_pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn walhooks_schema_holds_no_tables_of_the_application() {
        assert!(own_schema("walhook").is_ok());
        for wrong in ["public", "pg_catalog", "information_schema", ""] {
            assert!(own_schema(wrong).is_err(), "{wrong}");
        }
    }
}
