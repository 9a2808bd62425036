//! `[issuer.NAME]` and `[own_identity]`: whose tokens count, and who the proxy is itself.

use super::reader::{Declared, Placed, Section};
use super::{files, rules, values};
use crate::federation::OwnIdentityConfig;
use crate::identity::IssuerConfig;
use crate::names::{IssuerName, Provider, ServiceAccount, TenantId};
use std::path::Path;

const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";
/// The tenant of all personal Microsoft accounts (Microsoft: "Access token claims reference", `tid`).
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// Every issuer. Two for one tenant differ in their audience, or a token could not tell which is meant.
pub(super) fn issuers(root: &Section<'_>) -> Declared<IssuerConfig> {
    let mut issuers = Declared::default();
    for (name, section) in root.named_sections("issuer") {
        issuers.names.push(name.to_owned());
        let (key, at) = (section.key.clone(), section.at);
        let Some(issuer) = issuer(name, section) else { continue };
        let twin = issuers.entries.iter().find(|other: &&Placed<IssuerConfig>| {
            (other.value.tenant, &other.value.authority, &other.value.audience)
                == (issuer.tenant, &issuer.authority, &issuer.audience)
        });
        if let Some(twin) = twin {
            root.report.problem(at, &key, &format!("is for the same tenant and audience as {}; join them", twin.key));
        }
        issuers.entries.push(Placed { key, at, value: issuer });
    }
    issuers
}

fn issuer(name: &str, section: Section<'_>) -> Option<IssuerConfig> {
    let name = section.named(name, IssuerName::parse);
    let tenant = section.required("tenant", |value| {
        let tenant = values::name(TenantId::parse)(value)?;
        if tenant.to_string() == CONSUMERS {
            return Err("is the tenant of personal Microsoft accounts, which anybody can make".to_owned());
        }
        Ok(tenant)
    });
    let audience = section.required("audience", |value| {
        values::guid(value).map_err(|reason| format!("{reason}: v2.0 tokens carry the app registration's client id"))
    });
    let authority = section.optional("authority", values::service_url);
    let allowed_apps = section.list("allowed_apps", values::guid);
    let allowed_kinds = section.list("allowed_kinds", values::one_of(rules::KINDS));
    section.finish();
    Some(IssuerConfig {
        name: name?,
        tenant: tenant?,
        audience: audience?,
        authority: authority.unwrap_or_else(|| PUBLIC_AUTHORITY.to_owned()),
        allowed_apps,
        allowed_kinds,
    })
}

/// Where the proxy's own credential comes from.
#[derive(Clone, Copy)]
enum Kind {
    AzureManagedIdentity,
    GoogleServiceAccountFile,
    GoogleMetadata,
}

const KINDS: &[(&str, Kind)] = &[
    ("azure-managed-identity", Kind::AzureManagedIdentity),
    ("google-service-account-file", Kind::GoogleServiceAccountFile),
    ("google-metadata", Kind::GoogleMetadata),
];

/// The proxy's own credential.
pub(super) fn own_identity(section: Section<'_>, folder: &Path) -> Option<OwnIdentityConfig> {
    match section.required("kind", values::one_of(KINDS))? {
        Kind::AzureManagedIdentity => azure_managed_identity(section),
        Kind::GoogleServiceAccountFile => {
            let field = section.required_field("key_file");
            let path = field.as_ref().and_then(|field| field.read(|value| files::service_account_key(value, folder)));
            section.finish();
            let (field, key_file) = (field?, path?);
            field.warning("is a secret that does not end by itself: prefer a managed identity or the metadata server");
            if files::everyone_reads(&key_file) {
                field.warning("can be read by every user of this machine; mode 0600 or 0640 is enough");
            }
            Some(OwnIdentityConfig::GoogleServiceAccountFile { key_file })
        }
        Kind::GoogleMetadata => {
            section.finish();
            Some(OwnIdentityConfig::GoogleMetadata)
        }
    }
}

/// It calls the SQL Admin API, so that it must be an account in a workload pool.
fn azure_managed_identity(section: Section<'_>) -> Option<OwnIdentityConfig> {
    let resource = section.required("resource", |value| values::text(value).map(str::to_owned));
    let client_id = section.optional("client_id", values::guid);
    let provider = section.required("provider", workload_provider);
    let service_account = section.required("service_account", values::name(ServiceAccount::parse));
    section.finish();
    Some(OwnIdentityConfig::AzureManagedIdentity {
        resource: resource?,
        client_id,
        provider: provider?,
        service_account: service_account?,
    })
}

/// A provider of a pool for software.
pub(super) fn workload_provider(value: &toml::de::DeValue<'_>) -> Result<Provider, String> {
    let provider = values::name(Provider::parse)(value)?;
    if provider.is_workforce() {
        return Err(
            "is in a workforce pool, which is for people; a service account needs a workloadIdentityPools provider"
                .to_owned(),
        );
    }
    Ok(provider)
}

/// A provider of a pool for people.
pub(super) fn workforce_provider(value: &toml::de::DeValue<'_>) -> Result<Provider, String> {
    let provider = values::name(Provider::parse)(value)?;
    if !provider.is_workforce() {
        return Err("is in a workload pool, whose principals are no database users; a workforce grant needs a \
                    workforcePools provider"
            .to_owned());
    }
    Ok(provider)
}
