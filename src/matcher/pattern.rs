//! Patterns of event types: `*` stands for any run of characters, the empty one too.
//!
//! Types that end in `.schema_changed` must be asked for by that word: `*` or `orders.*` means rows, and who has asked for
//! rows shall not one day be sent something else.
//!
//! Notices, too, must be asked for: by their whole type, or by a star behind the word they begin with (`webhook.*`,
//! `delivery.*`, `source.*`). No other star stands for one.

use crate::domain::Notice;

/// How the types end that no star stands for.
const BY_NAME_ONLY: &str = ".schema_changed";

/// Whether `pattern` matches the whole of `text`.
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    fits(pattern, text) && (!text.ends_with(BY_NAME_ONLY) || names_shapes(pattern))
}

/// Whether a pattern asks for a notice.
pub fn names_notice(pattern: &str, notice: Notice) -> bool {
    pattern.starts_with(notice.family()) && fits(pattern, notice.event_type())
}

/// Whether a pattern asks for changes of tables' shapes.
pub(super) fn names_shapes(pattern: &str) -> bool {
    pattern.ends_with(BY_NAME_ONLY)
}

/// Linear: between stars the leftmost fit is taken, and no star is ever looked at twice.
fn fits(pattern: &str, text: &str) -> bool {
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

    #[test]
    fn a_star_does_not_stand_for_the_change_of_a_tables_shape() {
        let check = |pattern: &str, expect: bool| {
            assert_eq!(pattern_matches(pattern, "orders.schema_changed"), expect, "{pattern}");
        };
        for not_asked in
            ["*", "orders.*", "orders.*changed", "*schema_changed", "orders.schema_*", "items.schema_changed"]
        {
            check(not_asked, false);
        }
        for asked in ["orders.schema_changed", "*.schema_changed", "ord*.schema_changed"] {
            check(asked, true);
        }
        assert!(!pattern_matches("*.schema_changed", "orders.updated"));
    }

    #[test]
    fn a_notice_is_asked_for_by_its_type_or_by_the_word_it_begins_with() {
        let check = |pattern: &str, expect: &[&str]| {
            let asked: Vec<_> = Notice::ALL.into_iter().filter(|n| names_notice(pattern, *n)).collect();
            assert_eq!(asked.iter().map(|n| n.event_type()).collect::<Vec<_>>(), expect, "{pattern}");
        };
        for not_asked in ["*", "*.failed", "web*", "webhook*", "*.*", "deliver*.failed", "webhooks.*", ""] {
            check(not_asked, &[]);
        }
        check("webhook.*", &["webhook.failing", "webhook.disabled", "webhook.recovered"]);
        check("webhook.failing", &["webhook.failing"]);
        check("delivery.*", &["delivery.failed"]);
        check("source.*", &["source.lagging", "source.recovered", "source.gap"]);
        check("source.*g*", &["source.lagging", "source.gap"]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_naive_matcher(pattern in "[ab*.]{0,8}", text in "[ab.]{0,10}") {
            prop_assert_eq!(pattern_matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
