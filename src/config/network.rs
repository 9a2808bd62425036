//! `[listen]`, `[admin]`, `[https]` and `[google]`: who is listened to and who is called.

use super::reader::{Placed, Section};
use super::{ListenConfig, ProxyProtocol, files, values};
use crate::federation::{GoogleEndpoints, OwnIdentityConfig};
use crate::names::Provider;
use crate::policy::Rule;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Threads that serve connections: each has its own descriptors for waiting, and more than processors only wait.
const WORKERS: std::ops::RangeInclusive<u32> = 1..=1024;
const PROXY_PROTOCOL: &[(&str, ProxyProtocol)] =
    &[("off", ProxyProtocol::Off), ("optional", ProxyProtocol::Optional), ("required", ProxyProtocol::Required)];
/// Google's public cloud (Google Cloud, "universe domain").
const PUBLIC_UNIVERSE: &str = "googleapis.com";
/// Where the admin listener is when the file does not say.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

pub(super) fn listen(section: Section<'_>, folder: &Path) -> Option<ListenConfig> {
    let address = section.required("address", values::socket_address);
    let chain = section.required("certificate", |value| files::certificates(value, folder));
    let key = section.required_field("key");
    let private = key.as_ref().and_then(|key| key.read(|value| files::private_key(value, folder)));
    let trusted_proxies = section.list("trusted_proxies", values::network("trusts every address there is"));
    let proxy_protocol = proxy_protocol(&section);
    let workers = section.optional("workers", values::integer(WORKERS)).map(|workers| workers as usize);
    section.finish();
    let ((certificate, chain), key, (path, private)) = (chain?, key?, private?);
    files::pair(chain, private, "listen.certificate").map_err(|reason| key.problem(&reason)).ok()?;
    if files::everyone_reads(&path) {
        key.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
    }
    Some(ListenConfig { address: address?, certificate, key: path, trusted_proxies, proxy_protocol, workers })
}

/// Who writes a header decides whose address is limited and recorded.
fn proxy_protocol(section: &Section<'_>) -> ProxyProtocol {
    let Some(field) = section.field("proxy_protocol") else { return ProxyProtocol::Off };
    let mode = field.read(values::one_of(PROXY_PROTOCOL)).unwrap_or_default();
    let trusts = section.field("trusted_proxies").is_some_and(|field| !field.is_empty_array());
    if mode != ProxyProtocol::Off && !trusts {
        field.problem("needs listen.trusted_proxies: a header is read from those addresses only");
    } else if mode == ProxyProtocol::Optional {
        field.warning(
            "lets a client behind a balancer that adds no header write one, with any address; \"required\" does not",
        );
    }
    mode
}

/// The HTTP listener and the socket.
pub(super) fn admin(section: Option<Section<'_>>, folder: &Path) -> (Option<SocketAddr>, Option<PathBuf>) {
    let Some(section) = section else { return (Some(DEFAULT_ADMIN), None) };
    let enabled = section.optional("enabled", values::boolean).unwrap_or(true);
    let field = section.field("address");
    let address = field.as_ref().and_then(|field| field.read(values::socket_address)).unwrap_or(DEFAULT_ADMIN);
    if let Some(field) = field.filter(|_| enabled && !address.ip().is_loopback()) {
        field.warning("is not loopback: health and metrics are served there in the clear, to anybody who asks");
    }
    let socket = section.optional("socket", |value| files::socket(value, folder));
    section.finish();
    (enabled.then_some(address), socket)
}

pub(super) fn https(section: Section<'_>, folder: &Path) -> Option<PathBuf> {
    let ca = section.optional("ca_certificate", |value| files::certificates(value, folder));
    section.finish();
    ca.map(|(path, _)| path)
}

/// The domain that Google's services are under, and their addresses there.
pub(super) fn google(section: Option<Section<'_>>) -> (String, GoogleEndpoints) {
    let given = |key| section.as_ref().and_then(|section| section.optional(key, values::service_url));
    let universe = section.as_ref().and_then(|section| section.optional("universe_domain", values::domain));
    let universe = universe.unwrap_or_else(|| PUBLIC_UNIVERSE.to_owned());
    let service = |key, name: &str| given(key).unwrap_or_else(|| format!("https://{name}.{universe}"));
    let endpoints = GoogleEndpoints {
        sts: service("sts", "sts"),
        iam_credentials: service("iam_credentials", "iamcredentials"),
        sql_admin: service("sql_admin", "sqladmin"),
    };
    if let Some(section) = section {
        section.finish();
    }
    (universe, endpoints)
}

/// A provider names its universe: another one's STS does not know it. That providers of another universe may be named
/// as those of the public one (`//iam.googleapis.com/…`) is an assumption, so that both are taken there.
pub(super) fn universe(root: &Section<'_>, universe: &str, rules: &[Placed<Rule>], own: Option<&OwnIdentityConfig>) {
    let foreign = |provider: &Provider| ![PUBLIC_UNIVERSE, universe].contains(&provider.universe());
    let reason = format!("is in another universe than google.universe_domain, {universe}");
    for rule in rules.iter().filter(|rule| foreign(rule.value.how.provider())) {
        root.report.problem(rule.at, &format!("{}.grant.provider", rule.key), &reason);
    }
    if let Some(OwnIdentityConfig::AzureManagedIdentity { provider, .. }) = own
        && foreign(provider)
    {
        let at = root.field("own_identity").map_or(root.at, |field| field.at);
        root.report.problem(at, "own_identity.provider", &reason);
    }
}
