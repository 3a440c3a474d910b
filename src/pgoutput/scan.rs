//! Whether a text is JSON (RFC 8259), without reading anything into it.
//!
//! `json` and `jsonb` columns go out as they are, so they must be known to be whole: a lone surrogate in an escape, a key
//! that comes twice and a number beyond any double are all valid syntax and pass. Recursion is none, depth bounded.

/// The deepest nesting that the scanner can follow.
const DEPTH_POSSIBLE: usize = 128;

/// Whether `text` is exactly one JSON value, with space around it or not, nested at most `depth` levels.
pub(super) fn is_json(text: &str, depth: usize) -> bool {
    let mut scan = Scan { bytes: text.as_bytes() };
    scan.document(depth.min(DEPTH_POSSIBLE)).is_some()
}

/// Whether `text` is exactly one JSON number.
pub(super) fn is_number(text: &[u8]) -> bool {
    let mut scan = Scan { bytes: text };
    scan.number().is_some() && scan.bytes.is_empty()
}

/// What is left of the text. Every step answers `None` where the text is not JSON.
struct Scan<'a> {
    bytes: &'a [u8],
}

/// The open objects and arrays, innermost in the lowest bit: set for an object.
struct Open {
    objects: u128,
    depth: usize,
}

impl Scan<'_> {
    fn document(&mut self, limit: usize) -> Option<()> {
        let mut open = Open { objects: 0, depth: 0 };
        loop {
            if self.value_or_opening(&mut open, limit)? && self.after_value(&mut open)? {
                return Some(());
            }
        }
    }

    /// A whole scalar or empty container (`true`), or the opening of one with something in it (`false`).
    fn value_or_opening(&mut self, open: &mut Open, limit: usize) -> Option<bool> {
        self.space();
        match self.bytes.first()? {
            bracket @ (b'{' | b'[') => {
                if open.depth == limit {
                    return None;
                }
                let is_object = *bracket == b'{';
                self.step();
                self.space();
                if self.eat(if is_object { b'}' } else { b']' }) {
                    return Some(true);
                }
                open.objects = (open.objects << 1) | u128::from(is_object);
                open.depth += 1;
                if is_object {
                    self.key()?;
                }
                return Some(false);
            }
            b'"' => self.string()?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        Some(true)
    }

    /// What may follow a value: the end (`true`), or a comma and whatever that asks for (`false`).
    fn after_value(&mut self, open: &mut Open) -> Option<bool> {
        loop {
            self.space();
            if open.depth == 0 {
                return self.bytes.is_empty().then_some(true);
            }
            let in_object = open.objects & 1 == 1;
            if self.eat(b',') {
                if in_object {
                    self.key()?;
                }
                return Some(false);
            }
            if !self.eat(if in_object { b'}' } else { b']' }) {
                return None;
            }
            open.objects >>= 1;
            open.depth -= 1;
        }
    }

    fn key(&mut self) -> Option<()> {
        self.space();
        self.string()?;
        self.space();
        self.eat(b':').then_some(())
    }

    fn string(&mut self) -> Option<()> {
        if !self.eat(b'"') {
            return None;
        }
        loop {
            let plain = self.bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))?;
            let (stop, rest) = self.bytes.get(plain..)?.split_first()?;
            self.bytes = rest;
            match stop {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let (kind, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let (digits, rest) = self.bytes.split_first_chunk::<4>()?;
                self.bytes = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        self.bytes = self.bytes.get(count..)?;
        (count > 0).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes = self.bytes.strip_prefix(word)?;
        Some(())
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.bytes {
            self.bytes = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.first() == Some(&byte);
        if found {
            self.step();
        }
        found
    }

    fn step(&mut self) {
        self.bytes = self.bytes.get(1..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_the_rfc_says() {
        for text in [
            "0",
            "-0",
            "1.5e-7",
            "1E400",
            "true",
            "false",
            "null",
            "\"\"",
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "[[],{}]",
            r#"{"a":{"b":[1,{"c":null}]},"a":2}"#,
            r#""\ud800""#,
            r#""\u0000\/\n\"""#,
            "\t\n\r{\"é\" : \"🦀\"}\n",
        ] {
            assert!(is_json(text, 64), "{text}");
        }
        for text in [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "tru",
            "nullx",
            "'a'",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "{,}",
            "1 2",
            "[] []",
            "NaN",
            "[1]]",
            "\u{a0}1",
        ] {
            assert!(!is_json(text, 64), "{text}");
        }
    }

    #[test]
    fn nesting_is_counted_and_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (depth, limit, fits) in [
            (1, 0, false),
            (1, 1, true),
            (64, 64, true),
            (65, 64, false),
            (128, 500, true),
            (129, 500, false),
        ] {
            assert_eq!(is_json(&nested(depth), limit), fits, "{depth} in {limit}");
        }
        assert!(is_json("1", 0));
        assert!(!is_json(&"[".repeat(1_000_000), 64));
    }
}
