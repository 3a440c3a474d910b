//! `Retry-After`, as RFC 9110, section 10.2.3, has it: seconds, or a date in one of the three forms of section
//! 5.6.7. Whatever is neither is as if it were not there.

use std::time::Duration;

use http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// The preferred form, that of RFC 850, that of C's `asctime`. All are UTC.
const FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// The wait that an answer asks for, from `now`; a date gone by is no wait at all.
pub(super) fn wait_asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let at = FORMS.iter().find_map(|form| {
        let time = BrokenDownTime::parse(form, text).ok()?.to_datetime().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: Option<u64>) {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(wait_asked(&headers, now), expect.map(Duration::from_secs), "{value:?}");
    }

    #[test]
    fn seconds_and_all_three_forms_of_dates_are_understood() {
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("99999999999999999999999", Some(u64::from(u32::MAX)));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(37));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(37));
        check("Sun Nov  6 08:49:37 1994", Some(37));
        check("Sun, 06 Nov 1994 08:48:37 GMT", Some(0));
    }

    #[test]
    fn what_is_no_retry_after_asks_for_nothing() {
        for value in ["", "-1", "1.5", "soon", "Sun, 06 Nov 1994", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            check(value, None);
        }
        assert_eq!(wait_asked(&HeaderMap::new(), Timestamp::UNIX_EPOCH), None);
    }
}
