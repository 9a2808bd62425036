//! The listener's TLS settings.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// ALPN name of the PostgreSQL protocol (`src/include/libpq/pqcomm.h`, `PG_ALPN_PROTOCOL`).
pub const ALPN: &[u8] = b"postgresql";

/// Why the listener's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or no PEM.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The file has no certificate.
    #[error("{0} has no certificate")]
    Empty(PathBuf),
    /// Certificate and key do not fit, or the key is of an unknown kind.
    #[error("the listener's certificate and key cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// TLS 1.2 and 1.3 on aws-lc-rs with this certificate chain (leaf first) and key.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(read(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(read(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each session brings the ticket for the next one.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
