//! The server check of the connector protocol: the chain by webpki, the name by our own rule.
//!
//! The leaf must be signed by one of the certificates that the Admin API named for this very instance; what the
//! server sends besides its leaf is not used. The name check is Google's (`cloud-sql-go-connector`,
//! `internal/cloudsql/tls_verify.go`): with a DNS name in the settings, a subject alternative name must match it, or
//! else the common name must be `project:instance`; without one, only the common name counts. webpki cannot do
//! this: it ignores common names and never matches a presented name with a trailing dot, which Cloud SQL issues.

use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Names of a wrong certificate that an error repeats, in number; a certificate can carry thousands.
const MAX_NAMES_SHOWN: usize = 4;
/// Characters of each such name that an error repeats.
const MAX_NAME_SHOWN: usize = 100;

/// Whom a server certificate must name.
#[derive(Debug, Clone)]
pub(super) struct ExpectedName {
    /// The DNS name that the instance's settings give, if they give one.
    pub dns: Option<DnsName<'static>>,
    /// `project:instance`.
    pub common: String,
}

/// Accepts the server of one instance and no other.
#[derive(Debug)]
pub(super) struct InstanceVerifier {
    anchors: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    expected: ExpectedName,
}

/// The chain is right, the name is not.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is for {presented}, not for {expected}")]
struct WrongName {
    presented: String,
    expected: String,
}

impl InstanceVerifier {
    /// `anchors` are the instance's own CA certificates; nothing else is trusted.
    pub fn new(anchors: RootCertStore, algorithms: WebPkiSupportedAlgorithms, expected: ExpectedName) -> Self {
        Self { anchors, algorithms, expected }
    }
}

impl ServerCertVerifier for InstanceVerifier {
    /// Neither the sent intermediates nor the dialled name take part: the anchors and the expected name come from
    /// the Admin API, and the issuing CA is among the anchors.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.anchors, &[], now, self.algorithms.all)?;
        verify_name(end_entity, &self.expected)?;
        Ok(ServerCertVerified::assertion())
    }

    /// Never asked for: the connector offers TLS 1.3 alone.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 has no place here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The name half of the check, on a certificate whose chain is right.
fn verify_name(der: &CertificateDer<'_>, expected: &ExpectedName) -> Result<(), rustls::Error> {
    let bad = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| bad())?;
    if !rest.is_empty() {
        return Err(bad());
    }
    let alternatives = dns_alternatives(&certificate).ok_or_else(bad)?;
    let common = common_name(&certificate);
    let by_dns =
        expected.dns.as_ref().is_some_and(|name| alternatives.iter().any(|pattern| matches(pattern, name.as_ref())));
    if by_dns || common.is_some_and(|name| !name.is_empty() && name == expected.common) {
        return Ok(());
    }
    let wrong = WrongName { presented: presented(common, &alternatives), expected: wanted(expected) };
    Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong)))))
}

/// The DNS subject alternative names; `None` if the extension is there twice or cannot be read.
fn dns_alternatives<'a>(certificate: &'a X509Certificate<'_>) -> Option<Vec<&'a str>> {
    let extension = certificate.subject_alternative_name().ok()?;
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    Some(names.filter_map(|name| if let GeneralName::DNSName(dns) = name { Some(*dns) } else { None }).collect())
}

/// The one common name; a subject with several names nobody.
fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    let only = names.next()?;
    if names.next().is_some() { None } else { only.as_str().ok() }
}

/// Whether a presented name covers `reference`: without regard to case or to one trailing dot on either side,
/// literally or by a wildcard that is the whole left-most label over at least two more (RFC 6125 §6.4.3).
fn matches(presented: &str, reference: &str) -> bool {
    let (presented, reference) = (relative(presented), relative(reference));
    if presented.is_empty() || reference.is_empty() {
        return false;
    }
    match presented.strip_prefix("*.") {
        None => !presented.contains('*') && presented.eq_ignore_ascii_case(reference),
        Some(parent) => reference.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && parent.contains('.') && !parent.contains('*') && parent.eq_ignore_ascii_case(rest)
        }),
    }
}

fn relative(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn wanted(expected: &ExpectedName) -> String {
    match &expected.dns {
        Some(dns) => format!("{} or {}", dns.as_ref(), expected.common),
        None => expected.common.clone(),
    }
}

/// What the certificate says, safe to print: hostile names are escaped and cut.
fn presented(common: Option<&str>, alternatives: &[&str]) -> String {
    let names: Vec<String> = common
        .into_iter()
        .chain(alternatives.iter().copied())
        .take(MAX_NAMES_SHOWN)
        .map(|name| format!("{:?}", name.chars().take(MAX_NAME_SHOWN).collect::<String>()))
        .collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsql::testing::{Authority, Leaf};
    use std::time::Duration;

    const COMMON: &str = "demo-project:orders";
    const OTHER: &str = "other.europe-west1.sql.goog";
    const DNS: &str = "42cfcd0e.abc123.europe-west1.sql.goog.";

    /// Common name, alternative names, DNS name of the settings, accepted?
    type Row = (Option<&'static str>, &'static [&'static str], Option<&'static str>, bool);

    fn check(authority: &Authority, leaf: &CertificateDer<'static>, dns: Option<&str>) -> Result<(), rustls::Error> {
        check_at(authority, leaf, dns, UnixTime::now())
    }

    fn verifier(authority: &Authority, dns: Option<&str>, common: &str) -> InstanceVerifier {
        let mut anchors = RootCertStore::empty();
        anchors.add(authority.der()).unwrap();
        let dns = dns.map(|name| DnsName::try_from(name.to_owned()).unwrap());
        let expected = ExpectedName { dns, common: common.to_owned() };
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        InstanceVerifier::new(anchors, algorithms, expected)
    }

    fn check_at(
        authority: &Authority,
        leaf: &CertificateDer<'static>,
        dns: Option<&str>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let dialled = ServerName::try_from("127.0.0.1").unwrap();
        verifier(authority, dns, COMMON).verify_server_cert(leaf, &[], &dialled, &[], now).map(|_| ())
    }

    #[test]
    fn the_name_decides_as_in_googles_connectors() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        let table: &[Row] = &[
            // The matrix that unmodified connectors were measured with.
            (Some(COMMON), &[], None, true),
            (Some("other:inst"), &[], None, false),
            (Some(""), &[DNS], Some(DNS), true),
            (None, &[DNS], Some(DNS), true),
            (Some("other:inst"), &[DNS], Some(DNS), true),
            // The settings may list a name that the certificate does not have yet.
            (Some(COMMON), &[], Some(DNS), true),
            (Some(COMMON), &[OTHER], Some(DNS), true),
            (Some("other:inst"), &[OTHER], Some(DNS), false),
            (None, &[OTHER], Some(DNS), false),
            // Without a DNS name only the common name counts, and an empty one is nobody's.
            (None, &[DNS], None, false),
            (Some(""), &[], None, false),
            (Some(""), &["127.0.0.1"], None, false),
            (None, &[], None, false),
            // The dot and the case.
            (None, &["42cfcd0e.abc123.europe-west1.sql.goog"], Some(DNS), true),
            (None, &["42CFCD0E.ABC123.Europe-West1.SQL.goog."], Some(DNS), true),
            (None, &[DNS], Some("42cfcd0e.abc123.europe-west1.sql.goog"), true),
            (None, &["42cfcd0e.abc123.europe-west1.sql.goog.."], Some(DNS), false),
            // Wildcards.
            (None, &["*.abc123.europe-west1.sql.goog."], Some(DNS), true),
            (None, &["*.europe-west1.sql.goog"], Some(DNS), false),
            (None, &["42cfcd0e.*.europe-west1.sql.goog"], Some(DNS), false),
            (None, &["42*.abc123.europe-west1.sql.goog"], Some(DNS), false),
            (None, &["*"], Some("goog"), false),
            (None, &["*.goog"], Some("sql.goog"), false),
            // Common names are compared exactly; a DNS name in one counts for nothing.
            (Some("DEMO-PROJECT:orders"), &[], None, false),
            (Some("demo-project:orders."), &[], None, false),
            (Some("demo-project:orders-2"), &[], None, false),
            (Some(DNS), &[], Some(DNS), false),
        ];
        for (common, alternatives, dns, accepted) in table {
            let leaf = authority.sign(&Leaf::server(*common, alternatives)).der;
            let outcome = check(&authority, &leaf, *dns);
            assert_eq!(outcome.is_ok(), *accepted, "{common:?} {alternatives:?} {dns:?}: {outcome:?}");
        }
    }

    #[test]
    fn a_foreign_ca_is_refused_whatever_it_names() {
        let ours = Authority::new("Google Cloud SQL Root CA");
        let foreign = Authority::new("Google Cloud SQL Root CA");
        let leaf = foreign.sign(&Leaf::server(Some(COMMON), &[DNS])).der;
        assert!(check(&foreign, &leaf, Some(DNS)).is_ok());
        assert!(matches!(check(&ours, &leaf, Some(DNS)), Err(rustls::Error::InvalidCertificate(_))));
        assert!(matches!(check(&ours, &leaf, None), Err(rustls::Error::InvalidCertificate(_))));
    }

    #[test]
    fn an_expired_or_future_certificate_is_refused() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        let leaf = authority.sign(&Leaf::server(Some(COMMON), &[])).der;
        let day = Duration::from_secs(24 * 3600);
        let now = UnixTime::now().as_secs();
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now) + day * 3);
        let earlier = UnixTime::since_unix_epoch(Duration::from_secs(now).saturating_sub(day * 3));
        assert!(check(&authority, &leaf, None).is_ok());
        assert!(check_at(&authority, &leaf, None, later).is_err());
        assert!(check_at(&authority, &leaf, None, earlier).is_err());
    }

    #[test]
    fn an_intermediate_from_the_wire_is_not_used() {
        let root = Authority::new("Google Cloud SQL Root CA");
        let intermediate = root.subordinate("Google Cloud SQL Intermediate CA");
        let leaf = intermediate.sign(&Leaf::server(Some(COMMON), &[])).der;
        assert!(check(&intermediate, &leaf, None).is_ok(), "the issuing CA is in the bundle");
        let dialled = ServerName::try_from("127.0.0.1").unwrap();
        let sent = [intermediate.der()];
        let outcome = verifier(&root, None, COMMON).verify_server_cert(&leaf, &sent, &dialled, &[], UnixTime::now());
        assert!(outcome.is_err());
    }

    #[test]
    fn a_legacy_certificate_without_extended_key_usage_is_accepted() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        assert!(check(&authority, &authority.sign(&Leaf::legacy(COMMON)).der, None).is_ok());
        assert!(check(&authority, &authority.sign(&Leaf::legacy("other:inst")).der, None).is_err());
    }

    #[test]
    fn an_empty_common_name_passes_not_even_where_none_is_expected() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        for common in [Some(""), None] {
            let leaf = authority.sign(&Leaf::server(common, &[])).der;
            assert!(verify_name(&leaf, &verifier(&authority, None, "").expected).is_err());
        }
    }

    #[test]
    fn a_subject_with_two_common_names_names_nobody() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        let leaf = authority.sign(&Leaf::server(Some(COMMON), &[]).also_called("other:inst")).der;
        let text = check(&authority, &leaf, None).unwrap_err().to_string();
        assert!(text.contains("nobody"), "{text}");
    }

    #[test]
    fn a_client_certificate_is_no_server() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        let leaf = authority.sign(&Leaf::client(COMMON)).der;
        assert!(check(&authority, &leaf, None).is_err());
    }

    #[test]
    fn garbage_is_refused_and_hostile_names_are_escaped_and_cut() {
        let authority = Authority::new("Google Cloud SQL Root CA");
        assert!(check(&authority, &CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]), None).is_err());
        let hostile = format!("evil\n{}", "x".repeat(5000));
        let leaf = authority.sign(&Leaf::server(Some(&hostile), &[])).der;
        let text = check(&authority, &leaf, None).unwrap_err().to_string();
        assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
    }

    #[test]
    fn empty_names_match_nothing() {
        for (presented, reference) in [("", ""), (".", "."), ("", "."), ("*.", "a."), ("a", ""), (".", "a")] {
            assert!(!matches(presented, reference), "{presented:?} {reference:?}");
        }
    }
}
