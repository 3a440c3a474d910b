//! The TLS options of a connection string, taken out of it.
//!
//! Both forms are read as libpq's manual defines them ("Connection Strings", 34.1.1): `postgres://…?key=value&…` with
//! percent-encoding, and `key = 'value'` with backslash escapes. What is left goes to `tokio_postgres` unchanged in
//! meaning.

use super::ServerError;

/// Options that `tokio_postgres` does not know and that are read here.
const OURS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "gssencmode"];

/// A connection string without our options, and those.
#[derive(Debug)]
pub(super) struct Split {
    /// What is left.
    pub(super) rest: String,
    /// Ours, by name, decoded.
    pub(super) ours: Vec<(&'static str, String)>,
}

/// Takes our options out.
pub(super) fn split(text: &str) -> Result<Split, ServerError> {
    let text = text.trim();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        split_url(text)
    } else {
        split_words(text)
    }
}

fn ours(key: &str) -> Option<&'static str> {
    OURS.into_iter().find(|name| *name == key)
}

fn split_url(text: &str) -> Result<Split, ServerError> {
    let Some((base, query)) = text.split_once('?') else {
        return Ok(Split { rest: text.to_owned(), ours: Vec::new() });
    };
    let mut taken = Vec::new();
    let mut left = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match ours(key) {
            Some(name) => taken.push((name, percent_decoded(value)?)),
            None => left.push(pair),
        }
    }
    let rest = if left.is_empty() { base.to_owned() } else { format!("{base}?{}", left.join("&")) };
    Ok(Split { rest, ours: taken })
}

fn percent_decoded(text: &str) -> Result<String, ServerError> {
    let bad = || ServerError::Unreadable { problem: "a percent-encoding is broken".to_owned() };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
            let (high, low) = digit().zip(digit()).ok_or_else(bad)?;
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn split_words(text: &str) -> Result<Split, ServerError> {
    let mut taken = Vec::new();
    let mut rest = String::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(Split { rest, ours: taken });
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(ServerError::Unreadable { problem: "an option has no value".to_owned() });
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let value = word(&mut chars)?;
        if let Some(name) = ours(&key) {
            taken.push((name, value));
        } else {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            rest.extend([&key, "='", &quoted, "' "]);
        }
    }
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, ServerError> {
    let unended = || ServerError::Unreadable { problem: "a quoted value has no end".to_owned() };
    let quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match chars.next() {
            Some('\'') if quoted => return Ok(value),
            Some('\\') => value.push(chars.next().ok_or_else(unended)?),
            Some(c) if !quoted && c.is_whitespace() => return Ok(value),
            Some(c) => value.push(c),
            None if quoted => return Err(unended()),
            None => return Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_options_are_taken_out_of_either_form() {
        let check = |text: &str, rest: &str, expect: &[(&str, &str)]| {
            let split = split(text).unwrap();
            assert_eq!(split.rest.trim_end(), rest, "{text}");
            let ours: Vec<_> = split.ours.iter().map(|(k, v)| (*k, v.as_str())).collect();
            assert_eq!(ours, expect, "{text}");
        };
        check("postgres://u:p@h/d", "postgres://u:p@h/d", &[]);
        check(
            "postgres://u@h/d?sslmode=verify-full&application_name=x&sslrootcert=%2Fa%20b",
            "postgres://u@h/d?application_name=x",
            &[("sslmode", "verify-full"), ("sslrootcert", "/a b")],
        );
        check(
            r"host = /tmp/x user='o\'b' sslrootcert='/a b'",
            r"host='/tmp/x' user='o\'b'",
            &[("sslrootcert", "/a b")],
        );
    }

    #[test]
    fn broken_strings_are_refused_without_being_shown() {
        for text in ["postgres://u:secret@h/d?sslkey=%2", "host=h password='secret", "host secret"] {
            let error = split(text).unwrap_err();
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("secret"));
        }
    }
}
