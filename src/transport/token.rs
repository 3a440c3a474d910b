//! Access tokens by the client credentials grant (RFC 6749, section 4.4).
//!
//! A token is used until shortly before it expires. Whoever needs one while it is being asked for waits for the same
//! answer, good or bad: however many attempts wait, the endpoint is asked once. A receiver that answers 401 has the token
//! that was used thrown away; a newer one stays. The endpoint is somebody's server like any receiver: it has its time, a
//! bounded answer, and the address policy of the webhook.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::door::Door;
use super::failure;
use super::progress::{self, Progress};
use crate::domain::{ClientCredentials, OAuth2, Outcome, UnreachableBy, WebhookSource, limits};

/// How long a token is used whose endpoint does not say.
const UNSAID: Duration = Duration::from_secs(300);
/// How long before its end a token is not used any more, or a quarter of its life where that is shorter.
const MARGIN: Duration = Duration::from_secs(60);
const FORM: &str = "application/x-www-form-urlencoded";

/// A token, ready for a header.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked sensitive.
    pub value: HeaderValue,
    good_until: Instant,
    /// Counts the tokens of one endpoint.
    number: u64,
}

/// The tokens of one client at one endpoint.
#[derive(Debug)]
pub(super) struct Tokens {
    settings: OAuth2,
    /// Whose webhooks these are: the rules for the endpoint's address are theirs.
    pub source: WebhookSource,
    door: Arc<Door>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    number: u64,
    /// When asking failed last, and how.
    failed: Option<(Instant, Outcome)>,
}

impl Tokens {
    pub(super) fn new(settings: OAuth2, source: WebhookSource, door: Arc<Door>) -> Self {
        Self { settings, source, door, state: Mutex::default() }
    }

    /// Where tokens are asked for.
    pub(super) fn url(&self) -> &Url {
        &self.settings.token_url
    }

    /// A token other than the `refused` one, and whether it was there before. Waits for whoever is asking already.
    pub(super) async fn get(&self, refused: Option<&Token>) -> Result<(Token, bool), Outcome> {
        let wanted_at = Instant::now();
        let mut state = self.state.lock().await;
        let is_good = |token: &&Token| {
            Instant::now() < token.good_until && refused.is_none_or(|refused| token.number > refused.number)
        };
        if let Some(token) = state.token.as_ref().filter(is_good) {
            return Ok((token.clone(), true));
        }
        if let Some((at, outcome)) = &state.failed
            && *at >= wanted_at
        {
            return Err(outcome.clone());
        }
        state.token = None;
        let asked = tokio::time::timeout(limits::TOKEN_TIMEOUT, self.ask()).await;
        let seconds = limits::TOKEN_TIMEOUT.as_secs();
        match asked.unwrap_or_else(|_| Err(format!("it did not answer within {seconds} s"))) {
            Ok((value, good_for)) => {
                state.number += 1;
                let token = Token { value, good_until: Instant::now() + good_for, number: state.number };
                state.token = Some(token.clone());
                Ok((token, false))
            }
            Err(why) => {
                let outcome = no_token(self.url(), &why);
                state.failed = Some((Instant::now(), outcome.clone()));
                Err(outcome)
            }
        }
    }

    async fn ask(&self) -> Result<(HeaderValue, Duration), String> {
        let (headers, form) = self.request();
        let progress = Arc::new(Progress::default());
        let sending = self.door.post(self.url(), headers, form.into());
        let sent = progress::noting(Arc::clone(&progress), sending).await;
        let mut response =
            sent.map_err(|error| failure::outcome(&error, self.url(), &progress).describe())?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| "its answer broke off".to_owned())? {
            if body.len() + chunk.len() > limits::TOKEN_ANSWER_BYTES {
                return Err(format!("its answer is longer than {} bytes", limits::TOKEN_ANSWER_BYTES));
            }
            body.extend_from_slice(&chunk);
        }
        let answer = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        if status.is_success() { read_token(&answer) } else { Err(refusal(status.as_u16(), &answer)) }
    }

    fn request(&self) -> (HeaderMap, String) {
        let OAuth2 { client_id, client_secret, credentials, scope, audience, .. } = &self.settings;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        match credentials {
            ClientCredentials::Body => {
                form.append_pair("client_id", client_id);
                form.append_pair("client_secret", client_secret.expose_secret());
            }
            ClientCredentials::Basic => {
                // RFC 6749, section 2.3.1: both are form-encoded first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let both = format!("{}:{}", encoded(client_id), encoded(client_secret.expose_secret()));
                let value = format!("Basic {}", BASE64_STANDARD.encode(both));
                let mut value = HeaderValue::try_from(value).expect("base64 makes a header value");
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        for (name, text) in [("scope", scope), ("audience", audience)] {
            if let Some(text) = text {
                form.append_pair(name, text);
            }
        }
        (headers, form.finish())
    }
}

/// The outcome of an attempt for which there was no token; `why` tells nothing secret.
pub(super) fn no_token(url: &Url, why: &str) -> Outcome {
    let place = failure::place(url, &Progress::default());
    let reason = format!("no access token from {place} (setting: auth.token_url): {why}");
    Outcome::Unreachable { by: UnreachableBy::Token, reason }
}

/// RFC 6749, section 5.1.
fn read_token(answer: &serde_json::Value) -> Result<(HeaderValue, Duration), String> {
    let text = answer.get("access_token").and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    let text = text.ok_or("its answer has no access_token")?;
    let kind = answer.get("token_type").and_then(|value| value.as_str()).unwrap_or("Bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err("its token is not of type Bearer".to_owned());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {text}"))
        .map_err(|_| "its token cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    let seconds = match answer.get("expires_in") {
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_u64(),
        None => None,
    };
    let life = seconds.map_or(UNSAID, Duration::from_secs).min(limits::TOKEN_LIFETIME);
    Ok((value, life.saturating_sub(MARGIN.min(life / 4))))
}

/// The status, and the error's code where it is one of RFC 6749, section 5.2, by its form.
fn refusal(status: u16, answer: &serde_json::Value) -> String {
    let plain = |text: &&str| {
        !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match answer.get("error").and_then(|error| error.as_str()).filter(plain) {
        Some(code) => format!("HTTP {status}, {code}"),
        None => format!("HTTP {status}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_bearer_token_with_a_life_or_a_reason() {
        let good = |answer| {
            read_token(&answer).map(|(value, life)| (value.to_str().unwrap().to_owned(), life.as_secs()))
        };
        let bearer = || "Bearer abc".to_owned();
        assert_eq!(
            good(json!({ "access_token": "abc", "token_type": "bearer", "expires_in": 3600 })),
            Ok((bearer(), 3540))
        );
        assert_eq!(good(json!({ "access_token": "abc", "expires_in": "120" })), Ok((bearer(), 90)));
        assert_eq!(good(json!({ "access_token": "abc" })), Ok((bearer(), 240)));
        assert_eq!(good(json!({ "access_token": "abc", "expires_in": 0 })), Ok((bearer(), 0)));
        for (answer, words) in [
            (json!(null), "no access_token"),
            (json!({ "access_token": "" }), "no access_token"),
            (json!({ "access_token": "a", "token_type": "mac" }), "not of type Bearer"),
            (json!({ "access_token": "a\r\nx: y" }), "cannot stand in a header"),
        ] {
            assert!(good(answer).unwrap_err().contains(words));
        }
        assert_eq!(refusal(401, &json!({ "error": "invalid_client" })), "HTTP 401, invalid_client");
        assert_eq!(refusal(400, &json!({ "error": "secret=hunter2" })), "HTTP 400");
    }
}
