//! Somebody who wants to reach the instance without the proxy: with whatever tokens they hold, at Google's services and
//! at the instance's own ports, as a connector or psql would do it.

use crate::wire;
use pgpassport::http::{Client, Response};
use pgpassport::secret::Secret;
use pgpassport::sim::{Cloud, world};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version};

/// How long a service may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Calls everybody directly.
#[derive(Debug)]
pub struct Intruder<'a> {
    cloud: &'a Cloud,
    http: Client,
}

/// An ephemeral client certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    leaf: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// What they got, or in whose words they did not.
pub type Got<T> = Result<T, String>;

impl<'a> Intruder<'a> {
    /// Knows the cloud's addresses and trusts its certificates.
    pub fn new(cloud: &'a Cloud) -> Self {
        Self { cloud, http: Client::new(Some(cloud.ca_path())).expect("a client") }
    }

    /// STS: a token of Entra's for a federated one.
    pub async fn exchange(&self, token: &str, provider: &str, scope: &str) -> Got<String> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", provider),
            ("scope", scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ];
        self.post(&format!("{}/v1/token", self.cloud.sts_url()), &form, "access_token").await
    }

    /// A grant at Entra's token endpoint.
    pub async fn sign_in(&self, form: &[(&str, &str)]) -> Got<String> {
        let url = format!("{}/{}/oauth2/v2.0/token", self.cloud.entra_authority(), world::CONTOSO.id);
        self.post(&url, form, "access_token").await
    }

    /// Begins a device sign-in: the code, or why not.
    pub async fn device_code(&self, scope: &str) -> Got<String> {
        let url = format!("{}/{}/oauth2/v2.0/devicecode", self.cloud.entra_authority(), world::CONTOSO.id);
        self.post(&url, &[("client_id", world::SIGN_IN_CLIENT), ("scope", scope)], "device_code").await
    }

    /// IAM Credentials: a service account's token.
    pub async fn impersonate(&self, bearer: &str, account: &str, scope: &str) -> Got<String> {
        let base = self.cloud.iam_credentials_url();
        let url = format!("{base}/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
        let bearer = Secret::new(bearer.to_owned());
        let answer = self.http.post_json(&url, &bearer, &json!({ "scope": [scope] }), DEADLINE).await;
        member(answer.expect("IAM answers"), "/accessToken")
    }

    /// The Admin API: a client certificate, which may carry a login token.
    pub async fn certificate(&self, bearer: &str, login: Option<&str>) -> Got<Certificate> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        let base = self.cloud.sql_admin_url();
        let url = format!("{base}/sql/v1beta4/projects/demo-project/instances/orders:generateEphemeralCert");
        let request = json!({ "public_key": key.public_key_pem(), "access_token": login });
        let answer = self.http.post_json(&url, &Secret::new(bearer.to_owned()), &request, DEADLINE).await;
        let pem = member(answer.expect("the Admin API answers"), "/ephemeralCert/cert")?;
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        Ok(Certificate { leaf, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    /// The connector's port, with or without a certificate.
    pub async fn connector(&self, certificate: Option<&Certificate>, user: &str, password: &str) -> Got<()> {
        let stream = TcpStream::connect(self.cloud.instance_address()).await.map_err(|error| error.to_string())?;
        self.log_in(stream, certificate, user, password).await
    }

    /// PostgreSQL's own port.
    pub async fn direct(&self, user: &str, password: &str) -> Got<()> {
        let mut stream = TcpStream::connect(self.cloud.direct_address()).await.map_err(|error| error.to_string())?;
        stream.write_all(&wire::ssl_request()).await.map_err(|error| error.to_string())?;
        wire::expect_consent(&mut stream).await.map_err(|error| error.to_string())?;
        self.log_in(stream, None, user, password).await
    }

    async fn log_in(
        &self,
        stream: TcpStream,
        certificate: Option<&Certificate>,
        user: &str,
        password: &str,
    ) -> Got<()> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let config = match certificate {
            Some(own) => config.with_client_auth_cert(vec![own.leaf.clone()], own.key.clone_key()).expect("a pair"),
            None => config.with_no_client_auth(),
        };
        let name = ServerName::from(self.cloud.instance_address().ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let database = world::DATABASE.as_bytes();
        let last = wire::log_in(&mut stream, user.as_bytes(), database, password).await;
        match last.map_err(|error| error.to_string())? {
            message if message.tag == b'Z' => Ok(()),
            message => Err(message.field(b'M').unwrap_or_default()),
        }
    }

    async fn post(&self, url: &str, form: &[(&str, &str)], name: &str) -> Got<String> {
        let answer = self.http.post_form(url, form, DEADLINE).await;
        member(answer.expect("the service answers"), &format!("/{name}"))
    }
}

fn member(answer: Response, pointer: &str) -> Got<String> {
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    match body.pointer(pointer).and_then(Value::as_str) {
        Some(found) if answer.status == 200 => Ok(found.to_owned()),
        _ => Err(body.to_string()),
    }
}

/// Intruders do not mind whom they talk to.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
