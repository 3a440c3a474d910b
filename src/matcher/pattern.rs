//! Patterns of event types: `*` stands for any run of characters, the empty one too.

/// Whether `pattern` matches the whole of `text`. Linear: between stars the leftmost fit is taken, and no star is
/// ever looked at twice.
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(tail)
}

/// The part before the operation: `order` of `order.updated` and of `order.*`.
pub(super) fn head(pattern: &str) -> &str {
    pattern.rsplit_once('.').map_or(pattern, |(head, _)| head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            (Some((p, rest)), Some((t, after))) => p == t && naive(rest, after),
            _ => false,
        }
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let check = |pattern: &str, text: &str, expect: bool| {
            assert_eq!(pattern_matches(pattern, text), expect, "{pattern} on {text}");
        };
        check("order.*", "order.updated", true);
        check("order.*", "orders.updated", false);
        check("*", "", true);
        check("*.deleted", "audit.log.deleted", true);
        check("a*a", "a", false);
        check("a*b*b", "ab", false);
        check("order.updated", "order.updated", true);
        check("", "x", false);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_naive_matcher(pattern in "[ab*.]{0,8}", text in "[ab.]{0,10}") {
            prop_assert_eq!(pattern_matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
