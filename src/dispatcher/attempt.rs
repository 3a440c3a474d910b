//! One attempt: headers, signature, request, and how it ended.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;

use super::meters::Meters;
use crate::catalog::Compiled;
use crate::clock::Clock;
use crate::domain::{Attempt, Delivery, Operation, Outcome, RefusedBy};
use crate::sign::Signed;
use crate::transport::encoding::encode;
use crate::transport::{Request, Transport};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const X_WEBHOOK_ID: HeaderName = HeaderName::from_static("x-webhook-id");
const X_WEBHOOK_EVENT: HeaderName = HeaderName::from_static("x-webhook-event");
const X_WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("x-webhook-timestamp");
const X_WEBHOOK_ATTEMPT: HeaderName = HeaderName::from_static("x-webhook-attempt");

/// How many headers are walhook's or the client's, so that the map need not grow.
const OURS: usize = 14;

/// Sends a delivery once. `number` counts its attempts from 1.
pub(super) async fn attempt(
    target: &Compiled,
    delivery: &Delivery,
    number: u32,
    transport: &Transport,
    clock: &Clock,
    meters: &Meters,
) -> Attempt {
    let started_at = clock.now();
    let begun = Instant::now();
    fail::fail_point!("before_send", |_| std::process::abort());
    let outcome = match headers(target, delivery, number, clock.unix_seconds()) {
        Ok(mut headers) => {
            let mut body = delivery.body.clone();
            let compression = target.webhook.compression;
            if compression.coding.is_some() {
                // In a box, so that no attempt is larger for it where it is off.
                let (encoded, coding) = Box::pin(encode(&body, compression)).await;
                body = encoded;
                if let Some(coding) = coding {
                    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
                }
            }
            let request = Request {
                url: &target.webhook.url,
                source: target.webhook.source,
                headers,
                body,
                timeout: target.webhook.timeout,
                route: target.route.as_ref(),
            };
            transport.send(request).await
        }
        Err(reason) => Outcome::Refused { by: RefusedBy::Request, reason },
    };
    fail::fail_point!("after_send", |_| std::process::abort());
    let took = begun.elapsed();
    if delivery.operation != Operation::Test {
        meters.attempt(&outcome, took);
    }
    Attempt { number, started_at, took, outcome }
}

/// The headers of an attempt: those of the webhook, and ours, which win.
fn headers(
    target: &Compiled,
    delivery: &Delivery,
    number: u32,
    unix_seconds: i64,
) -> Result<HeaderMap, String> {
    let mut headers = named(target, delivery, number, unix_seconds).map_err(|error| {
        format!("the event type {:?} cannot stand in a header: {error}", delivery.event_type)
    })?;
    if let Some(jwt) = &target.jwt {
        let token = jwt.token(delivery.id.as_str(), unix_seconds, &delivery.body);
        let told = |error: &dyn std::error::Error| format!("setting auth: {error}");
        let token = token.map_err(|error| told(&error))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| told(&error))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

fn named(
    target: &Compiled,
    delivery: &Delivery,
    number: u32,
    unix_seconds: i64,
) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    let own = &target.webhook.headers;
    let mut headers = HeaderMap::with_capacity(own.len() + OURS);
    headers.extend(own.clone());
    let id = HeaderValue::from_str(delivery.id.as_str())?;
    let timestamp = HeaderValue::from(unix_seconds);
    if let Some(lines) = &delivery.headers {
        of_format(lines, &mut headers);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&delivery.content_type)?);
    headers.insert(WEBHOOK_ID, id.clone());
    headers.insert(X_WEBHOOK_ID, id);
    headers.insert(WEBHOOK_TIMESTAMP, timestamp.clone());
    headers.insert(X_WEBHOOK_TIMESTAMP, timestamp);
    headers.insert(X_WEBHOOK_EVENT, HeaderValue::from_bytes(delivery.event_type.as_bytes())?);
    headers.insert(X_WEBHOOK_ATTEMPT, HeaderValue::from(number));
    let (id, event_type) = (delivery.id.as_str(), &*delivery.event_type);
    target.signer.sign(&Signed { id, event_type, unix_seconds, body: &delivery.body }, &mut headers)?;
    Ok(headers)
}

/// Those that the body's format has beside it, as they were rendered: a line `name: value` each.
fn of_format(lines: &str, headers: &mut HeaderMap) {
    for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}
