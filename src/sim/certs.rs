//! Certificate authorities and leaves of the simulated cloud. Keys are P-256 and live in memory only.

use super::Error;
use crate::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A CA: signs leaves and lower CAs.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// The same as PEM.
    pub(super) pem: String,
}

/// A certificate chain (leaf first) with the leaf's key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Chain and key as PEM files.
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
}

/// What a leaf says.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    /// `CN`; empty for none.
    pub(super) common_name: &'a str,
    pub(super) names: Vec<SanType>,
    pub(super) usage: ExtendedKeyUsagePurpose,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) serial: Vec<u8>,
}

impl Authority {
    /// A self-signed root, `C=US, O=Google\, Inc` as Cloud SQL's have it.
    pub(super) fn root(common_name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let params = authority_params(common_name);
        let certificate = params.self_signed(&key).map_err(|error| failed(common_name, error))?;
        Ok(Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// A CA below this one.
    pub(super) fn intermediate(&self, common_name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let params = authority_params(common_name);
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| failed(common_name, error))?;
        Ok(Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    /// Signs a leaf over somebody else's key; returns PEM.
    pub(super) fn sign(&self, leaf: &Leaf<'_>, key: &impl PublicKeyData) -> Result<String, Error> {
        let signed = leaf.params().signed_by(key, &self.issuer).map_err(|error| failed(leaf.common_name, error))?;
        Ok(signed.pem())
    }

    /// Makes a key and signs a leaf over it; the chain ends with this CA.
    pub(super) fn identity(&self, leaf: &Leaf<'_>) -> Result<Identity, Error> {
        let key = new_key()?;
        let signed = leaf.params().signed_by(&key, &self.issuer).map_err(|error| failed(leaf.common_name, error))?;
        Ok(Identity {
            chain_pem: format!("{}{}", signed.pem(), self.pem),
            key_pem: key.serialize_pem(),
            chain: vec![signed.der().clone(), self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}

impl Leaf<'_> {
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(self.common_name);
        params.subject_alt_names.clone_from(&self.names);
        params.extended_key_usages = vec![self.usage.clone()];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from_slice(&self.serial));
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch(self.not_before);
        params.not_after = epoch + since_epoch(self.not_after);
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// The names of a server on this machine's loopback.
pub(super) fn loopback_names() -> Result<Vec<SanType>, Error> {
    let localhost = "localhost".try_into().map_err(|error| failed("localhost", error))?;
    Ok(vec![SanType::DnsName(localhost), SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))])
}

/// 16 random bytes, positive as a DER integer.
pub(super) fn random_serial() -> Vec<u8> {
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial.to_vec()
}

/// A certificate or key that cannot be made.
pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Certificate(format!("{what}: {error}"))
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "US");
    name.push(DnType::OrganizationName, "Google, Inc");
    if !common_name.is_empty() {
        name.push(DnType::CommonName, common_name);
    }
    name
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| failed("a key", error))
}

/// X.509 counts whole seconds.
fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0))
}
