//! Timestamps and durations in conditions.
//!
//! CEL's `timestamp` and `duration` on top of `jiff`: they compare, subtract and add as the language's specification
//! says (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#datetime-functions>). A timestamp without a zone
//! is read as UTC; `getMonth` and `getDayOfWeek` count from 0 as the specification has it.

use std::any::Any;
use std::cmp::Ordering;

use cel::common::traits::{Adder, Comparer, Subtractor};
use cel::common::types::{CelInt, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

static MOMENT: Type = Type::new_unspecified_type("google.protobuf.Timestamp");
static SPAN: Type = Type::new_unspecified_type("google.protobuf.Duration");

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment(pub(super) Timestamp);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span(SignedDuration);

/// Reads ISO 8601 and Postgres' text; nothing for `infinity`, BC and years beyond 9999.
pub(super) fn parse_moment(text: &str) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse() {
        return Some(timestamp);
    }
    let civil: DateTime = text.parse().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn wrong(lhs: &dyn Val, rhs: &dyn Val) -> ExecutionError {
    let types = vec![lhs.get_type().name().to_owned(), rhs.get_type().name().to_owned()];
    ExecutionError::no_such_overload("time", types)
}

fn beyond() -> ExecutionError {
    ExecutionError::function_error("time", "the result is beyond what a timestamp can hold")
}

macro_rules! value {
    ($name:ident, $type:ident) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                &$type
            }
            fn cel_type() -> &'static Type {
                &$type
            }
            fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }
            fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }
            fn as_comparer(&self) -> Option<&dyn Comparer> {
                Some(self)
            }
            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }
            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                Box::new(*self)
            }
            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }
        impl StaticVal for $name {}
        impl Comparer for $name {
            fn compare(&self, rhs: &dyn Val) -> Result<Ordering, ExecutionError> {
                let other = rhs.downcast_ref::<Self>().ok_or_else(|| wrong(self, rhs))?;
                Ok(self.0.cmp(&other.0))
            }
        }
    };
}
value!(Moment, MOMENT);
value!(Span, SPAN);

impl Adder for Moment {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let span = rhs.downcast_ref::<Span>().ok_or_else(|| wrong(self, rhs))?;
        self.0.checked_add(span.0).map(|sum| CowVal::owned(Self(sum))).map_err(|_| beyond())
    }
}

impl Adder for Span {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(moment) = rhs.downcast_ref::<Moment>() {
            return moment.0.checked_add(self.0).map(|sum| CowVal::owned(Moment(sum))).map_err(|_| beyond());
        }
        let span = rhs.downcast_ref::<Self>().ok_or_else(|| wrong(self, rhs))?;
        self.0.checked_add(span.0).map(|sum| CowVal::owned(Self(sum))).ok_or_else(beyond)
    }
}

impl Subtractor for Moment {
    fn sub<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(earlier) = rhs.downcast_ref::<Self>() {
            return Ok(CowVal::owned(Span(self.0.duration_since(earlier.0))));
        }
        let span = rhs.downcast_ref::<Span>().ok_or_else(|| wrong(self, rhs))?;
        self.0.checked_sub(span.0).map(|rest| CowVal::owned(Self(rest))).map_err(|_| beyond())
    }
}

impl Subtractor for Span {
    fn sub<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let span = rhs.downcast_ref::<Self>().ok_or_else(|| wrong(self, rhs))?;
        self.0.checked_sub(span.0).map(|rest| CowVal::owned(Self(rest))).ok_or_else(beyond)
    }
}

fn moment_from_text(text: &CelString<'_>) -> Result<Moment, ExecutionError> {
    let parsed = parse_moment(text.inner()).map(Moment);
    parsed.ok_or_else(|| ExecutionError::function_error("timestamp", "the text is no timestamp"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "add_overload! hands arguments over by reference")]
fn moment_from_seconds(seconds: &CelInt) -> Result<Moment, ExecutionError> {
    Timestamp::from_second(*seconds.inner()).map(Moment).map_err(|_| beyond())
}

fn moment_from_moment(moment: &Moment) -> Moment {
    *moment
}

fn seconds_from_moment(moment: &Moment) -> CelInt {
    CelInt::from(moment.0.as_second())
}

fn text_from_moment(moment: &Moment) -> CelString<'static> {
    CelString::from(moment.0.to_string())
}

fn span_from_text(text: &CelString<'_>) -> Result<Span, ExecutionError> {
    let parsed = text.inner().parse().map(Span);
    parsed.map_err(|_| ExecutionError::function_error("duration", "the text is no duration"))
}

fn span_from_span(span: &Span) -> Span {
    *span
}

fn utc(moment: &Moment) -> Zoned {
    moment.0.to_zoned(TimeZone::UTC)
}

fn year(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).year()))
}

fn month(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).month()) - 1)
}

fn date(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).day()))
}

fn weekday(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).weekday().since(Weekday::Sunday)))
}

fn hours(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).hour()))
}

fn minutes(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).minute()))
}

fn seconds(moment: &Moment) -> CelInt {
    CelInt::from(i64::from(utc(moment).second()))
}

/// Adds the functions to the language.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    add_overload!(env, fn moment_from_text: (CelString) -> Result<Moment>, name = "timestamp", id = "ts_text")?;
    add_overload!(env, fn moment_from_seconds: (CelInt) -> Result<Moment>, name = "timestamp", id = "ts_int")?;
    add_overload!(env, fn moment_from_moment: (Moment) -> Moment, name = "timestamp", id = "ts_ts")?;
    add_overload!(env, fn seconds_from_moment: (Moment) -> CelInt, name = "int", id = "int_ts")?;
    add_overload!(env, fn text_from_moment: (Moment) -> CelString, name = "string", id = "string_ts")?;
    add_overload!(env, fn span_from_text: (CelString) -> Result<Span>, name = "duration", id = "dur_text")?;
    add_overload!(env, fn span_from_span: (Span) -> Span, name = "duration", id = "dur_dur")?;
    add_member_overload!(env, fn year: (Moment) -> CelInt, name = "getFullYear")?;
    add_member_overload!(env, fn month: (Moment) -> CelInt, name = "getMonth")?;
    add_member_overload!(env, fn date: (Moment) -> CelInt, name = "getDate")?;
    add_member_overload!(env, fn weekday: (Moment) -> CelInt, name = "getDayOfWeek")?;
    add_member_overload!(env, fn hours: (Moment) -> CelInt, name = "getHours")?;
    add_member_overload!(env, fn minutes: (Moment) -> CelInt, name = "getMinutes")?;
    add_member_overload!(env, fn seconds: (Moment) -> CelInt, name = "getSeconds")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_timestamp_reads_alike_in_postgres_text_and_in_iso_8601(micros in -62_135_596_800_000_000..=253_370_764_799_999_999_i64) {
            let moment = Timestamp::from_microsecond(micros).unwrap();
            let iso = moment.to_string();
            let postgres = iso.replace('T', " ").replace('Z', "+00");
            for text in [&iso, &postgres, &iso.replace('Z', ""), &postgres.replace("+00", "")] {
                prop_assert_eq!(parse_moment(text), Some(moment), "{}", text);
            }
        }

        #[test]
        fn any_text_is_a_moment_or_none(text in "[0-9TZ:. +-]{0,40}|.*") {
            if let Some(moment) = parse_moment(&text) {
                prop_assert_eq!(parse_moment(&moment.to_string()), Some(moment));
            }
        }
    }
}
