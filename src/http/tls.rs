//! Trust: the platform's roots, or exactly one CA file; never both.

use super::Error;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Most certificates that a CA file may hold.
const MAX_CA_CERTIFICATES: usize = 1000;

/// TLS 1.2 and 1.3 on aws-lc-rs, HTTP/2 preferred. The provider is named here, so that no process-wide default
/// is needed or can be swapped by another crate.
pub(super) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let roots = match ca {
        Some(path) => file_roots(path)?,
        None => platform_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::SetUp(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn file_roots(path: &Path) -> Result<RootCertStore, Error> {
    let refuse = |reason: String| Error::SetUp(format!("{}: {reason}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| refuse(e.to_string()))? {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
        if roots.len() > MAX_CA_CERTIFICATES {
            return Err(refuse(format!("holds more than {MAX_CA_CERTIFICATES} certificates")));
        }
    }
    if roots.is_empty() { Err(refuse("holds no certificate".to_owned())) } else { Ok(roots) }
}

fn platform_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A platform's store may hold a few certificates that webpki cannot read; the others still count.
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::SetUp(format!("the platform has no trust roots {}", reasons.join("; ")).trim().to_owned()));
    }
    Ok(roots)
}
