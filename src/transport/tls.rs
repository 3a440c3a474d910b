//! The TLS side of the clients: rustls on ring.
//!
//! The roots of the system are read once, and every client that trusts them shares the verifier that holds them; so do
//! clients that trust the same authorities of the configuration's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use secrecy::ExposeSecret as _;
use x509_cert::der::Decode as _;

use super::TransportError;
use crate::domain::{Connection, Fingerprint, Identity, TlsVersion, Verification};

/// What certificates are checked against, by settings. Cheap to share.
#[derive(Debug)]
pub(super) struct Verifiers {
    provider: Arc<CryptoProvider>,
    system: Arc<dyn ServerCertVerifier>,
    extra_roots: Vec<CertificateDer<'static>>,
    own: Mutex<HashMap<Fingerprint, Weak<dyn ServerCertVerifier>>>,
}

impl Verifiers {
    /// Loads the system's roots; `extra_roots` are trusted beside them.
    pub(super) fn new(extra_roots: Vec<CertificateDer<'static>>) -> Result<Self, TransportError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let system = Verifier::new_with_extra_roots(extra_roots.clone(), Arc::clone(&provider))
            .map_err(|source| TransportError::Roots { source })?;
        Ok(Self { provider, system: Arc::new(system), extra_roots, own: Mutex::default() })
    }

    /// A configuration by these settings, which offers HTTP/2, then HTTP/1.1.
    pub(super) fn client_config(&self, connection: &Connection) -> Result<ClientConfig, TransportError> {
        let failed = |source| TransportError::Tls { source };
        let versions: &[&rustls::SupportedProtocolVersion] = match connection.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(connection)?);
        let mut config = match &connection.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificates = certificates(&identity.certificate).map_err(|why| other(&why))?;
                let key = private_key(identity).map_err(|why| other(&why))?;
                builder.with_client_auth_cert(certificates, key).map_err(failed)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(&self, connection: &Connection) -> Result<Arc<dyn ServerCertVerifier>, TransportError> {
        if connection.verification == Verification::Skipped {
            return Ok(Arc::new(TrustAll(Arc::clone(&self.provider))));
        }
        if connection.ca.is_none() && connection.pinned_ca.is_none() {
            return Ok(Arc::clone(&self.system));
        }
        let ca = connection.ca.clone().filter(|_| connection.pinned_ca.is_none());
        let trust = Connection { ca, pinned_ca: connection.pinned_ca.clone(), ..Connection::default() };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = own.get(&trust.fingerprint()).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let made: Arc<dyn ServerCertVerifier> = if let Some(pinned) = &trust.pinned_ca {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pinned).map_err(|why| other(&why))? {
                roots.add(certificate).map_err(|source| TransportError::Tls { source })?;
            }
            let provider = Arc::clone(&self.provider);
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            verifier.map_err(|error| other(&error.to_string()))?
        } else {
            let text = trust.ca.as_deref().unwrap_or_default();
            let mut roots = certificates(text).map_err(|why| other(&why))?;
            roots.extend(self.extra_roots.iter().cloned());
            let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&self.provider));
            Arc::new(verifier.map_err(|source| TransportError::Tls { source })?)
        };
        own.insert(trust.fingerprint(), Arc::downgrade(&made));
        Ok(made)
    }
}

fn other(why: &str) -> TransportError {
    TransportError::Tls { source: rustls::Error::General(why.to_owned()) }
}

/// Takes any certificate; that the other side has its key is still checked.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a text holds certificates in PEM, one of them still good at `now`. Says why not.
pub fn check_authorities(pem: &str, now: Timestamp) -> Result<(), String> {
    let all = certificates(pem)?;
    let mut roots = RootCertStore::empty();
    let mut times = Vec::with_capacity(all.len());
    for certificate in all {
        times.push(validity(&certificate)?);
        roots.add(certificate).map_err(|error| format!("one of the certificates cannot be used: {error}"))?;
    }
    if times.iter().any(|(from, until)| (*from..=*until).contains(&now)) {
        return Ok(());
    }
    // What becomes good soonest, or went bad last.
    let next = times.iter().map(|(from, _)| *from).filter(|from| *from > now).min();
    let last = times.iter().map(|(_, until)| *until).max();
    Err(match (next, last) {
        (Some(from), _) => format!("none of the certificates is valid before {from}"),
        (None, Some(until)) => format!("the certificates have expired; the last at {until}"),
        (None, None) => NO_CERTIFICATE.to_owned(),
    })
}

/// Whether a client certificate and its key belong together, and are good at `now`. Says why not.
pub fn check_identity(identity: &Identity, now: Timestamp) -> Result<(), String> {
    let chain = certificates(&identity.certificate)?;
    let Some(leaf) = chain.first() else { return Err(NO_CERTIFICATE.to_owned()) };
    let (from, until) = validity(leaf)?;
    if until < now {
        return Err(format!("the client certificate has expired at {until}"));
    }
    if from > now {
        return Err(format!("the client certificate is not valid before {from}"));
    }
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain, private_key(identity)?, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("the key is not the certificate's".to_owned()),
        Err(error) => Err(format!("certificate and key cannot be used: {error}")),
    }
}

/// When a client certificate expires, or one in its chain before it; `None` where that cannot be read.
pub fn expiry(identity: &Identity) -> Option<Timestamp> {
    let chain = certificates(&identity.certificate).ok()?;
    chain.iter().filter_map(|certificate| validity(certificate).ok()).map(|(_, until)| until).min()
}

const NO_CERTIFICATE: &str =
    "there is no certificate in PEM (a block that begins with -----BEGIN CERTIFICATE-----)";

/// The certificates of a text, at least one.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| format!("not valid PEM: {error}"))?;
    if all.is_empty() { Err(NO_CERTIFICATE.to_owned()) } else { Ok(all) }
}

fn private_key(identity: &Identity) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(identity.key.expose_secret().as_bytes()).map_err(|_| {
        "the key is no private key in PEM (a block that begins with -----BEGIN PRIVATE KEY-----)".to_owned()
    })
}

/// From when until when a certificate is good.
fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), String> {
    let parsed = x509_cert::Certificate::from_der(certificate)
        .map_err(|error| format!("one of the certificates cannot be read: {error}"))?;
    let time = |time: x509_cert::time::Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    };
    let validity = parsed.tbs_certificate.validity;
    Ok((time(validity.not_before), time(validity.not_after)))
}
