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

use super::escape::{Escape, xml};
use crate::domain::limits;

/// Prints a value where a template names a field alone.
pub(super) const PRINT: &str = "walhook-print";
/// Counts a turn of a loop.
pub(super) const TURN: &str = "walhook-turn";

const OWN: [(&str, Run); 12] = [
    ("default", default),
    ("upper", |call| Ok(call.text(0)?.to_uppercase().into())),
    ("lower", |call| Ok(call.text(0)?.to_lowercase().into())),
    ("trim", |call| Ok(call.text(0)?.trim().into())),
    ("replace", replace),
    ("concat", concat),
    ("truncate", truncate),
    ("date", date),
    ("urlencode", |call| {
        let encoded: String = url::form_urlencoded::byte_serialize(call.text(0)?.as_bytes()).collect();
        Ok(encoded.replace('+', "%20").into())
    }),
    ("base64", |call| Ok(STANDARD.encode(call.text(0)?).into())),
    ("html", |call| Ok(xml(&call.text(0)?).into())),
    ("slack", |call| {
        let text = call.text(0)?.replace('&', "&amp;");
        Ok(text.replace('<', "&lt;").replace('>', "&gt;").into())
    }),
];

const BUILT_IN: [&str; 17] = [
    "if", "unless", "each", "with", "lookup", "raw", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or",
    "not", "len", "json",
];

thread_local! {
    static TURNS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Gives the rendering that starts on this thread its turns.
pub(super) fn start_counting() {
    TURNS_LEFT.set(limits::TEMPLATE_TURNS);
}

fn names() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|(name, _)| *name).chain(BUILT_IN)
}

/// Whether a template may call it.
pub(super) fn is_known(name: &str) -> bool {
    names().any(|known| known == name)
}

/// The helper with the nearest name, if one is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let near = names().map(|known| (strsim::damerau_levenshtein(name, known), known)).min()?;
    (near.0 <= 2).then_some(near.1)
}

/// Puts the helpers into a registry.
pub(super) fn register(registry: &mut Handlebars<'static>, escape: Escape) {
    registry.unregister_helper("log");
    registry.register_helper(PRINT, Box::new(Function { run: |call| Ok(call.value(0)?.clone()), escape }));
    for (name, run) in OWN {
        registry.register_helper(name, Box::new(Function { run, escape }));
    }
    registry.register_helper("json", Box::new(JsonHelper));
    registry.register_helper(TURN, Box::new(turn));
}

type Run = fn(&Call<'_, '_>) -> Result<Json, RenderError>;

/// A call with its arguments.
struct Call<'h, 'rc>(&'h Helper<'rc>);

fn refuse<T>(message: String) -> Result<T, RenderError> {
    Err(RenderErrorReason::Other(message).into())
}

impl Call<'_, '_> {
    fn value(&self, index: usize) -> Result<&Json, RenderError> {
        match self.0.param(index) {
            Some(value) if value.is_value_missing() => Err(RenderError::strict_error(value.relative_path())),
            Some(value) => Ok(value.value()),
            None => refuse(format!("argument {} of {} is missing", index + 1, self.0.name())),
        }
    }

    fn text(&self, index: usize) -> Result<String, RenderError> {
        self.value(index).map(text_of)
    }

    fn named(&self, name: &str) -> Option<&str> {
        self.0.hash_get(name)?.value().as_str()
    }

    fn bounded(&self, bytes: usize) -> Result<(), RenderError> {
        if bytes <= limits::TEMPLATE_VALUE_BYTES {
            return Ok(());
        }
        refuse(format!("what {} makes is over {} bytes", self.0.name(), limits::TEMPLATE_VALUE_BYTES))
    }
}

/// A value as text: strings as they are, null as nothing, objects and lists as JSON.
fn text_of(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn default(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let given = call.0.params().iter().map(handlebars::PathAndJson::value);
    given
        .into_iter()
        .find(|value| !value.is_null())
        .cloned()
        .map_or_else(|| refuse("default has nothing to fall back on".to_owned()), Ok)
}

fn replace(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let (text, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    if from.is_empty() {
        return Ok(text.into());
    }
    let times = text.matches(&from).count();
    call.bounded(text.len().saturating_add(times.saturating_mul(to.len())))?;
    Ok(text.replace(&from, &to).into())
}

fn concat(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let mut whole = String::new();
    for index in 0..call.0.params().len() {
        whole.push_str(&call.text(index)?);
        call.bounded(whole.len())?;
    }
    Ok(whole.into())
}

fn truncate(call: &Call<'_, '_>) -> Result<Json, RenderError> {
    let text = call.text(0)?;
    let Some(most) = call.value(1)?.as_u64().and_then(|most| usize::try_from(most).ok()) else {
        return refuse("the second argument of truncate is how many characters to keep".to_owned());
    };
    if text.chars().count() <= most {
        return Ok(text.into());
    }
    let end: String = call.named("end").unwrap_or("…").chars().take(most).collect();
    let kept: String = text.chars().take(most.saturating_sub(end.chars().count())).collect();
    Ok((kept + &end).into())
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
    strtime::format(&format, &zoned)
        .map(Json::from)
        .or_else(|_| refuse("the second argument of date is no format that strftime knows".to_owned()))
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

impl HelperDef for Function {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        (self.run)(&Call(helper)).map(ScopedJson::Derived)
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let value = (self.run)(&Call(helper))?;
        let text = text_of(&value);
        // Objects and lists are JSON already: inside a JSON template they stand as they are.
        let stands = rc.is_disable_escape()
            || (self.escape == Escape::Json && matches!(value, Json::Object(_) | Json::Array(_)));
        out.write(&if stands { text } else { self.escape.apply(&text) })?;
        Ok(())
    }
}

struct JsonHelper;

impl HelperDef for JsonHelper {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        Ok(ScopedJson::Derived(Call(helper).value(0)?.to_string().into()))
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        out.write(&Call(helper).value(0)?.to_string())?;
        Ok(())
    }
}

fn turn(
    _: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    _: &mut dyn Output,
) -> HelperResult {
    match TURNS_LEFT.get().checked_sub(1) {
        Some(left) => {
            TURNS_LEFT.set(left);
            Ok(())
        }
        None => refuse(format!("its loops make more than {} turns", limits::TEMPLATE_TURNS)),
    }
}
