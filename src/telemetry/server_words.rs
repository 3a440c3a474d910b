//! What may be told of an error that a Postgres server reports.
//!
//! A server's message often quotes the value it is about (`invalid input syntax for type integer: "…"`, `Failing row
//! contains (…)`), and a function of the application's can raise what it likes. Rows never reach a log, so only messages of
//! classes are passed on whose errors are about statements, rights and resources; of all others the code and its standard
//! name (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use std::error::Error;

use tokio_postgres::error::DbError;

/// Classes of SQLSTATE whose messages never quote a value.
const PLAIN: [&str; 23] = [
    "00", "01", "02", "03", "08", "0A", "0B", "0L", "0P", "25", "26", "28", "2B", "2D", "34", "3B", "3D",
    "3F", "40", "42", "53", "55", "57",
];
/// The same: the server's own troubles.
const PLAIN_TROUBLES: [&str; 4] = ["54", "58", "F0", "XX"];

const NAMES: [(&str, &str); 38] = [
    ("22001", "string_data_right_truncation"),
    ("22003", "numeric_value_out_of_range"),
    ("22004", "null_value_not_allowed"),
    ("22007", "invalid_datetime_format"),
    ("22008", "datetime_field_overflow"),
    ("2200L", "not_an_xml_document"),
    ("2200M", "invalid_xml_document"),
    ("2200N", "invalid_xml_content"),
    ("22011", "substring_error"),
    ("22012", "division_by_zero"),
    ("22015", "interval_field_overflow"),
    ("22018", "invalid_character_value_for_cast"),
    ("2201B", "invalid_regular_expression"),
    ("22021", "character_not_in_repertoire"),
    ("22023", "invalid_parameter_value"),
    ("22025", "invalid_escape_sequence"),
    ("22026", "string_data_length_mismatch"),
    ("2202E", "array_subscript_error"),
    ("22030", "duplicate_json_object_key_value"),
    ("22032", "invalid_json_text"),
    ("22033", "invalid_sql_json_subscript"),
    ("22P01", "floating_point_exception"),
    ("22P02", "invalid_text_representation"),
    ("22P03", "invalid_binary_representation"),
    ("22P05", "untranslatable_character"),
    ("23502", "not_null_violation"),
    ("23503", "foreign_key_violation"),
    ("23505", "unique_violation"),
    ("23514", "check_violation"),
    ("23P01", "exclusion_violation"),
    ("P0001", "raise_exception"),
    ("P0002", "no_data_found"),
    ("P0003", "too_many_rows"),
    ("P0004", "assert_failure"),
    ("25006", "read_only_sql_transaction"),
    ("42501", "insufficient_privilege"),
    ("42P01", "undefined_table"),
    ("57014", "query_canceled"),
];

const CLASSES: [(&str, &str); 13] = [
    ("08", "connection exception"),
    ("22", "data exception"),
    ("23", "integrity constraint violation"),
    ("2F", "SQL routine exception"),
    ("38", "external routine exception"),
    ("39", "external routine invocation exception"),
    ("40", "transaction rollback"),
    ("42", "syntax error or access rule violation"),
    ("53", "insufficient resources"),
    ("54", "program limit exceeded"),
    ("57", "operator intervention"),
    ("P0", "PL/pgSQL error"),
    ("XX", "internal error"),
];

/// Whether an error with this code may quote values of rows.
pub fn may_quote_rows(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    !PLAIN.contains(&class) && !PLAIN_TROUBLES.contains(&class)
}

/// The standard's name of a code, or of its class.
pub fn name_of(code: &str) -> &'static str {
    let named = NAMES.iter().find(|(known, _)| *known == code);
    let of_class = || CLASSES.iter().find(|(class, _)| code.starts_with(class));
    named.or_else(of_class).map_or("an error of the application's own", |(_, name)| *name)
}

/// The message of an error, or the name of its code where the message may quote rows.
pub fn server_words<'m>(code: &str, message: &'m str) -> &'m str {
    if may_quote_rows(code) { name_of(code) } else { message }
}

/// What a cause says in a log: its own words, but for a server's, of which only what may be told.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let of_server = error.downcast_ref::<DbError>();
    let from_server =
        error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::as_db_error);
    match of_server.or(from_server) {
        Some(db) if may_quote_rows(db.code().code()) => {
            format!("{}: {} (SQLSTATE {})", db.severity(), name_of(db.code().code()), db.code().code())
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_message_is_passed_on_only_where_it_cannot_quote_a_row() {
        let check = |code: &str, expect: &str| assert_eq!(server_words(code, "said"), expect, "{code}");
        check("42703", "said");
        check("57014", "said");
        check("53100", "said");
        check("22P02", "invalid_text_representation");
        check("22ZZZ", "data exception");
        check("23505", "unique_violation");
        check("P0001", "raise_exception");
        check("38001", "external routine exception");
        check("MY001", "an error of the application's own");
        check("", "an error of the application's own");
    }
}
