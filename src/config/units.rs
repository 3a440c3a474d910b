//! Durations (`"1h30m"`) and sizes (`"64KiB"`): from text, and back for messages.

use std::time::Duration;

use super::problem::Fault;

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Parses one or more of a whole number and a unit of `ms`, `s`, `m`, `h`, `d`, which add up.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let refused = || {
        Fault::new(format!("expected a duration, found \"{text}\"")).detail(
            "A duration is whole numbers with units: \"250ms\", \"5s\", \"1m\", \"2h\", \"7d\", \"1h30m\".",
        )
    };
    let (mut rest, mut total) = (text.trim(), 0_u64);
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let (number, after) = leading(rest, |c| c.is_ascii_digit());
        let (unit, after) = leading(after, |c| c.is_ascii_alphabetic());
        let scale = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let part = number.parse::<u64>().ok().zip(scale).and_then(|(count, scale)| count.checked_mul(scale));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(refused)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Parses a whole number of bytes with a unit: `B`, `KiB`, `MiB`, `GiB` (powers of 1024), `KB`, `MB`, `GB` (of 1000).
pub(super) fn size(text: &str) -> Result<usize, Fault> {
    let (number, unit) = leading(text.trim(), |c| c.is_ascii_digit());
    // Nothing is nothing in every unit.
    let unit = if (number, unit) == ("0", "") { "B" } else { unit.trim_start() };
    let scale = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let bytes = number.parse::<usize>().ok().zip(scale).and_then(|(count, scale)| count.checked_mul(scale));
    bytes.ok_or_else(|| {
        Fault::new(format!("expected a size, found \"{text}\""))
            .detail("A size is a whole number with a unit: \"512B\", \"64KiB\", \"1MiB\", \"64KB\", \"1MB\".")
    })
}

/// A duration as it would be written.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, scale) in DURATIONS {
        parts.extend((rest >= scale).then(|| format!("{}{unit}", rest / scale)));
        rest %= scale;
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// A size as it would be written.
pub(super) fn show_size(bytes: usize) -> String {
    let binary = SIZES.iter().take(3).find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    binary.map_or_else(|| format!("{bytes}B"), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// Splits off the longest start of `text` whose characters all pass.
fn leading(text: &str, passes: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !passes(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units_that_add_up() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        };
        check("250ms", Some(250));
        check("5s", Some(5000));
        check("1m", Some(60_000));
        check("1h30m", Some(5_400_000));
        check("7d", Some(604_800_000));
        check(" 0s ", Some(0));
        for wrong in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5 s",
            "5S",
            "1y",
            "99999999999999999999s",
            "9999999999999999d",
            "5s,",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn sizes_are_a_number_with_a_unit() {
        let check = |text: &str, bytes: Option<usize>| assert_eq!(size(text).ok(), bytes, "{text}");
        check("512B", Some(512));
        check("64KiB", Some(65_536));
        check("1 MiB", Some(1 << 20));
        check("64KB", Some(64_000));
        check("0", Some(0));
        for wrong in ["", "64", "KiB", "-1B", "1.5MiB", "64kib", "64K", "99999999999999GiB"] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for millis in [0, 1, 250, 5000, 90_000, 5_400_000, 604_800_000, 86_400_001] {
            let span = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(span)), Ok(span));
        }
        for bytes in [0, 1, 1000, 1024, 65_536, 3 << 20, (1 << 20) + 1] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(show_size(65_536), "64KiB");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_it_was(millis in 0_u64..1 << 50, bytes in 0_usize..1 << 50) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(span)).ok(), Some(span));
            prop_assert_eq!(size(&show_size(bytes)).ok(), Some(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{0,3}(ms|[smhdKMGiB ]{0,3})[0-9a-z]{0,3}|.*") {
            if let Ok(span) = duration(&text) {
                prop_assert_eq!(duration(&show_duration(span)).ok(), Some(span));
            }
            if let Ok(bytes) = size(&text) {
                prop_assert_eq!(size(&show_size(bytes)).ok(), Some(bytes));
            }
        }
    }
}
