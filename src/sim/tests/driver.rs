//! What the tests do again and again: HTTP calls, exchanges, dialing and logging in.

use crate::federation::{ADMIN_SCOPE, LOGIN_SCOPE};
use crate::sim::world::{self, App, ORDERS_APP, Person};
use crate::sim::{Cloud, CloudOptions, TokenSpec, provider};
use crate::wire::{ErrorFields, HEADER_BYTES, Header, append};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(super) const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

pub(super) struct Driver {
    pub(super) cloud: Cloud,
    pub(super) http: reqwest::Client,
}

/// A client certificate and its key.
pub(super) struct ClientIdentity {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Driver {
    pub(super) async fn start() -> Self {
        let cloud = Cloud::start(CloudOptions::default()).await.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(cloud.ca_path()).unwrap()).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self { cloud, http }
    }

    pub(super) async fn get(&self, url: &str) -> (u16, Value) {
        answer(self.http.get(url)).await
    }

    pub(super) async fn post(&self, url: &str, form: &[(&str, &str)]) -> (u16, Value) {
        answer(self.http.post(url).form(form)).await
    }

    pub(super) async fn post_json(&self, url: &str, bearer: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(url).json(body);
        answer(if bearer.is_empty() { request } else { request.bearer_auth(bearer) }).await
    }

    pub(super) async fn sts(&self, token: &str, audience: &str, scope: &str) -> (u16, Value) {
        self.sts_with(token, audience, scope, &[]).await
    }

    pub(super) async fn sts_with(
        &self,
        token: &str,
        audience: &str,
        scope: &str,
        more: &[(&str, &str)],
    ) -> (u16, Value) {
        let mut form = vec![
            ("grant_type", EXCHANGE),
            ("audience", audience),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", token),
            ("subject_token_type", JWT),
        ];
        form.extend_from_slice(more);
        self.post(&format!("{}/v1/token", self.cloud.sts_url()), &form).await
    }

    pub(super) async fn impersonate(&self, bearer: &str, account: &str, body: &Value) -> (u16, Value) {
        let base = self.cloud.iam_credentials_url();
        self.post_json(&format!("{base}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"), bearer, body)
            .await
    }

    pub(super) fn mint(&self, spec: &TokenSpec) -> String {
        self.cloud.mint(spec).unwrap().expose().clone()
    }

    /// A person's login token, by workforce federation.
    pub(super) async fn person_login(&self, person: &Person) -> String {
        let token = self.mint(&TokenSpec::person(person));
        text(&self.sts(&token, world::WORKFORCE_PROVIDER, LOGIN_SCOPE).await, "access_token")
    }

    /// An app's login token, by workload federation and impersonation.
    pub(super) async fn app_login(&self, app: &App) -> String {
        let token = self.mint(&TokenSpec::app(app));
        let federated = text(&self.sts(&token, world::WORKLOAD_PROVIDER, IAM_SCOPE).await, "access_token");
        let body = json!({ "scope": [LOGIN_SCOPE], "lifetime": "3600s", "delegates": null });
        text(&self.impersonate(&federated, ORDERS_APP.service_account, &body).await, "accessToken")
    }

    /// The proxy's own token for the Admin API, the whole way: managed identity, STS, impersonation.
    pub(super) async fn admin_token(&self) -> String {
        let url = format!("{}?api-version=2019-08-01&resource={}", self.cloud.identity_endpoint(), world::OWN_RESOURCE);
        let request = self.http.get(url).header("X-IDENTITY-HEADER", self.cloud.identity_header());
        let token = text(&answer(request).await, "access_token");
        let federated = text(&self.sts(&token, world::OWN_PROVIDER, IAM_SCOPE).await, "access_token");
        let body = json!({ "scope": [ADMIN_SCOPE] });
        text(&self.impersonate(&federated, world::OWN_SERVICE_ACCOUNT, &body).await, "accessToken")
    }

    pub(super) fn instance_url(&self, rest: &str) -> String {
        format!("{}/sql/v1beta4/projects/demo-project/instances/orders{rest}", self.cloud.sql_admin_url())
    }

    /// An ephemeral certificate, which may carry a login token.
    pub(super) async fn client_identity(&self, login_token: Option<&str>) -> ClientIdentity {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let mut body = json!({ "public_key": key.public_key_pem() });
        if let Some(token) = login_token {
            body["access_token"] = token.into();
        }
        let (status, answer) =
            self.post_json(&self.instance_url(":generateEphemeralCert"), &self.admin_token().await, &body).await;
        assert_eq!(status, 200, "{answer}");
        let pem = answer["ephemeralCert"]["cert"].as_str().unwrap();
        ClientIdentity {
            certificate: CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    /// TLS to the instance. Checks nothing of the server: that is the proxy's business.
    pub(super) async fn dial(&self, identity: &ClientIdentity) -> TlsStream<TcpStream> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .unwrap();
        let address = self.cloud.instance_address();
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await.unwrap()
    }

    /// Logs in by hand; the refusal, if there is one.
    pub(super) async fn login(&self, identity: &ClientIdentity, user: &str, password: &str) -> Option<ErrorFields> {
        let mut stream = self.dial(identity).await;
        stream.write_all(&startup(&[("user", user), ("database", "orders")])).await.unwrap();
        loop {
            let (kind, body) = message(&mut stream).await;
            match (kind, body.as_slice()) {
                (b'R', [0, 0, 0, 3]) => {
                    let mut out = Vec::new();
                    append(&mut out, b'p', format!("{password}\0").as_bytes());
                    stream.write_all(&out).await.unwrap();
                }
                (b'E', body) => return Some(ErrorFields::decode(body).unwrap()),
                (b'Z', _) => return None,
                _ => {}
            }
        }
    }

    /// A session by tokio-postgres.
    pub(super) async fn session(
        &self,
        identity: &ClientIdentity,
        user: &str,
        password: &str,
    ) -> tokio_postgres::Client {
        let stream = self.dial(identity).await;
        let mut config = tokio_postgres::Config::new();
        config.user(user).password(password).dbname("orders").ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// A string member of a successful answer.
pub(super) fn text((status, body): &(u16, Value), member: &str) -> String {
    assert_eq!(*status, 200, "{body}");
    body[member].as_str().unwrap_or_else(|| panic!("no {member}: {body}")).to_owned()
}

pub(super) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

pub(super) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = crate::wire::PROTOCOL_3_0.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

pub(super) async fn message(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let header = Header::decode(&header).unwrap().unwrap();
    let mut body = vec![0; header.body];
    stream.read_exact(&mut body).await.unwrap();
    (header.kind, body)
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
