//! What goes wrong, as a problem document (RFC 9457): every wrong field by its JSON pointer (RFC 6901), and what to do.
//!
//! No secret and nothing of other people's is in one (invariant I12): what the database said of a fault goes to the log.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::backfill::BackfillError;
use crate::config::Problems;
use crate::control::ControlError;
use crate::ledger::LedgerError;
use crate::telemetry::chain;

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem, and the answer to the request that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Told>);

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Told {
    /// What kind of problem it is: a URN that stays the same.
    #[serde(rename = "type")]
    #[schema(example = "urn:walhook:problem:invalid")]
    kind: String,
    /// The same in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong here.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Every wrong field and parameter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A wrong field of the body, or a wrong parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Wrong {
    /// Where in the body: a JSON pointer; empty for the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Which parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Wrong {
    /// A field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), detail: detail.into(), ..Self::default() }
    }

    /// A parameter or a header.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name.into()), detail: detail.into(), ..Self::default() }
    }
}

impl Problem {
    /// A problem of a kind; `word` is the end of its URN.
    pub fn new(status: StatusCode, word: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Told {
            kind: format!("urn:walhook:problem:{word}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            errors: Vec::new(),
            headers: Vec::new(),
        }))
    }

    fn with_errors(mut self, errors: Vec<Wrong>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Fields of the body that are wrong.
    pub fn invalid(errors: Vec<Wrong>) -> Self {
        let detail = match errors.as_slice() {
            [one] => one.detail.clone(),
            several => format!("{} fields are wrong", several.len()),
        };
        let problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request cannot be used", detail);
        problem.with_errors(errors)
    }

    /// Parameters or headers that are wrong.
    pub fn parameters(errors: Vec<Wrong>) -> Self {
        let detail = match errors.as_slice() {
            [one] => one.detail.clone(),
            several => format!("{} parameters are wrong", several.len()),
        };
        let problem = Self::new(StatusCode::BAD_REQUEST, "parameters", "A parameter cannot be used", detail);
        problem.with_errors(errors)
    }

    /// There is nothing of this name.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The document.
    #[cfg(test)]
    pub fn told(&self) -> &Told {
        &self.0
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.0.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// What could not be done now, and may be later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "It cannot be done now", detail);
        problem.header(header::RETRY_AFTER, "1")
    }
}

/// What the configuration's readers say of a declaration.
fn declared(problems: &Problems) -> Problem {
    let wrong = |problem: &crate::config::Problem| {
        let detail = match &problem.detail {
            Some(more) => format!("{}. {more}", problem.message),
            None => problem.message.clone(),
        };
        Wrong { pointer: Some(problem.pointer.clone()), hint: problem.hint.clone(), detail, parameter: None }
    };
    Problem::invalid(problems.0.iter().map(wrong).collect())
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        use ControlError as E;
        let told = match error.detail() {
            Some(detail) => format!("{error}: {detail}"),
            None => error.to_string(),
        };
        let of = |status, word: &str, title| Self::new(status, word, title, told.clone());
        let problem = match &error {
            E::Declaration(problems) => return declared(problems),
            E::Value { key, problem } => {
                return Self::invalid(vec![Wrong::field(format!("/{key}"), problem)]);
            }
            E::Data { .. } | E::Render(_) => return Self::invalid(vec![Wrong::field("/data", told)]),
            E::Unknown { what: what @ ("event" | "table"), .. } => {
                let wrong = Wrong { hint: error.hint(), ..Wrong::field(format!("/{what}"), told) };
                return Self::invalid(vec![wrong]);
            }
            E::Backfill(inner) => return of_backfill(inner, &told),
            E::Operators => of(StatusCode::FORBIDDEN, "tenant", "It is not for tenants"),
            E::Unknown { .. } => of(StatusCode::NOT_FOUND, "not-found", "There is nothing here"),
            E::Exists { .. } => of(StatusCode::CONFLICT, "exists", "The name is taken"),
            E::ReadOnly { .. } | E::OfFile { .. } => {
                of(StatusCode::CONFLICT, "read-only", "The file declares it")
            }
            E::InUse { .. } => of(StatusCode::CONFLICT, "in-use", "Webhooks need it"),
            E::Stale { .. } => of(StatusCode::PRECONDITION_FAILED, "stale", "It was changed meanwhile"),
            E::OtherRequest => {
                of(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key", "The Idempotency-Key is another's")
            }
            E::TooMany { .. } | E::TooManySecrets { .. } => {
                of(StatusCode::CONFLICT, "too-many", "There are too many")
            }
            E::NotSo { .. }
            | E::NotReplayable { .. }
            | E::NotCancellable { .. }
            | E::NotSteerable { .. }
            | E::RetryOver { .. }
            | E::SentAgain { .. }
            | E::SentMeanwhile { .. }
            | E::SameRetry { .. }
            | E::Suspended { .. }
            | E::Unusable { .. } => of(StatusCode::CONFLICT, "state", "Its state does not allow it"),
            E::Ledger(inner) if is_of_values(inner) => {
                // The database takes no such value, and does not say which field it is of.
                let detail = "the database cannot store a value of this request";
                return Self::invalid(vec![Wrong::field("", detail)]);
            }
            E::NotRunning { .. } => Self::unavailable(told.clone()),
            E::Ledger(inner) if inner.is_transient() => {
                tracing::warn!(reason = chain(inner), "the API could not ask the database");
                return Self::unavailable("the database could not be asked");
            }
            E::Connect(inner) => return unreached(inner),
            E::Setup(inner) => return unreached(inner),
            _ => {
                tracing::error!(reason = chain(&error), "the API met a fault");
                let detail = "walhook met a fault; its log says which, under this request's id";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "A fault of walhook's", detail);
            }
        };
        match error.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

fn unreached(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(reason = chain(error), "the API could not reach the database");
    Problem::unavailable("the database could not be reached")
}

/// Why existing rows cannot be delivered: what was asked for, or how the table stands.
fn of_backfill(error: &BackfillError, told: &str) -> Problem {
    use BackfillError as E;
    let field = |at: &str| {
        let wrong = Wrong { hint: error.hint(), ..Wrong::field(at, told) };
        Problem::invalid(vec![wrong])
    };
    match error {
        E::Condition { .. } => field("/condition"),
        E::NoTable { .. } | E::NoKey { .. } | E::NotWanted { .. } => field("/table"),
        error if error.is_transient() => unreached(error),
        E::Query { .. } | E::Rows { .. } | E::Key { .. } => field("/table"),
        error => {
            let title = "Its state does not allow it";
            let problem = Problem::new(StatusCode::CONFLICT, "state", title, told);
            error.hint().map_or(problem.clone(), |hint| problem.hint(hint))
        }
    }
}

/// Whether the server refused a value (SQLSTATE classes 22 and 23).
fn is_of_values(error: &LedgerError) -> bool {
    let code = match error {
        LedgerError::Statement { source, .. } => source.code().map(tokio_postgres::error::SqlState::code),
        LedgerError::Withheld { code, .. } => Some(code.as_str()),
        _ => None,
    };
    code.is_some_and(|code| matches!(code.get(..2), Some("22" | "23")))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response();
        response.headers_mut().extend(self.0.headers);
        response
    }
}
