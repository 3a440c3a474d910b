//! What a request brings: a JSON document, parameters. Every wrong field is told, not the first alone.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::{Problem, Wrong};
use crate::domain::limits;

/// The object that a request's body is; without a body (or with null), an empty one.
pub struct Document(pub Map<String, Value>);

impl<S: Sync> FromRequest<S> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let media = media_type(request.headers());
        let is_encoded = request.headers().contains_key(header::CONTENT_ENCODING);
        let too_long = || {
            let detail = format!("the body is longer than {} bytes", limits::API_BODY_BYTES);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "The body is too long", detail)
        };
        if request.body().size_hint().lower() > u64::try_from(limits::API_BODY_BYTES).unwrap_or(u64::MAX) {
            return Err(too_long());
        }
        let body = to_bytes(request.into_body(), limits::API_BODY_BYTES).await.map_err(|_| too_long())?;
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        if is_encoded
            || !matches!(media.as_deref(), Some("application/json" | "application/merge-patch+json"))
        {
            let detail = "the body is expected as application/json, without a content-encoding";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "media-type", "Another media type is needed", detail));
        }
        let parsed: Value = serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("the body is not valid JSON: line {}, column {}", error.line(), error.column());
            Problem::new(StatusCode::BAD_REQUEST, "json", "The body is not JSON", detail)
        })?;
        let mut wrong = Vec::new();
        without_nul(&parsed, "", &mut wrong);
        match parsed {
            Value::Object(map) if wrong.is_empty() => Ok(Self(map)),
            Value::Object(_) => Err(Problem::invalid(wrong)),
            _ => Err(Problem::invalid(vec![Wrong::field("", "expected an object")])),
        }
    }
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// What stands in the path. What cannot be decoded is the name of nothing.
pub struct In<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for In<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(found)) => Ok(Self(found)),
            Err(_) => Err(Problem::not_found("nothing has such a name")),
        }
    }
}

/// Postgres stores no NUL character in a text.
fn without_nul(value: &Value, at: &str, wrong: &mut Vec<Wrong>) {
    let nul = "the character NUL cannot be stored";
    match value {
        Value::String(text) if text.contains('\0') => wrong.push(Wrong::field(at, nul)),
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| without_nul(value, &format!("{at}/{index}"), wrong));
        }
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                if key.contains('\0') {
                    wrong.push(Wrong::field(at.clone(), nul));
                }
                without_nul(value, &at, wrong);
            }
        }
        _ => {}
    }
}

/// The fields of a document, taken out one by one; what is left in the end is unknown.
pub struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    wrong: Vec<Wrong>,
}

impl Fields {
    /// Those of a document.
    pub fn of(document: Document) -> Self {
        Self { left: document.0, known: Vec::new(), wrong: Vec::new() }
    }

    /// A field as it is; null is absent.
    pub fn value(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.shift_remove(key).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            _ => self.refuse(key, "expected a string"),
        }
    }

    /// A text that must be there.
    pub fn required(&mut self, key: &'static str, expected: &str) -> Option<String> {
        match self.value(key) {
            Some(Value::String(text)) => Some(text),
            _ => self.refuse(key, expected),
        }
    }

    /// A moment (RFC 3339).
    pub fn time(&mut self, key: &'static str) -> Option<Timestamp> {
        let text = self.text(key)?;
        let expected = "expected a time with its zone, such as 2026-01-31T08:00:00Z";
        text.parse().ok().or_else(|| self.refuse(key, expected))
    }

    /// A whole number in a range.
    pub fn number(&mut self, key: &'static str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let given = self.value(key)?;
        let number = given.as_u64().and_then(|number| u32::try_from(number).ok());
        let expected = || format!("expected a whole number from {} to {}", range.start(), range.end());
        number.filter(|number| range.contains(number)).or_else(|| self.refuse(key, expected()))
    }

    /// Yes or no; absent is no.
    pub fn flag(&mut self, key: &'static str) -> bool {
        match self.value(key) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => self.refuse(key, "expected true or false").unwrap_or_default(),
        }
    }

    /// A span of time up to `most`, such as `24h`.
    pub fn span(&mut self, key: &'static str, most: Duration) -> Option<Duration> {
        let text = self.text(key)?;
        let expected =
            || format!("expected a duration of at most {} h, such as 24h or 7d", most.as_secs() / 3600);
        span(&text).filter(|span| *span <= most).or_else(|| self.refuse(key, expected()))
    }

    /// Notes that a field is wrong, or (with an empty name) the whole.
    pub fn refuse<T>(&mut self, key: &str, detail: impl Into<String>) -> Option<T> {
        let pointer = if key.is_empty() { String::new() } else { format!("/{key}") };
        self.wrong.push(Wrong::field(pointer, detail));
        None
    }

    /// Ends the reading.
    pub fn finish(mut self) -> Result<(), Problem> {
        for key in self.left.keys() {
            let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            let detail = format!("unknown field; the fields here are {}", self.known.join(", "));
            self.wrong.push(Wrong::field(pointer, detail));
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(self.wrong)) }
    }
}

/// The parameters of a query, taken out one by one.
pub struct Parameters {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
    wrong: Vec<Wrong>,
}

impl Parameters {
    /// Those of a query.
    pub fn of(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut wrong = Vec::new();
        let mut left = Vec::new();
        for (name, value) in pairs.into_owned() {
            if name.contains('\0') || value.contains('\0') {
                let name = name.replace('\0', "\u{fffd}");
                wrong.push(Wrong::parameter(name, "the character NUL is in no value here"));
            } else {
                left.push((name, value));
            }
        }
        Self { left, known: Vec::new(), wrong }
    }

    /// All values of a parameter.
    pub fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (found, left) = std::mem::take(&mut self.left).into_iter().partition(|(key, _)| key == name);
        self.left = left;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The one value of a parameter.
    pub fn one(&mut self, name: &'static str) -> Option<String> {
        let mut all = self.all(name);
        if all.len() > 1 {
            return self.refuse(name, "it is given more than once");
        }
        all.pop()
    }

    /// A value as `read` takes it.
    pub fn read<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.one(name)?;
        read(&text).or_else(|| self.refuse(name, expected))
    }

    /// The same for a list whose entries have numbers.
    pub fn numbered_page(&mut self, kind: &str) -> (u32, Option<i64>) {
        let (limit, behind) = self.page(kind);
        let before = behind.and_then(|place| {
            place.parse().ok().or_else(|| self.refuse("cursor", "this is no cursor of this list"))
        });
        (limit, before)
    }

    /// How long a page is, and where it begins: behind what `kind` of cursor names.
    pub fn page(&mut self, kind: &str) -> (u32, Option<String>) {
        let most = limits::API_PAGE;
        let limit = self.read("limit", &format!("expected a whole number from 1 to {most}"), |text| {
            text.parse().ok().filter(|limit| (1..=most).contains(limit))
        });
        let behind = self.read("cursor", "this is no cursor of this list", |text| place_of(kind, text));
        (limit.unwrap_or(50), behind)
    }

    /// Notes that a parameter is wrong.
    pub fn refuse<T>(&mut self, name: &str, detail: impl Into<String>) -> Option<T> {
        self.wrong.push(Wrong::parameter(name, detail));
        None
    }

    /// Ends the reading.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in &self.left {
            let detail = format!("unknown parameter; the parameters here are {}", self.known.join(", "));
            self.wrong.push(Wrong::parameter(name.clone(), detail));
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::parameters(self.wrong)) }
    }
}

/// The cursor of a place in a list. It is no secret and gives no right: whoever makes one up gets the page behind it.
pub fn cursor(kind: &str, place: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}:{place}"))
}

/// Takes off what is beyond a page, and names its end.
pub fn next<T>(found: &mut Vec<T>, limit: u32, kind: &str, place: impl Fn(&T) -> String) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| more).map(|last| cursor(kind, &place(last)))
}

/// A span of time as it is written in the configuration and on the command line: days have 24 hours.
pub fn span(text: &str) -> Option<Duration> {
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative())?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

fn place_of(kind: &str, cursor: &str) -> Option<String> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let place = text.strip_prefix(kind)?.strip_prefix(':')?;
    let is_plain = !place.is_empty() && place.len() <= 200 && !place.contains('\0');
    is_plain.then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_in_its_own_list_alone() {
        let made = cursor("delivery", "dlv_0001");
        assert_eq!(place_of("delivery", &made).as_deref(), Some("dlv_0001"));
        assert_eq!(place_of("webhook", &made), None);
        for wrong in
            ["", "%%%", "AAAA", &cursor("delivery", ""), &cursor("delivery", "a\0b"), &format!("{made}=")]
        {
            assert_eq!(place_of("delivery", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_wrong_field_and_parameter_is_told() {
        let document = json!({"name": 7, "expires_at": "soon", "nmae": "x", "a/b": 1});
        let mut fields = Fields::of(Document(document.as_object().unwrap().clone()));
        assert_eq!((fields.text("name"), fields.time("expires_at")), (None, None));
        let problem = serde_json::to_value(fields.finish().unwrap_err().told()).unwrap();
        let pointers: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
        assert_eq!(pointers, ["/name", "/expires_at", "/nmae", "/a~1b"]);

        let mut parameters = Parameters::of(Some("limit=0&cursor=x&webhok=a&table=a&table=b&key=%00"));
        assert_eq!(parameters.page("delivery"), (50, None));
        assert_eq!(parameters.one("table"), None);
        let problem = serde_json::to_value(parameters.finish().unwrap_err().told()).unwrap();
        let names: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["parameter"].as_str().unwrap()).collect();
        assert_eq!(names, ["key", "limit", "cursor", "table", "webhok"]);
    }

    #[test]
    fn a_nul_is_told_where_it_stands() {
        let mut wrong = Vec::new();
        without_nul(&json!({"a": ["x", "y\0"], "b\0": 1, "c": {"d": "\0"}}), "", &mut wrong);
        let pointers: Vec<_> = wrong.iter().map(|wrong| wrong.pointer.clone().unwrap()).collect();
        assert_eq!(pointers, ["/a/1", "/b\0", "/c/d"]);
    }
}
