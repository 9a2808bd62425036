//! `connectSettings`: what the Admin API says of an instance, checked against what the config expects of it.
//!
//! The order of the checks is that of Google's connector (`cloud-sql-go-connector`, `internal/cloudsql/refresh.go`):
//! region, back-end type, addresses, CA certificates; the engine comes last.

use super::{Error, InstanceConfig, IpType};
use crate::time::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use serde::Deserialize;
use std::net::IpAddr;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The most CA certificates that one instance's bundle may hold; Google's hold up to a handful during a rotation.
const MAX_ANCHORS: usize = 32;

/// An instance as the connector needs it.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where its connector port is.
    pub destination: Destination,
    /// The name its certificate should carry, if the API tells one.
    pub server_name: Option<DnsName<'static>>,
    /// Its CA certificates: every one of the bundle that has not ended.
    pub anchors: RootCertStore,
}

/// Where to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// An address.
    Address(IpAddr),
    /// A DNS name (Private Service Connect), looked up at each dial.
    Name(String),
}

/// The parts of the answer that are read; everything is optional in protobuf's JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectSettings {
    region: Option<String>,
    backend_type: Option<String>,
    database_version: Option<String>,
    server_ca_cert: Option<SslCert>,
    #[serde(default)]
    ip_addresses: Vec<IpMapping>,
    #[serde(default)]
    psc_enabled: bool,
    dns_name: Option<String>,
    #[serde(default)]
    dns_names: Vec<DnsMapping>,
}

#[derive(Debug, Deserialize)]
struct SslCert {
    #[serde(default)]
    cert: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IpMapping {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    ip_address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DnsMapping {
    #[serde(default)]
    name: String,
    #[serde(default)]
    connection_type: String,
    #[serde(default)]
    dns_scope: String,
}

impl Settings {
    /// Reads and checks an answer of `connectSettings`.
    pub fn read(body: &[u8], instance: &InstanceConfig, now: Timestamp) -> Result<Self, Error> {
        let answer: ConnectSettings = serde_json::from_slice(body)
            .map_err(|error| Error::AdminBroken(format!("connectSettings is not the JSON it should be ({error})")))?;
        check_region(&answer, instance)?;
        check_backend_type(&answer)?;
        let destination = destination(&answer, instance.ip_type)?;
        let server_name = server_name(&answer, instance.ip_type)?;
        let anchors = anchors(&answer, now)?;
        check_engine(&answer)?;
        Ok(Self { destination, server_name, anchors })
    }
}

fn check_region(answer: &ConnectSettings, instance: &InstanceConfig) -> Result<(), Error> {
    match answer.region.as_deref() {
        None | Some("") => Err(missing("region")),
        Some(region) if region == instance.name.region() => Ok(()),
        Some(region) => Err(Error::Mismatch(format!(
            "it is in region {region:?}, its connection name says {:?}",
            instance.name.region()
        ))),
    }
}

fn check_backend_type(answer: &ConnectSettings) -> Result<(), Error> {
    match answer.backend_type.as_deref() {
        None | Some("") => Err(missing("backendType")),
        Some("SECOND_GEN") => Ok(()),
        Some(other) => Err(Error::Mismatch(format!("its back-end type is {other:?}, only SECOND_GEN can be dialled"))),
    }
}

fn check_engine(answer: &ConnectSettings) -> Result<(), Error> {
    match answer.database_version.as_deref() {
        None | Some("") => Err(missing("databaseVersion")),
        Some(version) if version.starts_with("POSTGRES") => Ok(()),
        Some(version) => Err(Error::Mismatch(format!("it runs {version:?}, not PostgreSQL"))),
    }
}

/// The address of the configured type, nothing in its place.
fn destination(answer: &ConnectSettings, ip_type: IpType) -> Result<Destination, Error> {
    let kind = match ip_type {
        IpType::Public => "PRIMARY",
        IpType::Private => "PRIVATE",
        IpType::Psc => {
            return psc_name(answer)
                .map(|name| Destination::Name(name.strip_suffix('.').unwrap_or(name).to_owned()))
                .ok_or_else(|| Error::Mismatch("it has no Private Service Connect name".to_owned()));
        }
    };
    let mapping = answer.ip_addresses.iter().find(|mapping| mapping.kind == kind).ok_or_else(|| {
        Error::Mismatch(format!("it has no address of type {kind} (the config's ip_type asks for one)"))
    })?;
    let address = mapping
        .ip_address
        .parse()
        .map_err(|_| Error::AdminBroken(format!("connectSettings has {:?} for an IP address", mapping.ip_address)))?;
    Ok(Destination::Address(address))
}

/// The instance's Private Service Connect name, while PSC is on.
fn psc_name(answer: &ConnectSettings) -> Option<&str> {
    let is_psc = |name: &&DnsMapping| name.connection_type == "PRIVATE_SERVICE_CONNECT" && name.dns_scope == "INSTANCE";
    let listed = answer.dns_names.iter().find(is_psc).map(|mapping| mapping.name.as_str());
    listed.or(answer.dns_name.as_deref()).filter(|name| answer.psc_enabled && !name.is_empty())
}

/// The name to check the server for: the dialled one, else the first that is listed, else the legacy one.
fn server_name(answer: &ConnectSettings, ip_type: IpType) -> Result<Option<DnsName<'static>>, Error> {
    let dialled = if ip_type == IpType::Psc { psc_name(answer) } else { None };
    let listed = answer.dns_names.first().map(|mapping| mapping.name.as_str());
    let name = [dialled, listed, answer.dns_name.as_deref()].into_iter().flatten().find(|name| !name.is_empty());
    name.map(|name| {
        DnsName::try_from(name.to_owned())
            .map_err(|_| Error::AdminBroken(format!("connectSettings has {name:?} for a DNS name")))
    })
    .transpose()
}

/// Every CA certificate of the bundle that has not ended; one that cannot be read spoils the whole.
fn anchors(answer: &ConnectSettings, now: Timestamp) -> Result<RootCertStore, Error> {
    let broken = |what: &str| Error::AdminBroken(format!("the instance's CA bundle {what}"));
    let bundle = answer.server_ca_cert.as_ref().map(|ca| ca.cert.as_str()).unwrap_or_default();
    if bundle.is_empty() {
        return Err(missing("serverCaCert"));
    }
    let mut store = RootCertStore::empty();
    let mut seen = 0_usize;
    for block in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let der = block.map_err(|_| broken("is not PEM"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| broken("holds something that is not X.509"))?;
        seen = seen.saturating_add(1);
        if seen > MAX_ANCHORS {
            return Err(broken("holds too many certificates"));
        }
        if parsed.validity().not_after.timestamp() > now.as_second() {
            store.add(der).map_err(|_| broken("holds a certificate that cannot be an anchor"))?;
        }
    }
    match (seen, store.is_empty()) {
        (0, _) => Err(broken("is empty")),
        (_, true) => Err(broken("has expired")),
        (_, false) => Ok(store),
    }
}

fn missing(field: &str) -> Error {
    Error::AdminBroken(format!("connectSettings has no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsql::testing::Authority;
    use crate::cloudsql::{LoginMethod, Route};
    use crate::names::InstanceName;
    use crate::time::{Clock, later};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn config(ip_type: IpType) -> InstanceConfig {
        let name = InstanceName::parse("demo-project:europe-west1:orders").unwrap();
        InstanceConfig { name, ip_type, route: Route::default(), login: LoginMethod::default() }
    }

    fn good() -> Value {
        json!({
            "kind": "sql#connectSettings",
            "serverCaCert": { "kind": "sql#sslCert", "cert": Authority::new("root").pem() },
            "ipAddresses": [
                { "type": "PRIVATE", "ipAddress": "10.0.0.5" },
                { "type": "PRIMARY", "ipAddress": "127.0.0.9" },
                { "type": "OUTGOING", "ipAddress": "192.0.2.1" },
            ],
            "region": "europe-west1",
            "databaseVersion": "POSTGRES_18",
            "backendType": "SECOND_GEN",
            "pscEnabled": true,
            "dnsName": "legacy.europe-west1.sql.goog.",
            "dnsNames": [
                { "name": "first.europe-west1.sql.goog.", "connectionType": "PUBLIC", "dnsScope": "INSTANCE" },
                { "name": "c.europe-west1.sql-psc.goog.", "connectionType": "PRIVATE_SERVICE_CONNECT",
                  "dnsScope": "CLUSTER" },
                { "name": "i.europe-west1.sql-psc.goog.", "connectionType": "PRIVATE_SERVICE_CONNECT",
                  "dnsScope": "INSTANCE" },
            ],
        })
    }

    fn read(answer: &Value, ip_type: IpType) -> Result<Settings, Error> {
        Settings::read(answer.to_string().as_bytes(), &config(ip_type), Clock::system().now())
    }

    fn with(key: &str, value: Value) -> Value {
        let mut answer = good();
        answer[key] = value;
        answer
    }

    #[test]
    fn each_ip_type_takes_its_own_address_and_name() {
        let address = |text: &str| Destination::Address(text.parse().unwrap());
        let name = |settings: &Settings| settings.server_name.as_ref().unwrap().as_ref().to_owned();
        let public = read(&good(), IpType::Public).unwrap();
        assert_eq!(public.destination, address("127.0.0.9"));
        assert_eq!(name(&public), "first.europe-west1.sql.goog.");
        assert_eq!(read(&good(), IpType::Private).unwrap().destination, address("10.0.0.5"));
        let psc = read(&good(), IpType::Psc).unwrap();
        assert_eq!(psc.destination, Destination::Name("i.europe-west1.sql-psc.goog".to_owned()));
        assert_eq!(name(&psc), "i.europe-west1.sql-psc.goog.");
        let legacy = read(&with("dnsNames", json!([])), IpType::Psc).unwrap();
        assert_eq!(legacy.destination, Destination::Name("legacy.europe-west1.sql.goog".to_owned()));
        assert_eq!(name(&read(&with("dnsNames", json!([])), IpType::Public).unwrap()), "legacy.europe-west1.sql.goog.");
    }

    #[test]
    fn without_any_dns_name_only_the_common_name_is_left() {
        let mut answer = good();
        answer.as_object_mut().unwrap().retain(|key, _| !key.starts_with("dnsName"));
        assert!(read(&answer, IpType::Public).unwrap().server_name.is_none());
        answer["dnsName"] = json!("");
        assert!(read(&answer, IpType::Public).unwrap().server_name.is_none());
    }

    #[test]
    fn an_instance_that_does_not_fit_the_config_is_a_mismatch() {
        for (key, value, ip_type, said) in [
            ("region", json!("us-central1"), IpType::Public, "region \"us-central1\""),
            ("backendType", json!("FIRST_GEN"), IpType::Public, "\"FIRST_GEN\""),
            ("ipAddresses", json!([]), IpType::Public, "PRIMARY"),
            ("ipAddresses", json!([{ "type": "PRIMARY", "ipAddress": "127.0.0.9" }]), IpType::Private, "PRIVATE"),
            ("pscEnabled", json!(false), IpType::Psc, "Private Service Connect"),
            ("databaseVersion", json!("MYSQL_8_0"), IpType::Public, "\"MYSQL_8_0\""),
        ] {
            let Err(Error::Mismatch(text)) = read(&with(key, value), ip_type) else { panic!("{key} must not fit") };
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn the_first_check_that_fails_is_the_one_that_is_told() {
        let mut answer = good();
        let order = ["region", "backendType", "ipAddresses", "serverCaCert", "databaseVersion"];
        for key in order {
            answer.as_object_mut().unwrap().remove(key);
        }
        let present = good();
        for key in order {
            let text = read(&answer, IpType::Public).unwrap_err().to_string();
            let said = if key == "ipAddresses" { "type PRIMARY" } else { key };
            assert!(text.contains(said), "{key}: {text}");
            answer[key] = present[key].clone();
        }
        assert!(read(&answer, IpType::Public).is_ok());
    }

    #[test]
    fn every_block_of_the_bundle_is_an_anchor_and_a_bad_one_spoils_it() {
        let (one, two) = (Authority::new("one"), Authority::new("two"));
        let bundle = |text: String| with("serverCaCert", json!({ "cert": text }));
        let both = read(&bundle(one.pem() + &two.pem()), IpType::Public).unwrap();
        assert_eq!(both.anchors.len(), 2);
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [
            one.pem() + bad,
            bad.to_owned(),
            String::new(),
            "no PEM at all".to_owned(),
            one.pem().replace("END", "EMD"),
            one.pem().repeat(MAX_ANCHORS + 1),
        ] {
            assert!(matches!(read(&bundle(text), IpType::Public), Err(Error::AdminBroken(_))));
        }
    }

    #[test]
    fn an_expired_ca_is_no_anchor() {
        let answer =
            with("serverCaCert", json!({ "cert": Authority::expiring("old").pem() + &Authority::new("new").pem() }));
        let config = config(IpType::Public);
        let read = |at| Settings::read(answer.to_string().as_bytes(), &config, at);
        let now = Clock::system().now();
        assert_eq!(read(now).unwrap().anchors.len(), 2);
        assert_eq!(read(later(now, Duration::from_secs(3 * 24 * 3600))).unwrap().anchors.len(), 1);
    }

    #[test]
    fn answers_that_cannot_be_used_are_told_apart_from_refusals() {
        for body in ["", "null", "[]", "{", "{}", "{\"region\": 7}"] {
            let outcome = Settings::read(body.as_bytes(), &config(IpType::Public), Clock::system().now());
            assert!(matches!(outcome, Err(Error::AdminBroken(_))), "{body:?}");
        }
        for (key, value) in [
            ("ipAddresses", json!([{ "type": "PRIMARY", "ipAddress": "orders.example" }])),
            ("dnsNames", json!([{ "name": "*.europe-west1.sql.goog" }])),
            ("dnsNames", json!([{ "name": "." }])),
            ("dnsNames", json!([{ "name": "a\nb" }])),
        ] {
            assert!(matches!(read(&with(key, value.clone()), IpType::Public), Err(Error::AdminBroken(_))), "{value}");
        }
    }
}
