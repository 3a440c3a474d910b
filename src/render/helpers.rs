//! What templates can call, beside handlebars' own `if`, `unless`, `each`, `with`, `lookup`, `eq`, `ne`, `gt`, `gte`, `lt`,
//! `lte`, `and`, `or`, `not`, `len`, `raw`.
//!
//! | helper | makes |
//! | --- | --- |
//! | `json x` | `x` as JSON, as it stands |
//! | `default x y …` | the first that is there and not null |
//! | `upper x`, `lower x`, `trim x` | text |
//! | `replace x from to`, `concat x y …` | text |
//! | `truncate x n` | at most `n` characters, the last a `…` where some were cut (`end="…"`) |
//! | `date x format` | a timestamp by `strftime`, in UTC or `tz="Europe/Berlin"` |
//! | `urlencode x`, `base64 x` | text |
//! | `html x` | text that HTML shows as it is: in a page, an e-mail, an attribute in quotes |
//! | `slack x` | text that Slack shows as it is: `&`, `<` and `>` as entities |
//!
//! Errors name helpers and fields, never values. `log` is taken away: rows do not belong in logs.

use std::borrow::Cow;
use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    RenderErrorReason, ScopedJson,
};
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value as Json;

use super::budget;
use super::escape::{Escape, xml};
use super::print::{Made, json_of, printed};
use crate::domain::limits;

/// Prints a value where a template names a field alone.
pub(super) const PRINT: &str = "walhook-print";
/// Counts a turn of a loop.
pub(super) const TURN: &str = "walhook-turn";
/// Counts what the engine copies to call a helper of its own.
pub(super) const COPIED: &str = "walhook-copied";
/// Counts what the engine compares.
pub(super) const COMPARED: &str = "walhook-compared";
/// Lets a value through that a block may look its fields up in.
pub(super) const FITS: &str = "walhook-fits";

const OWN: [(&str, Run); 13] = [
    ("default", default),
    ("lookup", lookup),
    ("upper", |call| call.made(call.short(0)?.to_uppercase().into())),
    ("lower", |call| call.made(call.short(0)?.to_lowercase().into())),
    ("trim", |call| call.made(call.text(0)?.trim().into())),
    ("replace", replace),
    ("concat", concat),
    ("truncate", truncate),
    ("date", date),
    ("urlencode", urlencode),
    ("base64", |call| call.made(STANDARD.encode(&*call.short(0)?).into())),
    ("html", |call| by_pieces(call, xml)),
    ("slack", |call| {
        by_pieces(call, |text| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
    }),
];

/// As a value it is made like the others; printed it goes straight into the body.
const JSON: &str = "json";

const BUILT_IN: [&str; 15] =
    ["if", "unless", "each", "with", "raw", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not", "len"];

thread_local! {
    static TURNS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Gives the rendering that starts on this thread its turns.
pub(super) fn start_counting() {
    TURNS_LEFT.set(limits::TEMPLATE_TURNS);
}

fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|(name, _)| *name).chain([JSON]).chain(BUILT_IN)
}

/// Whether a template may call it.
pub(super) fn is_known(name: &str) -> bool {
    known(name).is_some()
}

/// A name that a template may call.
pub(super) fn known(name: &str) -> Option<&'static str> {
    names().find(|known| *known == name)
}

/// Whether a helper is one of these, and not the engine's.
pub(super) fn is_ours(name: &str) -> bool {
    name == JSON || OWN.iter().any(|(own, _)| *own == name)
}

/// The helper with the nearest name, if one is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let near = names().map(|known| (strsim::damerau_levenshtein(name, known), known)).min()?;
    (near.0 <= 2).then_some(near.1)
}

/// Puts the helpers into a registry.
pub(super) fn register(registry: &mut Handlebars<'static>, escape: Escape) {
    registry.unregister_helper("log");
    for (name, run) in OWN {
        registry.register_helper(name, Box::new(Function { run, escape }));
    }
    registry.register_helper(PRINT, Box::new(Print { escape, is_json: false }));
    registry.register_helper(JSON, Box::new(Print { escape, is_json: true }));
    registry.register_helper(TURN, Box::new(turn));
    registry.register_helper(COPIED, Box::new(Counter(|call| budget::charge_copies(call.0))));
    registry.register_helper(COMPARED, Box::new(Counter(compared)));
    registry.register_helper(FITS, Box::new(Fits));
}

type Run = fn(&Call<'_, '_>) -> Result<Json, RenderError>;

/// A call with its arguments.
struct Call<'h, 'rc>(&'h Helper<'rc>);

fn refuse<T>(message: String) -> Result<T, RenderError> {
    Err(RenderErrorReason::Other(message).into())
}

impl<'h> Call<'h, '_> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn value(&self, index: usize) -> Result<&'h Json, RenderError> {
        match self.0.param(index) {
            Some(value) if value.is_value_missing() => Err(RenderError::strict_error(value.relative_path())),
            Some(value) => Ok(value.value()),
            None => refuse(format!("argument {} of {} is missing", index + 1, self.0.name())),
        }
    }

    /// An argument as text, of any length where it is one of the row's.
    fn text(&self, index: usize) -> Result<Cow<'h, str>, RenderError> {
        let text: Cow<'h, str> = match self.value(index)? {
            Json::Null => "".into(),
            Json::String(text) => text.as_str().into(),
            other => json_of(other, self.name())?.into(),
        };
        budget::charge(text.len())?;
        Ok(text)
    }

    /// An argument as text that is no longer than what a helper may make.
    fn short(&self, index: usize) -> Result<Cow<'h, str>, RenderError> {
        let text = self.text(index)?;
        if text.len() <= limits::TEMPLATE_VALUE_BYTES {
            return Ok(text);
        }
        refuse(format!("what {} is given is over {} bytes", self.name(), limits::TEMPLATE_VALUE_BYTES))
    }

    fn named(&self, name: &str) -> Option<&str> {
        self.0.hash_get(name)?.value().as_str()
    }

    /// What it makes of its arguments, if that is not too much.
    fn made(&self, value: Json) -> Result<Json, RenderError> {
        self.charge_made(&value)?;
        Ok(value)
    }

    fn charge_made(&self, value: &Json) -> Result<(), RenderError> {
        let weight = budget::charge_value(value)?;
        self.bounded(value.as_str().map_or(weight, str::len))
    }

    fn bounded(&self, bytes: usize) -> Result<(), RenderError> {
        if bytes <= limits::TEMPLATE_VALUE_BYTES {
            return Ok(());
        }
        refuse(format!("what {} makes is over {} bytes", self.name(), limits::TEMPLATE_VALUE_BYTES))
    }
}

fn default(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let given = call.0.params().iter().map(handlebars::PathAndJson::value);
    match given.into_iter().find(|value| !value.is_null()) {
        Some(value) => copied(call, value),
        None => refuse("default has nothing to fall back on".to_owned()),
    }
}

/// As the engine's own, but for the bound.
fn lookup(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let missing = |index| RenderErrorReason::ParamNotFoundForIndex("lookup", index);
    let whole = call.0.param(0).ok_or_else(|| missing(0))?.value();
    let index = call.0.param(1).ok_or_else(|| missing(1))?.value();
    let found = match whole {
        Json::Array(list) => {
            index.as_u64().and_then(|index| usize::try_from(index).ok()).and_then(|index| list.get(index))
        }
        Json::Object(fields) => index.as_str().and_then(|name| fields.get(name)),
        _ => None,
    };
    match found {
        Some(value) => copied(call, value),
        None => Err(RenderError::strict_error(None)),
    }
}

fn copied(call: &Call<'_, '_>, value: &Json) -> Result<Json, RenderError> {
    call.charge_made(value)?;
    Ok(value.clone())
}

fn urlencode(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let text = call.text(0)?;
    let mut made = Made::of(call.name());
    for part in url::form_urlencoded::byte_serialize(text.as_bytes()) {
        made.push(if part == "+" { "%20" } else { part })?;
    }
    call.made(made.into())
}

fn by_pieces(call: &Call<'_, '_>, escape: fn(&str) -> String) -> Result<Json, RenderError> {
    let text = call.text(0)?;
    let mut made = Made::of(call.name());
    for piece in super::print::pieces(&text) {
        made.push(&escape(piece))?;
    }
    call.made(made.into())
}

fn replace(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let (text, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let times = if from.is_empty() { 0 } else { text.matches(&*from).count() };
    call.bounded(text.len().saturating_add(times.saturating_mul(to.len())))?;
    call.made(if times == 0 { text.into() } else { text.replace(&*from, &to).into() })
}

fn concat(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let mut whole = Made::of(call.name());
    for index in 0..call.0.params().len() {
        whole.push(&call.text(index)?)?;
    }
    call.made(whole.into())
}

fn truncate(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let text = call.text(0)?;
    let Some(most) = call.value(1)?.as_u64().and_then(|most| usize::try_from(most).ok()) else {
        return refuse("the second argument of truncate is how many characters to keep".to_owned());
    };
    if text.chars().count() <= most {
        call.bounded(text.len())?;
        return call.made(text.into());
    }
    let end: String = call.named("end").unwrap_or("…").chars().take(most).collect();
    budget::charge(end.len())?;
    let mut kept = Made::of(call.name());
    let kept_chars = most.saturating_sub(end.chars().count());
    let cut = text.char_indices().nth(kept_chars).map_or(text.len(), |(at, _)| at);
    kept.push(text.get(..cut).unwrap_or_default())?;
    kept.push(&end)?;
    call.made(kept.into())
}

fn date(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let value = call.value(0)?;
    let timestamp = match value {
        Json::Number(seconds) => seconds.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        other => other.as_str().and_then(parse_timestamp),
    };
    let Some(timestamp) = timestamp else {
        return refuse("the first argument of date is no timestamp".to_owned());
    };
    let zone = call.named("tz").unwrap_or("UTC");
    let zone = if zone == "UTC" { Ok(TimeZone::UTC) } else { TimeZone::get(zone) };
    let Ok(zone) = zone else { return refuse("date does not know the time zone in tz".to_owned()) };
    let zoned: Zoned = timestamp.to_zoned(zone);
    let format = call.text(1)?;
    if format.len() > limits::TEMPLATE_DATE_BYTES {
        return refuse(format!("the format given to date is over {} bytes", limits::TEMPLATE_DATE_BYTES));
    }
    match strtime::format(&*format, &zoned) {
        Ok(text) => call.made(text.into()),
        Err(_) => refuse("the second argument of date is no format that strftime knows".to_owned()),
    }
}

/// With a zone, or without one and then in UTC.
fn parse_timestamp(text: &str) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse() {
        return Some(timestamp);
    }
    Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// A helper that makes a value from its arguments.
struct Function {
    run: Run,
    escape: Escape,
}

impl Function {
    fn made(&self, helper: &Helper<'_>) -> Result<Json, RenderError> {
        budget::charge_copies(helper)?;
        (self.run)(&Call(helper))
    }
}

impl HelperDef for Function {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        self.made(helper).map(ScopedJson::Derived)
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let value = self.made(helper)?;
        printed(&value, self.escape, rc.is_disable_escape(), out)
    }
}

/// Prints a value, as what the template's content type wants or as JSON.
struct Print {
    escape: Escape,
    is_json: bool,
}

impl HelperDef for Print {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        budget::charge_copies(helper)?;
        let call = Call(helper);
        call.made(json_of(call.value(0)?, call.name())?.into()).map(ScopedJson::Derived)
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        budget::charge_copies(helper)?;
        let value = Call(helper).value(0)?;
        if self.is_json {
            return super::print::write_json(value, out);
        }
        printed(value, self.escape, rc.is_disable_escape(), out)
    }
}

/// A helper that only counts.
struct Counter(fn(&Call<'_, '_>) -> Result<(), RenderError>);

impl HelperDef for Counter {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        (self.0)(&Call(helper)).map(|()| ScopedJson::Derived(Json::Null))
    }
}

fn compared(call: &Call<'_, '_>) -> Result<(), RenderError> {
    budget::charge_copies(call.0)?;
    match call.0.params().as_slice() {
        [one, other, ..] => budget::charge_comparison(one.value(), other.value()),
        _ => Ok(()),
    }
}

struct Fits;

impl HelperDef for Fits {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let value = Call(helper).value(0)?;
        budget::charge_copies(helper)?;
        budget::fits(value)?;
        Ok(ScopedJson::Derived(value.clone()))
    }
}

fn turn(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    _: &mut dyn Output,
) -> HelperResult {
    let Some(left) = TURNS_LEFT.get().checked_sub(1) else {
        return refuse(format!("its loops make more than {} turns", limits::TEMPLATE_TURNS));
    };
    TURNS_LEFT.set(left);
    let elements = helper.param(0).and_then(|elements| elements.value().as_u64()).unwrap_or(1);
    let key = helper.param(1).filter(|key| !key.is_value_missing()).map(handlebars::PathAndJson::value);
    budget::charge_turn(usize::try_from(elements).unwrap_or(usize::MAX), key)
}
