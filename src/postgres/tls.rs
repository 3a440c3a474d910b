//! The `rustls` configuration that a connection string asks for.
//!
//! Files are read at each connection, so that renewed certificates need no restart.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::server::{Roots, TlsMode};
use super::verify::{self, Trust, Verifier};
use super::{ConnectError, Server};

/// Builds the configuration; `None` with `sslmode=disable`.
pub(super) fn client_config(server: &Server) -> Result<Option<Arc<ClientConfig>>, ConnectError> {
    let options = &server.tls;
    let provider = Arc::new(ring::default_provider());
    let setup =
        |source: rustls::Error| ConnectError::TlsSetup { server: server.display(), source: Box::new(source) };
    let verifier: Arc<dyn ServerCertVerifier> = match (options.mode, &options.roots) {
        (TlsMode::Disable, _) => return Ok(None),
        (TlsMode::VerifyFull, None) | (_, Some(Roots::System)) => {
            Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).map_err(setup)?)
        }
        (TlsMode::VerifyFull, Some(Roots::File(path))) => ours(Trust::ChainAndName(roots(path)?), &provider),
        (TlsMode::Require | TlsMode::VerifyCa, Some(Roots::File(path))) => {
            ours(Trust::Chain(roots(path)?), &provider)
        }
        (TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa, _) => ours(Trust::Nobody, &provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("sslcert", cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| file("sslkey", key, e))?;
            builder.with_client_auth_cert(chain, key).map_err(setup)?
        }
    };
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn ours(trust: Trust, provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { trust, provider: Arc::clone(provider) })
}

fn roots(path: &Path) -> Result<verify::Roots, ConnectError> {
    let pinned = certificates("sslrootcert", path)?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(pinned.iter().cloned());
    Ok(verify::Roots { store, pinned })
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_file_iter(path)?.collect()
    };
    match read() {
        Ok(found) if found.is_empty() => Err(file(option, path, rustls::pki_types::pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(file(option, path, error)),
    }
}

fn file(option: &'static str, path: &Path, source: rustls::pki_types::pem::Error) -> ConnectError {
    ConnectError::TlsFile { option, path: path.to_owned(), source: Box::new(source) }
}
