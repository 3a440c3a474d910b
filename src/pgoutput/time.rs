//! Timestamps: from `2026-11-21 20:21:29.5+00` to `2026-11-21T20:21:29.5Z`.
//!
//! Only what ISO 8601 can say in four digits of year is rewritten; the rest of what Postgres can store keeps its text.

/// Whether a timestamp carries the zone of the session, which is UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    None,
    Utc,
}

/// The ISO 8601 form, in its two parts and its suffix; `None` where the text has another shape.
pub(super) fn to_iso(text: &str, zone: Zone) -> Option<(&str, &str, &'static str)> {
    let (date, clock) = text.split_once(' ')?;
    let (clock, suffix) = match zone {
        Zone::None => (clock, ""),
        Zone::Utc => (clock.strip_suffix("+00")?, "Z"),
    };
    let (whole, fraction) = clock.split_once('.').map_or((clock, None), |(whole, f)| (whole, Some(f)));
    let fraction_fits =
        fraction.is_none_or(|f| (1..=6).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit()));
    let fits = has_shape(date, b"0000-00-00") && has_shape(whole, b"00:00:00") && fraction_fits;
    fits.then_some((date, clock, suffix))
}

/// Whether the text is one of those that have no such form: infinite, before our era, or past the year 9999.
pub(super) fn is_beyond_iso(text: &str) -> bool {
    let far_future = || {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        digits > 4 && text.as_bytes().get(digits) == Some(&b'-')
    };
    matches!(text, "infinity" | "-infinity") || text.ends_with(" BC") || far_future()
}

/// Whether text and shape agree, a `0` standing for any digit.
fn has_shape(text: &str, shape: &[u8]) -> bool {
    let fits =
        |(byte, wanted): (u8, &u8)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == *wanted };
    text.len() == shape.len() && text.bytes().zip(shape).all(fits)
}
