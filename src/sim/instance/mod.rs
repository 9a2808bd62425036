//! A Cloud SQL instance: its certificates and settings, and the servers on 127.x.y.z:3307 and :5432.
//!
//! Source: Google's Cloud SQL connectors (TLS 1.3 on port 3307, client certificates from a CA of the instance) and
//! "IAM database authentication".

mod certificates;
mod login;
mod server;
pub(super) mod users;

pub(super) use server::{Path, Server, bind};

use super::Error;
use super::ServerCertificate;
use super::certs::{Leaf, random_serial};
use crate::names::InstanceName;
use crate::time::{Timestamp, later};
use certificates::{Certificates, ClientAuthority};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

/// Lifetime of an ephemeral client certificate.
const CLIENT_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(3600);
/// Ephemeral certificates begin a little early, for clocks that differ, in seconds.
const BACKDATED: i64 = 60;
/// Login tokens that certificates carry, kept at a time.
const MAX_EMBEDDED: usize = 10_000;

/// What the Admin API knows of the instance and the server needs.
#[derive(Debug)]
pub(super) struct Instance {
    name: InstanceName,
    address: SocketAddr,
    certificates: Certificates,
    clients: RwLock<ClientAuthority>,
    presented: RwLock<ServerCertificate>,
    patch: RwLock<Map<String, Value>>,
    /// Login tokens by the serial number of the client certificate that carries them.
    embedded: Mutex<HashMap<Vec<u8>, String>>,
    /// Who speaks in PostgreSQL's place.
    /// `connectorEnforcement`.
    connectors_only: AtomicBool,
    stand_in: RwLock<Option<SocketAddr>>,
}

impl Instance {
    /// Makes the instance's CAs and certificates.
    pub(super) fn new(
        name: InstanceName,
        address: SocketAddr,
        presented: ServerCertificate,
        now: Timestamp,
    ) -> Result<Self, Error> {
        Ok(Self {
            certificates: Certificates::new(&name, now)?,
            clients: RwLock::new(ClientAuthority::new(&name)?),
            name,
            address,
            presented: RwLock::new(presented),
            patch: RwLock::default(),
            embedded: Mutex::default(),
            connectors_only: AtomicBool::new(false),
            stand_in: RwLock::default(),
        })
    }

    /// Connection name.
    pub(super) fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nobody in but through the connector's port.
    pub(super) fn require_connectors(&self) {
        self.connectors_only.store(true, Ordering::Relaxed);
    }

    /// Changes the server certificate for new connections.
    pub(super) fn present(&self, certificate: ServerCertificate) {
        *super::write(&self.presented) = certificate;
    }

    /// Puts a program in PostgreSQL's place for new connections.
    pub(super) fn set_stand_in(&self, address: Option<SocketAddr>) {
        *super::write(&self.stand_in) = address;
    }

    /// Chain and key (PEM) of what new connections are shown.
    pub(super) fn server_identity(&self) -> (String, String) {
        let identity = self.certificates.identity(*super::read(&self.presented));
        (identity.chain_pem.clone(), identity.key_pem.clone())
    }

    /// Lays members over `connectSettings`.
    pub(super) fn patch(&self, patch: Map<String, Value>) {
        *super::write(&self.patch) = patch;
    }

    /// Replaces the client CA.
    pub(super) fn rotate_client_authority(&self) -> Result<(), Error> {
        let fresh = ClientAuthority::new(&self.name)?;
        *super::write(&self.clients) = fresh;
        Ok(())
    }

    /// The answer of `connectSettings`.
    pub(super) fn connect_settings(&self) -> Value {
        let presented = *super::read(&self.presented);
        let mut settings = json!({
            "kind": "sql#connectSettings",
            "serverCaCert": {
                "kind": "sql#sslCert", "certSerialNumber": "0",
                "cert": self.certificates.anchors(presented), "commonName": "C=US,O=Google\\, Inc,CN=Google Cloud SQL Server CA",
                "sha1Fingerprint": "0000000000000000000000000000000000000000", "instance": self.name.instance(),
                "createTime": "2026-01-01T00:00:00.000Z", "expirationTime": "2036-01-01T00:00:00.000Z",
            },
            "ipAddresses": [{ "type": "PRIMARY", "ipAddress": self.address.ip().to_string() }],
            "region": self.name.region(),
            "databaseVersion": "POSTGRES_15",
            "backendType": "SECOND_GEN",
            "pscEnabled": false,
            "serverCaMode": "GOOGLE_MANAGED_INTERNAL_CA",
        });
        if let Some(members) = settings.as_object_mut() {
            if presented == ServerCertificate::DnsName {
                members.insert("serverCaMode".to_owned(), "GOOGLE_MANAGED_CAS_CA".into());
                members.insert("dnsName".to_owned(), certificates::DNS_NAME.into());
                let name = json!([{
                    "name": certificates::DNS_NAME, "connectionType": "PUBLIC", "dnsScope": "INSTANCE",
                    "recordManager": "CLOUD_SQL_AUTOMATION",
                }]);
                members.insert("dnsNames".to_owned(), name);
            }
            members.extend(super::read(&self.patch).clone());
            members.retain(|_, value| !value.is_null());
        }
        settings
    }

    /// The answer of `generateEphemeralCert`: one leaf, valid for an hour, that may carry a login token.
    pub(super) fn issue_client_certificate(
        &self,
        key: &rcgen::SubjectPublicKeyInfo,
        login_token: Option<String>,
        now: Timestamp,
    ) -> Result<Value, Error> {
        let serial = random_serial();
        let leaf = Leaf {
            common_name: "Google Cloud SQL Client",
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            not_before: Timestamp::from_second(now.as_second() - BACKDATED).unwrap_or(now),
            not_after: later(now, CLIENT_CERTIFICATE_LIFETIME),
            serial: serial.clone(),
        };
        let cert = super::read(&self.clients).authority.sign(&leaf, key)?;
        if let Some(token) = login_token {
            let mut embedded = super::lock(&self.embedded);
            if embedded.len() >= MAX_EMBEDDED {
                embedded.clear();
            }
            embedded.insert(serial, token);
        }
        Ok(json!({
            "kind": "sql#sslCert", "cert": cert, "commonName": "Google Cloud SQL Client",
            "createTime": now.to_string(), "instance": self.name.instance(),
        }))
    }

    /// The login token that a client certificate carries.
    fn embedded_token(&self, serial: &[u8]) -> Option<String> {
        super::lock(&self.embedded).get(serial).cloned()
    }
}
