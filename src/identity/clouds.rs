//! The national clouds of Microsoft: which hosts belong together.
//!
//! Sources: Microsoft identity platform, "National clouds"; Microsoft Graph, "National cloud deployments"; the known
//! authorities of Microsoft's own MSAL. The v1.0 issuer of 21Vianet and of the US government's cloud is an assumption:
//! `v1_authority` and `graph` in the config override this table.

/// One cloud. Addresses have no trailing slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloud {
    /// Where people sign in; v2.0 tokens' `iss` begins with it.
    pub authority: &'static str,
    /// Other names of the same host, which no `iss` begins with.
    pub aliases: &'static [&'static str],
    /// What v1.0 tokens' `iss` begins with.
    pub v1_authority: Option<&'static str>,
    /// Microsoft Graph.
    pub graph: Option<&'static str>,
}

/// Every cloud that is known.
pub const CLOUDS: [Cloud; 6] = [
    Cloud {
        authority: "https://login.microsoftonline.com",
        aliases: &["https://login.windows.net", "https://login.microsoft.com", "https://sts.windows.net"],
        v1_authority: Some("https://sts.windows.net"),
        graph: Some("https://graph.microsoft.com"),
    },
    Cloud {
        authority: "https://login.microsoftonline.us",
        aliases: &["https://login.usgovcloudapi.net"],
        v1_authority: Some("https://sts.windows.net"),
        graph: Some("https://graph.microsoft.us"),
    },
    Cloud {
        authority: "https://login.partner.microsoftonline.cn",
        aliases: &["https://login.chinacloudapi.cn"],
        v1_authority: Some("https://sts.chinacloudapi.cn"),
        graph: Some("https://microsoftgraph.chinacloudapi.cn"),
    },
    sovereign("https://login.sovcloud-identity.fr"),
    sovereign("https://login.sovcloud-identity.de"),
    sovereign("https://login.sovcloud-identity.sg"),
];

const fn sovereign(authority: &'static str) -> Cloud {
    Cloud { authority, aliases: &[], v1_authority: None, graph: None }
}

/// The cloud of a login host.
pub fn cloud(authority: &str) -> Option<Cloud> {
    CLOUDS.into_iter().find(|cloud| cloud.authority == authority)
}

/// The cloud that a login host is another name of: its tokens never name this host.
pub fn alias(authority: &str) -> Option<Cloud> {
    CLOUDS.into_iter().find(|cloud| cloud.aliases.contains(&authority))
}

/// Whether an address is at a login host of some cloud, so that what it signs are Entra's tokens.
pub fn is_login_host(url: &str) -> bool {
    let at = |host: &str| url.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']));
    CLOUDS.into_iter().any(|cloud| {
        at(cloud.authority) || cloud.v1_authority.is_some_and(at) || cloud.aliases.iter().any(|alias| at(alias))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_meaning() {
        for cloud in CLOUDS {
            assert!(alias(cloud.authority).is_none(), "{}", cloud.authority);
            for other in cloud.aliases {
                assert_eq!(alias(other), Some(cloud));
            }
            let hosts = [Some(cloud.authority), cloud.v1_authority, cloud.graph];
            assert!(hosts.into_iter().flatten().all(|host| host.starts_with("https://") && !host.ends_with('/')));
        }
        assert_eq!(cloud("https://login.microsoftonline.us").unwrap().graph, Some("https://graph.microsoft.us"));
        assert!(cloud("https://login.microsoftonline.com.attacker.example").is_none());
        for theirs in
            ["https://login.microsoftonline.com/x/v2.0", "https://sts.windows.net/x", "https://login.windows.net"]
        {
            assert!(is_login_host(theirs), "{theirs}");
        }
        assert!(!is_login_host("https://login.microsoftonline.com.attacker.example/x"));
    }
}
