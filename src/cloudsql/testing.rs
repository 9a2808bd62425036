//! Certificates for this module's tests: an authority, its servers' leaves and ephemeral client certificates.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::time::Duration;

/// A CA whose key the test holds.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What to sign.
pub(crate) struct Leaf {
    common: Vec<String>,
    alternatives: Vec<String>,
    usage: Option<ExtendedKeyUsagePurpose>,
}

/// A signed leaf with its key.
pub(crate) struct Signed {
    pub der: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Leaf {
    /// A server's certificate; `None` leaves the common name out, `Some("")` makes it empty.
    pub fn server(common: Option<&str>, alternatives: &[&str]) -> Self {
        Self {
            common: common.map(str::to_owned).into_iter().collect(),
            alternatives: alternatives.iter().map(|name| (*name).to_owned()).collect(),
            usage: Some(ExtendedKeyUsagePurpose::ServerAuth),
        }
    }

    /// The server's certificate of the per-instance CA: a common name and nothing else.
    pub fn legacy(common: &str) -> Self {
        Self { usage: None, ..Self::server(Some(common), &[]) }
    }

    /// A client's certificate.
    pub fn client(common: &str) -> Self {
        Self { usage: Some(ExtendedKeyUsagePurpose::ClientAuth), ..Self::server(Some(common), &[]) }
    }
}

impl Leaf {
    /// The same with a second common name.
    pub fn also_called(mut self, common: &str) -> Self {
        self.common.push(common.to_owned());
        self
    }
}

impl Authority {
    /// A self-signed root.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(Self::params(name), key).unwrap())
    }

    /// A self-signed root that ends in a day.
    pub fn expiring(name: &str) -> Self {
        let mut params = Self::params(name);
        Self::valid(&mut params, Duration::from_secs(24 * 3600));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A CA below this one.
    pub fn subordinate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(Self::params(name), key, &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a leaf that began and ends a day from now.
    pub fn sign(&self, leaf: &Leaf) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // A name holds each type once; the same OID under another spelling makes the second one.
        let types = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (kind, common) in types.into_iter().zip(&leaf.common) {
            params.distinguished_name.push(kind, common.as_str());
        }
        params.subject_alt_names =
            leaf.alternatives.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap())).collect();
        params.extended_key_usages = leaf.usage.clone().into_iter().collect();
        Self::valid(&mut params, Duration::from_secs(24 * 3600));
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed { der: certificate.der().clone(), key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// What `generateEphemeralCert` answers for a public key: PEM.
    pub fn ephemeral(&self, public_key: &str, lifetime: Duration) -> String {
        let public = SubjectPublicKeyInfo::from_pem(public_key).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Google Cloud SQL Client");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self::valid(&mut params, lifetime);
        params.signed_by(&public, &self.0).unwrap().pem()
    }

    fn valid(params: &mut CertificateParams, lifetime: Duration) {
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(24 * 3600)).into();
        params.not_after = (now + lifetime).into();
    }
}
