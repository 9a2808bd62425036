//! A look at the proxy before a token is sent there: is it reachable, does it speak TLS, is it who it says it is?
//!
//! psql checks all of that again (`sslmode=verify-full`); here it is said in words, and before anybody signs in.

use crate::wire::SSL_REQUEST_PACKET;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long the look may take, from the name to the end of the handshake.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// Where systems keep their trust roots in one PEM file: Debian, Fedora, SUSE, Alpine and macOS.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where a proxy is, and what vouches for it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Host name or address, as its certificate has it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// PEM file of the trusted CAs.
    pub ca: PathBuf,
}

/// Why the proxy is not talked to.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The CA file has nothing that can be trusted.
    #[error("the CA file {path} cannot be used: {reason}")]
    Ca {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// `host` is neither a name nor an address.
    #[error("{0:?} is no host name")]
    Name(String, #[source] InvalidDnsNameError),
    /// No connection.
    #[error("the proxy at {0} cannot be reached")]
    Unreachable(String, #[source] io::Error),
    /// No answer in time.
    #[error("the proxy at {0} did not answer within {DEADLINE:?}")]
    Slow(String),
    /// Something else listens there.
    #[error("what listens at {0} is no PostgreSQL server with TLS")]
    NoTls(String),
    /// Its certificate is signed by nobody we trust.
    #[error("the certificate of {0} is not signed by a CA of {1}")]
    Untrusted(String, PathBuf),
    /// Its certificate is somebody else's.
    #[error("the certificate of {address} is not for the name {host:?}")]
    WrongName {
        /// Where.
        address: String,
        /// The name that was asked for.
        host: String,
    },
    /// Another failure of the handshake.
    #[error("TLS with {0} failed")]
    Tls(String, #[source] io::Error),
}

impl ProxyError {
    /// What the person can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Ca { .. } | Self::Untrusted(..) => {
                "`ca_certificate` must be the PEM of the CA that signed the proxy's"
            }
            Self::Name(..) | Self::WrongName { .. } => "`host` must be a name that the proxy's certificate has",
            Self::Unreachable(..) | Self::Slow(_) => "check `host` and `port`, the VPN, and that the proxy is up",
            Self::NoTls(_) => "check `host` and `port`",
            Self::Tls(..) => "ask the operator about the proxy's certificate",
        }
    }
}

/// The system's trust roots as one file, which every libpq can read (`sslrootcert=system` needs 16 and OpenSSL's own
/// folders): `SSL_CERT_FILE` (`named`) when it is set, else where systems keep them.
pub fn system_roots(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.is_file()))
}

impl Proxy {
    /// Connects, verifies the server, and leaves. Nothing is sent but the wish for TLS.
    pub async fn verify(&self) -> Result<(), ProxyError> {
        let mut stream = self.connect().await?;
        // It has told what there was to learn; whether it hears the goodbye does not matter.
        let _ = stream.shutdown().await;
        Ok(())
    }

    /// A connection whose other end is the proxy: chain and name are verified, nothing of a session has been sent.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, ProxyError> {
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| ProxyError::Name(self.host.clone(), error))?;
        let tls = client(&self.ca)?;
        let connected = tokio::time::timeout(DEADLINE, self.handshake(name, tls)).await;
        connected.unwrap_or_else(|_| Err(ProxyError::Slow(self.address())))
    }

    async fn handshake(
        &self,
        name: ServerName<'static>,
        tls: ClientConfig,
    ) -> Result<TlsStream<TcpStream>, ProxyError> {
        let unreachable = |error| ProxyError::Unreachable(self.address(), error);
        let mut tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        tcp.write_all(&SSL_REQUEST_PACKET).await.map_err(unreachable)?;
        let mut answer = [0];
        let read = tcp.read(&mut answer).await.map_err(unreachable)?;
        if read != 1 || answer != [b'S'] {
            return Err(ProxyError::NoTls(self.address()));
        }
        let connected = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await;
        connected.map_err(|error| self.judged(error))
    }

    fn judged(&self, error: io::Error) -> ProxyError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => ProxyError::Untrusted(self.address(), self.ca.clone()),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => ProxyError::WrongName { address: self.address(), host: self.host.clone() },
            _ => ProxyError::Tls(self.address(), error),
        }
    }

    /// `HOST:PORT`.
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn client(ca: &Path) -> Result<ClientConfig, ProxyError> {
    let unusable = |reason: String| ProxyError::Ca { path: ca.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(ca).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    // A system's file may hold a few that webpki cannot read; the others still count.
    let (added, _ignored) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if added == 0 {
        return Err(unusable("it has no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn proxy(port: u16, ca: &Path) -> Proxy {
        Proxy { host: "localhost".to_owned(), port, ca: ca.to_owned() }
    }

    fn authority() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&path, pair.cert.pem()).unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn a_ca_file_that_is_missing_or_empty_is_told_before_anything_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        for path in [&empty, &folder.path().join("missing.pem")] {
            let error = proxy(1, path).verify().await.unwrap_err();
            assert!(matches!(error, ProxyError::Ca { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_proxy_is_told_in_words() {
        let (_folder, ca) = authority();
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let error = proxy(nobody, &ca).verify().await.unwrap_err();
        assert_eq!(error.to_string(), format!("the proxy at localhost:{nobody} cannot be reached"));
        for answer in [b"N".as_slice(), b"", b"HTTP/1.1 400"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(answer).await.unwrap();
                request
            });
            let error = proxy(port, &ca).verify().await.unwrap_err();
            assert!(matches!(error, ProxyError::NoTls(_)), "{error}");
            assert_eq!(server.await.unwrap(), SSL_REQUEST_PACKET);
        }
    }

    #[test]
    fn a_named_file_of_roots_comes_first() {
        assert_eq!(system_roots(Some(PathBuf::from("/x"))), Some(PathBuf::from("/x")));
    }
}
