//! A TLS 1.3 handshake as the listener has it: what the server's side costs, in memory, without a socket. The client's
//! side runs in between and is not measured.
//!
//! In full, with the certificate's key (ECDSA P-256, as `openssl req -newkey ec` and most authorities make them); and
//! resumed with the ticket of the session before, which saves the signature and not the key exchange.

use super::{Bench, Meter, Part};
use parts::Result;
use pgpassport::frontend::server_config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, version};
use std::sync::Arc;

/// The name in the certificate.
const HOST: &str = "pgpassport.example";

/// The listener's settings, and a client's that trusts it.
struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

pub fn measure(bench: &mut Bench) -> Result<()> {
    let part = |name, budget| Part { name, per: "handshake", count: 1, budget, allocations: None };
    for (name, budget, resumption, kind) in [
        ("TLS handshake, full (ECDSA P-256)", 150_000.0, Resumption::disabled(), HandshakeKind::Full),
        ("TLS handshake, resumed", 130_000.0, Resumption::default(), HandshakeKind::Resumed),
    ] {
        let ends = Ends::new(resumption)?;
        // Brings the first ticket, where tickets are kept.
        shake_hands(&ends, &mut Meter::default())?;
        bench.time_within(part(name, budget), |meter| {
            let done = shake_hands(&ends, meter);
            assert!(matches!(&done, Ok(was) if *was == kind), "{done:?}");
        })?;
    }
    Ok(())
}

impl Ends {
    fn new(resumption: Resumption) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([HOST.to_owned()])?.signed_by(&key, &authority)?;
        let folder = tempfile::tempdir()?;
        let files = [folder.path().join("listener.crt"), folder.path().join("listener.key")];
        let [certificate_file, key_file] = &files;
        std::fs::write(certificate_file, certificate.pem())?;
        std::fs::write(key_file, key.serialize_pem())?;
        let server = server_config(certificate_file, key_file)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let provider = Arc::clone(server.crypto_provider());
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13])?;
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.resumption = resumption;
        Ok(Self { server, client: Arc::new(client) })
    }
}

/// One handshake to its end, the server's ticket included; what the server does is on the meter.
fn shake_hands(ends: &Ends, meter: &mut Meter) -> Result<HandshakeKind> {
    let mut client = ClientConnection::new(Arc::clone(&ends.client), ServerName::try_from(HOST)?)?;
    let mut server = meter.run(|| Ok(ServerConnection::new(Arc::clone(&ends.server))?))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said)?;
        }
        let answer = meter.run(|| answer(&mut server, &said))?;
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer)?;
            client.process_new_packets()?;
        }
    }
    Ok(server.handshake_kind().ok_or("no handshake")?)
}

/// What the server says to what the client has said.
fn answer(server: &mut ServerConnection, mut said: &[u8]) -> Result<Vec<u8>> {
    while !said.is_empty() {
        server.read_tls(&mut said)?;
        server.process_new_packets()?;
    }
    let mut answer = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut answer)?;
    }
    Ok(answer)
}
