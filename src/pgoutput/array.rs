//! Arrays in Postgres text form (manual, "Array Input and Output Syntax"): `{1,NULL,"a \"b\""}`, `[0:1]={7,8}`,
//! `{{1,2},{3,4}}`.
//!
//! [`ArrayTokens`] reads such a text piece by piece, without recursion; writing JSON from it is one use. The bounds
//! before `=` are passed over: JSON has no place for them.

use std::borrow::Cow;

use super::Written;
use super::json::write_value;
use crate::domain::{ValueKind, limits};

/// A piece of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArrayToken<'a> {
    /// An array starts, in another or by itself.
    Open,
    /// The innermost array ends.
    Close,
    /// An element that is null.
    Null,
    /// The text of an element, its quoting undone.
    Element(Cow<'a, [u8]>),
}

/// Text that is no array, or one nested more than `limits::VALUE_DEPTH` levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the text of an array")]
pub struct MalformedArray;

/// The pieces of an array, in order. Ends after the outermost [`ArrayToken::Close`], or after an error.
#[derive(Debug)]
pub struct ArrayTokens<'a> {
    rest: &'a [u8],
    delimiter: u8,
    depth: usize,
    limit: usize,
    next: Next,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Start,
    ValueOrClose,
    Value,
    DelimiterOrClose,
    Nothing,
}

impl<'a> ArrayTokens<'a> {
    /// Reads `text`, in which `delimiter` stands between elements: `,` for every type but `box`, which has `;`.
    pub fn new(text: &'a [u8], delimiter: u8) -> Self {
        Self { rest: text, delimiter, depth: 0, limit: limits::VALUE_DEPTH, next: Next::Start }
    }

    fn token(&mut self) -> Option<ArrayToken<'a>> {
        match self.next {
            Next::Start => self.bounds()?,
            Next::DelimiterOrClose => {
                let (byte, rest) = self.rest.split_first()?;
                if *byte == b'}' {
                    return self.close();
                }
                self.rest = rest;
                self.next = Next::Value;
                if *byte != self.delimiter {
                    return None;
                }
            }
            Next::ValueOrClose | Next::Value | Next::Nothing => {}
        }
        match self.rest.first()? {
            b'{' => self.open(),
            b'}' if self.next == Next::ValueOrClose => self.close(),
            _ if self.next == Next::Start => None,
            b'"' => self.quoted(),
            _ => self.plain(),
        }
    }

    /// Passes over `[1:2][0:3]=`.
    fn bounds(&mut self) -> Option<()> {
        if self.rest.first() == Some(&b'[') {
            let end = self.rest.iter().position(|byte| *byte == b'=')?;
            let (bounds, rest) = self.rest.split_at_checked(end)?;
            if !bounds.iter().all(|byte| matches!(byte, b'[' | b']' | b':' | b'-' | b'+' | b'0'..=b'9')) {
                return None;
            }
            self.rest = rest.get(1..)?;
        }
        Some(())
    }

    fn open(&mut self) -> Option<ArrayToken<'a>> {
        if self.depth == self.limit {
            return None;
        }
        self.rest = self.rest.get(1..)?;
        self.depth += 1;
        self.next = Next::ValueOrClose;
        Some(ArrayToken::Open)
    }

    fn close(&mut self) -> Option<ArrayToken<'a>> {
        self.rest = self.rest.get(1..)?;
        self.depth -= 1;
        self.next = if self.depth > 0 { Next::DelimiterOrClose } else { Next::Nothing };
        // Nothing may follow the outermost end.
        (self.depth > 0 || self.rest.is_empty()).then_some(ArrayToken::Close)
    }

    fn plain(&mut self) -> Option<ArrayToken<'a>> {
        let ends = |byte: &u8| *byte == self.delimiter || matches!(byte, b'{' | b'}' | b'"' | b'\\');
        let end = self.rest.iter().position(ends)?;
        let (element, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        self.next = Next::DelimiterOrClose;
        if element.is_empty() {
            return None;
        }
        let is_null = element.eq_ignore_ascii_case(b"null");
        Some(if is_null { ArrayToken::Null } else { ArrayToken::Element(Cow::Borrowed(element)) })
    }

    fn quoted(&mut self) -> Option<ArrayToken<'a>> {
        self.rest = self.rest.get(1..)?;
        self.next = Next::DelimiterOrClose;
        let mut element = Cow::Borrowed(&[][..]);
        loop {
            let end = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            let (part, rest) = self.rest.split_at_checked(end)?;
            if element.is_empty() {
                element = Cow::Borrowed(part);
            } else {
                element.to_mut().extend_from_slice(part);
            }
            if let [b'\\', escaped, rest @ ..] = rest {
                element.to_mut().push(*escaped);
                self.rest = rest;
            } else {
                self.rest = rest.strip_prefix(b"\"")?;
                return Some(ArrayToken::Element(element));
            }
        }
    }
}

impl<'a> Iterator for ArrayTokens<'a> {
    type Item = Result<ArrayToken<'a>, MalformedArray>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == Next::Nothing {
            return None;
        }
        let token = self.token().ok_or(MalformedArray);
        if token.is_err() {
            self.next = Next::Nothing;
        }
        Some(token)
    }
}

/// Appends a JSON array nested at most `depth` levels; `None`, and nothing appended, where the text is no such array.
pub(super) fn write_array(
    element: &ValueKind,
    delimiter: u8,
    text: &[u8],
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<Written> {
    let start = out.len();
    let mut written = Written::Value;
    let mut follows = false;
    let mut tokens = ArrayTokens { limit: depth, ..ArrayTokens::new(text, delimiter) };
    while let Some(token) = tokens.next() {
        let Ok(token) = token else {
            out.truncate(start);
            return None;
        };
        if follows && token != ArrayToken::Close {
            out.push(b',');
        }
        follows = token != ArrayToken::Open;
        match token {
            ArrayToken::Open => out.push(b'['),
            ArrayToken::Close => out.push(b']'),
            ArrayToken::Null => out.extend_from_slice(b"null"),
            ArrayToken::Element(text) => {
                let left = depth.saturating_sub(tokens.depth);
                written = written.and(write_value(element, &text, left, out));
            }
        }
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_reads_piece_by_piece() {
        use ArrayToken::{Close, Element, Null, Open};
        let text = |text: &'static str| Element(Cow::Borrowed(text.as_bytes()));
        let tokens: Result<Vec<_>, _> =
            ArrayTokens::new(br#"[2:3]={{a,NULL},{"NULL","x\"\\y"}}"#, b',').collect();
        let expected =
            vec![Open, Open, text("a"), Null, Close, Open, text("NULL"), text("x\"\\y"), Close, Close];
        assert_eq!(tokens, Ok(expected));
    }

    #[test]
    fn what_is_no_array_ends_in_one_error() {
        for text in [
            "", "{", "}", "{}}", "{}x", "{,}", "{1,}", "{,1}", "{1,,2}", "x", "[0:1]={1", "[a]={1}",
            "[0:1]{1}", "[0:1]=", "{\"a}", "{\"a\\", "{\"a\"b}", "{a\"b\"}", "{a\\b}", "{1 {2}}", "{{1}2}",
        ] {
            let tokens: Vec<_> = ArrayTokens::new(text.as_bytes(), b',').collect();
            assert_eq!(tokens.last(), Some(&Err(MalformedArray)), "{text}");
            assert_eq!(tokens.iter().filter(|token| token.is_err()).count(), 1, "{text}");
        }
    }
}
