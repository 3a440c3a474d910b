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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_date_in_any_of_the_three_forms_is_the_wait_until_then(
            now in 0_i64..4_000_000_000, wait in 0_i64..100_000_000, form in 0_usize..3,
        ) {
            let at = Timestamp::from_second(now + wait).unwrap().to_zoned(TimeZone::UTC);
            // Two digits of year are this century's or the last one's.
            prop_assume!(form != 1 || (1970..2069).contains(&at.year()));
            let text = jiff::fmt::strtime::format(FORMS[form], &at).unwrap();
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            let asked = wait_asked(&headers, Timestamp::from_second(now).unwrap());
            prop_assert_eq!(asked, Some(Duration::from_secs(wait.unsigned_abs())), "{}", text);
        }

        #[test]
        fn any_bytes_ask_for_a_wait_or_for_nothing(bytes: Vec<u8>, digits in "[0-9]{1,30}") {
            if let Ok(value) = http::HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value)]);
                let asked = wait_asked(&headers, Timestamp::UNIX_EPOCH);
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                prop_assert!(asked.is_none() || bytes.iter().any(is_digit), "{:?}", bytes);
            }
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, digits.parse().unwrap())]);
            let expected = digits.parse().unwrap_or(u64::from(u32::MAX));
            let asked = wait_asked(&headers, Timestamp::UNIX_EPOCH);
            prop_assert_eq!(asked, Some(Duration::from_secs(expected)));
        }
    }
}
