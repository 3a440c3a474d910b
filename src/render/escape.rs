//! How text is written into a template's output, by the template's content type.

use std::fmt::Write;

/// What a printed value must not break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Inside a JSON string.
    Json,
    /// XML text and attributes.
    Xml,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// Nothing: plain text.
    None,
}

impl Escape {
    /// By media type; parameters after `;` do not count.
    pub(super) fn of(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media == "application/json" || media.ends_with("+json") {
            Self::Json
        } else if media == "application/xml"
            || media == "text/xml"
            || media.ends_with("+xml")
            || media == "text/html"
        {
            Self::Xml
        } else if media == "application/x-www-form-urlencoded" {
            Self::Form
        } else {
            Self::None
        }
    }

    pub(super) fn apply(self, text: &str) -> String {
        match self {
            Self::Json => json(text),
            Self::Xml => xml(text),
            Self::Form => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            Self::None => text.to_owned(),
        }
    }
}

fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail"),
            c => out.push(c),
        }
    }
    out
}

/// XML text that survives a parser: line ends stay what they are, in attributes too.
pub(super) fn xml_exact(text: &str) -> String {
    xml(text).replace('\r', "&#13;").replace('\n', "&#10;").replace('\t', "&#9;")
}

pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // XML 1.0 has no form for these, not even escaped.
            c if c < ' ' && !matches!(c, '\n' | '\r' | '\t') => out.push('\u{FFFD}'),
            '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// Appends a JSON string, quotes included.
pub(super) fn json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(json(text).as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides_how_values_are_escaped() {
        let check = |content_type: &str, expect: &str| {
            assert_eq!(Escape::of(content_type).apply("a \"<&\n\u{1}"), expect, "{content_type}");
        };
        check("application/json; charset=utf-8", "a \\\"<&\\n\\u0001");
        check("application/cloudevents+json", "a \\\"<&\\n\\u0001");
        check("Text/XML", "a &quot;&lt;&amp;\n\u{FFFD}");
        check("application/x-www-form-urlencoded", "a+%22%3C%26%0A%01");
        check("text/plain", "a \"<&\n\u{1}");
    }
}
