//! Microsoft's own APIs, as far as they are well known: their tokens are not for us to judge ("Access tokens": validate
//! only your own API's). Whoever holds one got it for something else, and shows it to that service every day.
//!
//! A list cannot be complete: Microsoft publishes none of its APIs' ids.

/// Client ids of Microsoft's first services end so (Microsoft Graph is `00000003-…`).
const FIRST_IDS: &str = "-0000-0000-c000-000000000000";

/// App ids of others, which v2.0 tokens and many v1.0 tokens carry.
const IDS: [&str; 11] = [
    // Azure Resource Manager.
    "797f4846-ba00-4fd7-ba43-dac1f8f63013",
    // Azure Key Vault.
    "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
    // Azure Database for PostgreSQL and MySQL.
    "123cd850-d9df-40bd-94d5-c9f07b7fa203",
    // Azure SQL.
    "022907d3-0f1b-48f7-badc-1ba6abab6d66",
    // Azure Storage.
    "e406a681-f3d4-42a8-90b6-c2b029497af1",
    // Azure Data Lake.
    "e9f49c6b-5ce5-44c8-925d-015017e9f7ad",
    // Azure DevOps.
    "499b84ac-1321-427f-aa17-267ca6975798",
    // Azure Kubernetes Service.
    "6dae42f8-4368-4678-94ff-3960e28e3630",
    // Azure Databricks.
    "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",
    // Azure Data Explorer.
    "2746ea77-4702-4b45-80ca-3c97e680e8b7",
    // The exchange of other providers' tokens (`api://AzureADTokenExchange`): made to be shown to others.
    "fb60f99c-7a34-4190-8149-302f77469936",
];

/// App ID URIs that are no addresses.
const URIS: [&str; 1] = ["api://azureadtokenexchange"];

/// App ID URIs that are addresses are on these domains; of all clouds.
const DOMAINS: [&str; 19] = [
    "windows.net",
    "microsoft.com",
    "microsoftonline.com",
    "azure.com",
    "azure.net",
    "office.com",
    "office365.com",
    "dynamics.com",
    "sharepoint.com",
    "visualstudio.com",
    "microsoft.us",
    "microsoftonline.us",
    "azure.us",
    "azure.cn",
    "microsoftonline.cn",
    "chinacloudapi.cn",
    "usgovcloudapi.net",
    "office365.us",
    "sharepoint.us",
];

/// Whether an audience is one of Microsoft's own APIs, as far as this list goes.
pub(super) fn is_api(audience: &str) -> bool {
    let lower = audience.to_ascii_lowercase();
    let bare = lower.trim_end_matches('/');
    let id = bare.rsplit([':', '/']).next().unwrap_or(bare);
    URIS.contains(&bare) || IDS.contains(&id) || id.ends_with(FIRST_IDS) || host(bare).is_some_and(is_theirs)
}

/// The host of an address, without user, port and a root's dot.
fn host(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = host.split(':').next().unwrap_or(host);
    Some(host.strip_suffix('.').unwrap_or(host))
}

fn is_theirs(host: &str) -> bool {
    let on = |domain: &str| host.strip_suffix(domain).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'));
    DOMAINS.into_iter().any(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microsofts_well_known_apis_are_known_however_they_are_written() {
        for theirs in [
            "00000003-0000-0000-c000-000000000000",
            "00000003-0000-0000-C000-000000000000",
            "797f4846-ba00-4fd7-ba43-dac1f8f63013",
            "CFA8B339-82A2-471A-A3C9-0FC0BE7A4093",
            "123cd850-d9df-40bd-94d5-c9f07b7fa203",
            "spn:123cd850-d9df-40bd-94d5-c9f07b7fa203",
            "api://fb60f99c-7a34-4190-8149-302f77469936",
            "api://AzureADTokenExchange",
            "api://AzureADTokenExchange/",
            "https://graph.microsoft.com",
            "https://GRAPH.microsoft.com",
            "https://management.azure.com/",
            "https://management.azure.com:443/",
            "https://management.azure.com./",
            "https://x@management.azure.com",
            "https://management.core.windows.net//",
            "https://ossrdbms-aad.database.windows.net",
            "https://ossrdbms-aad.database.usgovcloudapi.net",
            "https://ossrdbms-aad.database.chinacloudapi.cn",
            "https://graph.microsoft.us",
            "https://vault.azure.cn",
        ] {
            assert!(is_api(theirs), "{theirs}");
        }
        for ours in [
            "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10",
            "api://3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10",
            "api://pgpassport",
            "https://mywindows.net/x",
            "https://windows.net.contoso.example",
            "https://contoso.example/windows.net",
            "pgpassport",
            "",
        ] {
            assert!(!is_api(ours), "{ours}");
        }
    }
}
