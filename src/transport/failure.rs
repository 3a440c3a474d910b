//! Why no answer came, read off the chain of causes.
//!
//! What decides is the type of a cause, never its text: our own [`ResolveError`], rustls' error (which hides inside
//! an `io::Error`, where `source()` steps over it), the kind of an `io::Error`. The texts say *where* by the host and
//! the addresses that were dialled, and never quote the URL.

use std::error::Error;
use std::io;

use rustls::CertificateError;
use url::Url;

use super::door::SendError;
use super::progress::Progress;
use super::proxy::ProxyError;
use super::resolve::ResolveError;
use crate::domain::{Outcome, RefusedBy, TimeoutStage, UnreachableBy};

/// Addresses that a reason lists.
const ADDRESSES_NAMED: usize = 4;
/// The longest foreign text in a reason, in characters.
const CAUSE_CHARACTERS: usize = 200;
/// How far a chain of causes is followed.
const CHAIN_LENGTH: usize = 32;

/// The outcome of a request that could not be carried out.
pub(super) fn outcome(error: &SendError, url: &Url, progress: &Progress) -> Outcome {
    if error.is_builder() {
        let reason = format!("the delivery cannot be made into a request: {}", root_cause(error.cause()));
        return Outcome::Refused { by: RefusedBy::Request, reason };
    }
    if let Some(resolve) = find::<ResolveError>(error.cause()) {
        return unresolved(resolve);
    }
    if error.is_connect_timeout() {
        return Outcome::TimedOut { stage: TimeoutStage::Connect };
    }
    let (by, reason) = told(error.cause(), error.is_connect(), url, &place(url, progress));
    Outcome::Unreachable { by, reason }
}

/// The outcome of a name that could not be resolved, or not to an address that may be dialled.
pub(super) fn unresolved(error: &ResolveError) -> Outcome {
    match error {
        ResolveError::Forbidden { address, .. } => {
            Outcome::Refused { by: RefusedBy::Address(*address), reason: error.to_string() }
        }
        ResolveError::Untold { .. } => Outcome::Refused { by: RefusedBy::Name, reason: error.to_string() },
        _ => Outcome::Unreachable { by: UnreachableBy::Dns, reason: error.to_string() },
    }
}

/// The kind and the reason of a network error; `connecting` while no connection stands.
pub(super) fn told(
    error: &(dyn Error + 'static),
    connecting: bool,
    url: &Url,
    place: &str,
) -> (UnreachableBy, String) {
    if let Some(tls) = find::<rustls::Error>(error) {
        return (UnreachableBy::Tls, tls_reason(tls, place));
    }
    if let Some(proxy) = find::<ProxyError>(error) {
        return (UnreachableBy::Connect, proxy.to_string());
    }
    let kind = find::<io::Error>(error).map(io::Error::kind);
    if !connecting {
        let reason = if let Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) = kind {
            format!("{place} broke the connection before it had answered")
        } else {
            let cause = root_cause(error);
            let hint = hint_of_alert(&cause);
            format!("no HTTP answer from {place}: {cause}{hint}")
        };
        return (UnreachableBy::Protocol, reason);
    }
    let reason = match kind {
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            if url.scheme() == "https" =>
        {
            return (UnreachableBy::Tls, format!("{place} broke the connection in the TLS handshake"));
        }
        Some(io::ErrorKind::ConnectionRefused) => format!("connection refused by {place}"),
        Some(io::ErrorKind::HostUnreachable) => format!("no route to {place}"),
        Some(io::ErrorKind::NetworkUnreachable) => format!("the network of {place} is unreachable"),
        _ => format!("no connection to {place}: {}", root_cause(error)),
    };
    (UnreachableBy::Connect, reason)
}

fn tls_reason(error: &rustls::Error, place: &str) -> String {
    let text = error.to_string();
    let hint = match error {
        rustls::Error::InvalidMessage(_) => " (is it a plain http port?)",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            " (setting: tls.ca, for an authority of your own)"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => " (the receiver must renew it; settings: url, and tls.ca or tls.pinned_ca where they name it)",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            " (is this machine's clock right? settings: url, and tls.ca or tls.pinned_ca where they name it)"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => " (setting: url, whose host must be one of the certificate's names)",
        _ => hint_of_alert(&text),
    };
    format!("TLS with {place} failed: {}{hint}", shortened(&text))
}

/// With TLS 1.3 a receiver says what it thinks of the client's certificate after the handshake. HTTP/2 passes that on as
/// a text, which nothing but this hint goes by.
fn hint_of_alert(text: &str) -> &'static str {
    if text.contains("received fatal alert: Certificate") { " (setting: tls.certificate)" } else { "" }
}

/// `host:port`, with the addresses of the host where it is a name.
pub(super) fn place(url: &Url, progress: &Progress) -> String {
    let host = url.host_str().unwrap_or("?");
    let port = url.port_or_known_default().unwrap_or(0);
    let dialled = progress.dialled();
    if dialled.is_empty() {
        return format!("{host}:{port}");
    }
    let mut names: Vec<_> = dialled.iter().take(ADDRESSES_NAMED).map(ToString::to_string).collect();
    if dialled.len() > ADDRESSES_NAMED {
        names.push("…".to_owned());
    }
    format!("{host}:{port} ({})", names.join(", "))
}

/// The first cause of this type in the chain, looking into what `io::Error` wraps.
pub(super) fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut cause = Some(error);
    for _ in 0..CHAIN_LENGTH {
        let here = cause?;
        if let Some(found) = here.downcast_ref::<E>() {
            return Some(found);
        }
        cause = inner(here);
    }
    None
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    for _ in 0..CHAIN_LENGTH {
        match inner(last) {
            Some(next) => last = next,
            None => break,
        }
    }
    shortened(&last.to_string())
}

fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
        None => error.source(),
    }
}

fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CAUSE_CHARACTERS).collect()
}
