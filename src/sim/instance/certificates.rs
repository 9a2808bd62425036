//! The instance's server certificates, right and wrong, and the CA of its clients.

use crate::names::InstanceName;
use crate::sim::certs::{Authority, Identity, Leaf, failed, random_serial};
use crate::sim::{Error, ServerCertificate};
use crate::time::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::RootCertStore;
use std::sync::Arc;

/// The instance's DNS name; ends in a dot, in the certificate too, as Google's do.
pub(super) const DNS_NAME: &str = "0a1b2c3d4e5f.2g3h4i5j6k7l.europe-west1.sql.goog.";
/// Days that a server certificate is valid before and after now.
const VALID_DAYS: i64 = 30;
/// Seconds in a day.
const DAY: i64 = 86_400;

/// Every certificate that the instance may be told to show.
#[derive(Debug)]
pub(super) struct Certificates {
    root: Authority,
    cas_root: Authority,
    cas_intermediate: Authority,
    common_name: Identity,
    other_instance: Identity,
    dns_name: Identity,
    foreign: Identity,
    expired: Identity,
}

/// Signs ephemeral client certificates and verifies them.
#[derive(Debug)]
pub(super) struct ClientAuthority {
    pub(super) authority: Authority,
    pub(super) roots: Arc<RootCertStore>,
}

impl Certificates {
    /// Makes all of them, valid around `now`.
    pub(super) fn new(name: &InstanceName, now: Timestamp) -> Result<Self, Error> {
        let root = Authority::root("Google Cloud SQL Root CA")?;
        let cas_root = Authority::root("Google Cloud SQL Server CAS Root CA")?;
        let cas_intermediate = cas_root.intermediate("Google Cloud SQL Intermediate CA")?;
        let common_name = name.certificate_name();
        let right = leaf(&common_name, now, 0);
        let dns_name = DNS_NAME.try_into().map_err(|error| failed(DNS_NAME, error))?;
        let dns_leaf = Leaf { names: vec![SanType::DnsName(dns_name)], ..leaf("", now, 0) };
        let mut dns_name = cas_intermediate.identity(&dns_leaf)?;
        dns_name.chain.push(cas_root.certificate.clone());
        Ok(Self {
            common_name: root.identity(&right)?,
            other_instance: root.identity(&leaf(&format!("{}:another", name.project()), now, 0))?,
            dns_name,
            foreign: Authority::root("Google Cloud SQL Root CA")?.identity(&right)?,
            expired: root.identity(&leaf(&common_name, now, -(VALID_DAYS + 1)))?,
            root,
            cas_root,
            cas_intermediate,
        })
    }

    /// Chain and key to show.
    pub(super) fn identity(&self, which: ServerCertificate) -> &Identity {
        match which {
            ServerCertificate::CommonName => &self.common_name,
            ServerCertificate::OtherInstance => &self.other_instance,
            ServerCertificate::DnsName => &self.dns_name,
            ServerCertificate::ForeignCa => &self.foreign,
            ServerCertificate::Expired => &self.expired,
        }
    }

    /// `serverCaCert.cert`: PEM blocks that are all trust anchors.
    pub(super) fn anchors(&self, which: ServerCertificate) -> String {
        match which {
            ServerCertificate::DnsName => format!("{}{}", self.cas_intermediate.pem, self.cas_root.pem),
            _ => self.root.pem.clone(),
        }
    }
}

impl ClientAuthority {
    /// A new CA for this instance's clients.
    pub(super) fn new(name: &InstanceName) -> Result<Self, Error> {
        let authority = Authority::root(&format!("Google Cloud SQL Signing CA {}", name.certificate_name()))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).map_err(|error| failed("the client CA", error))?;
        Ok(Self { authority, roots: Arc::new(roots) })
    }
}

fn leaf(common_name: &str, now: Timestamp, shift_days: i64) -> Leaf<'_> {
    let days = |days: i64| Timestamp::from_second(now.as_second() + days * DAY).unwrap_or(now);
    Leaf {
        common_name,
        names: Vec::new(),
        usage: ExtendedKeyUsagePurpose::ServerAuth,
        not_before: days(shift_days - VALID_DAYS),
        not_after: days(shift_days + VALID_DAYS),
        serial: random_serial(),
    }
}
