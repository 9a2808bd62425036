//! `[own_identity]` and providers: who the proxy is itself, and whom Google lets in.

use super::reader::Section;
use super::{files, values};
use crate::federation::OwnIdentityConfig;
use crate::names::{Provider, ServiceAccount};
use std::path::Path;

/// The most accounts on the way to another (none is documented; each costs IAM a look).
const MAX_DELEGATES: usize = 10;

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
    let delegates = delegates(&section, service_account.as_ref());
    section.finish();
    Some(OwnIdentityConfig::AzureManagedIdentity {
        resource: resource?,
        client_id,
        provider: provider?,
        service_account: service_account?,
        delegates: delegates?,
    })
}

/// The accounts on the way to `account`: none twice, and not itself, which would be a longer way to the same place.
pub(super) fn delegates(section: &Section<'_>, account: Option<&ServiceAccount>) -> Option<Vec<ServiceAccount>> {
    let Some(field) = section.field("delegates") else { return Some(Vec::new()) };
    let entries = field.entries()?;
    if entries.len() > MAX_DELEGATES {
        field.problem(&format!("has more than {MAX_DELEGATES} accounts"));
        return None;
    }
    let mut delegates: Vec<ServiceAccount> = Vec::new();
    for entry in entries {
        let delegate = entry.read(values::name(ServiceAccount::parse))?;
        if account == Some(&delegate) || delegates.contains(&delegate) {
            entry.problem("is on the way already: the chain leads from delegates to service_account, each once");
            return None;
        }
        delegates.push(delegate);
    }
    Some(delegates)
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
